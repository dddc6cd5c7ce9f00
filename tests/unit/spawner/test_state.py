"""What servers do and a spawner decides about them, on a simulated clock: starts, reports, beacons, deaths."""

import pytest

from dr.errors import Impossible
from tests.support.spawner_state import (
    BUSY,
    DRAINING,
    GONE,
    PATIENCE,
    READY,
    SIGKILLED,
    SLOTS,
    deeds,
    die,
    exited,
    lines,
    listening,
    said,
    started,
    until,
)
from workers.server.words import RESTART_STATUS
from workers.spawner.commands import Announce, Exit, Kill, Level, Log, StartServer
from workers.spawner.events import ServerListening, ServerReported, StopRequested
from workers.spawner.slot import Phase
from workers.spawner.state import Patience, SpawnerState

# -- start, listening, reports ----------------------------------------------------------------------------------------


def test_every_slot_is_started_with_a_line_each():
    assert SpawnerState(SLOTS, PATIENCE).start(5.0) == [
        Log(Level.INFO, "starting (node 0)", 0),
        StartServer(0),
        Log(Level.INFO, "starting (node 2,3)", 1),
        StartServer(1),
    ]


def test_a_server_that_listens_is_logged_once_with_its_endpoint_and_node():
    state = started(2)
    event = ServerListening(1, "tcp://127.0.0.1:30001")
    assert state.handle(event, 0.5) == [Log(Level.INFO, "listening on tcp://127.0.0.1:30001 (node 2,3)", 1)]
    assert state.handle(event, 0.6) == []


def test_a_report_is_announced_at_once_exactly_as_it_came():
    state = started(2)
    report = said(BUSY, slot=1, holder="ada")
    assert deeds(state.handle(ServerReported(1, report), 0.5)) == [Announce(report)]


@pytest.mark.parametrize(
    ("reports", "texts"),
    [
        ([(READY, "")], ["ready"]),
        ([(READY, ""), (READY, "")], ["ready"]),
        ([(READY, ""), (BUSY, "ada"), (READY, "")], ["ready"]),
        ([(BUSY, "ada"), (READY, "")], []),
        ([(BUSY, "ada"), (DRAINING, "ada"), (DRAINING, "")], []),
    ],
)
def test_a_server_is_called_ready_once_and_its_own_log_tells_the_rest(reports, texts):
    state = started()
    heard = [state.handle(ServerReported(0, said(now, holder=holder)), 0.0) for now, holder in reports]
    assert [text for commands in heard for text in lines(commands)] == [(Level.INFO, 0, text) for text in texts]
    assert sum(isinstance(each, Announce) for commands in heard for each in commands) == len(reports)


def test_nothing_is_heard_of_a_server_that_is_gone():
    state = listening()
    state.handle(exited(), 1.0)
    assert state.handle(ServerReported(0, said(READY)), 1.1) == []
    assert state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 1.1) == []
    assert state.handle(exited(), 1.1) == []


def test_no_server_speaks_for_another_port():
    state = listening(2)
    commands = state.handle(ServerReported(0, said(GONE, slot=1)), 1.0)
    assert deeds(commands) == []
    ((level, slot, text),) = lines(commands)
    assert (level, slot) == (Level.WARNING, 0)
    assert "expected reports of port 30000, found one of port 30001" in text


# -- beacons ----------------------------------------------------------------------------------------------------------


def test_every_second_all_that_is_known_is_announced_again_in_the_order_of_slots():
    state = listening(2)
    state.handle(ServerReported(0, said(BUSY, holder="ada")), 0.4)
    assert state.next_deadline() == 1.0
    again = [Announce(said(BUSY, holder="ada")), Announce(said(READY, slot=1))]
    assert state.tick(0.9) == []
    assert state.tick(1.0) == again
    assert state.next_deadline() == 2.0
    assert state.tick(7.3) == again, "beacons that were missed are not made up for"
    assert state.next_deadline() == 8.3


def test_a_beacon_says_nothing_of_a_server_that_never_reported():
    state = started(2)
    state.handle(ServerReported(1, said(READY, slot=1)), 0.4)
    assert state.tick(1.0) == [Announce(said(READY, slot=1))]


def test_a_server_that_restarts_stays_gone_until_it_reports():
    state = listening()
    assert Announce(said(GONE)) in state.handle(exited(), 0.5)
    assert state.tick(1.0) == [Announce(said(GONE))]
    assert StartServer(0) in state.tick(1.5)
    assert state.tick(2.0) == [Announce(said(GONE))]
    fresh = said(READY, boot=b"newboot!")
    assert state.handle(ServerReported(0, fresh), 2.5) == [Announce(fresh), Log(Level.INFO, "ready", 0)]
    assert state.tick(3.0) == [Announce(fresh)]


def test_a_slot_that_is_given_up_stays_gone_in_the_beacons():
    state = listening(2)
    now = 0.0
    for _ in range(PATIENCE.deaths - 1):
        now = die(state, now)
    state.handle(exited(), now)
    assert state.slots[0].phase is Phase.GIVEN_UP
    assert state.tick(now + 100.0) == [Announce(said(GONE)), Announce(said(READY, slot=1))]


# -- deaths -----------------------------------------------------------------------------------------------------------


def test_a_death_is_announced_with_the_last_boot_and_no_holder():
    state = listening()
    state.handle(ServerReported(0, said(BUSY, holder="ada", boot=b"lastboot")), 0.1)
    commands = state.handle(exited(0, *SIGKILLED), 0.2)
    assert commands == [
        Announce(said(GONE, boot=b"lastboot")),
        Log(Level.WARNING, "killed by SIGKILL; starts again in 1 s", 0),
    ]


def test_a_server_that_never_reported_is_not_announced_gone():
    assert deeds(started().handle(exited(), 0.1)) == []


def test_gone_is_announced_once_for_a_server_that_dies_again_before_it_reports():
    state = listening()
    start_s = die(state, 0.0)
    assert deeds(state.handle(exited(), start_s)) == []


@pytest.mark.parametrize(
    ("status", "reason", "text"),
    [
        (0, "ended with status 0", "ended with status 0; starts again in 1 s"),
        (1, "ended with status 1: boom", "ended with status 1: boom; starts again in 1 s"),
        (2, "ended with status 2: port taken", "ended with status 2: port taken; starts again in 1 s"),
        (3, "ended with status 3: no key", "ended with status 3: no key; starts again in 1 s"),
        (*SIGKILLED, "killed by SIGKILL; starts again in 1 s"),
        (None, "Too many open files", "could not be started: Too many open files; starts again in 1 s"),
        (1, "two\nlines", "two?lines; starts again in 1 s"),
    ],
)
def test_a_death_is_logged_with_how_it_came_and_followed_by_a_start(status, reason, text):
    state = listening()
    assert lines(state.handle(exited(0, status, reason), 0.2)) == [(Level.WARNING, 0, text)]
    assert until(state, 2.0) == [(1.2, StartServer(0))]


def test_the_pause_doubles_up_to_half_a_minute():
    state = SpawnerState(SLOTS[:1], Patience(deaths=100))
    state.start(0.0)
    now, pauses = 0.0, []
    for _ in range(8):
        start_s = die(state, now)
        pauses.append(start_s - now)
        now = start_s + 0.25
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_healthy_minute_makes_the_next_pause_the_first_again():
    state = started()
    now = die(state, die(state, 0.0))
    state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), now + 5.0)
    now += 5.0 + PATIENCE.healthy_s
    assert die(state, now) == now + 1.0
    assert die(state, now + 1.0) == now + 1.0 + 2.0


def test_a_minute_counts_from_when_a_server_listens():
    state = started()
    now = die(state, 0.0)
    state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), now + 30.0)
    now += PATIENCE.healthy_s + 29.0
    assert die(state, now) == now + 2.0
    assert die(state, now + 100.0) == now + 100.0 + 4.0, "one that never listened was never healthy"


def test_each_slot_has_its_own_pause():
    state = started(2)
    die(state, 0.0)
    state.handle(exited(0), 1.0)
    state.handle(exited(1), 1.5)
    assert until(state, 10.0) == [(2.5, StartServer(1)), (3.0, StartServer(0))]


def test_the_fifth_death_within_a_minute_ends_the_slot_for_good():
    state = started(2)
    now = 0.0
    for _ in range(4):
        now = die(state, now)
    assert now == 1 + 2 + 4 + 8
    ((level, slot, text),) = lines(state.handle(exited(0, 2, "ended with status 2: bad"), now))
    assert (level, slot) == (Level.ERROR, 0)
    assert text.startswith("ended with status 2: bad; given up after 5 deaths within 60 s: see the log")
    assert "start the spawner again" in text
    assert until(state, 1000.0) == []


def test_deaths_that_are_spread_out_end_no_slot():
    state = started(2)
    now = 0.0
    for _ in range(50):
        now = die(state, now) + 13.0
    assert state.slots[0].phase is Phase.STARTING


def test_five_deaths_count_only_within_the_minute():
    state = started(2)
    for now in (0.0, 10.0, 20.0, 30.0):
        die(state, now)
    state.handle(exited(), 60.0)  # the first one is a minute ago
    assert state.slots[0].phase is Phase.WAITING
    (start_s, _), *_ = until(state, 100.0)
    assert start_s == 76.0


def test_the_spawner_ends_when_no_slot_is_left():
    state = started(2)
    for slot in (0, 1):
        now = 100.0 * slot
        for _ in range(4):
            state.handle(exited(slot), now)
            ((now, _),) = until(state, now + 30.0)
        commands = state.handle(exited(slot), now)
    assert deeds(commands) == [Exit(1)]
    (_, (level, slot, text)) = lines(commands)
    assert (level, slot) == (Level.ERROR, None)
    assert "no server is left" in text
    assert state.next_deadline() is None
    assert state.handle(StopRequested("SIGTERM"), 500.0) == []
    assert state.tick(500.0) == []


# -- restarts that were asked for -------------------------------------------------------------------------------------


def test_a_server_that_asks_for_a_restart_gets_it_at_once():
    state = listening()
    assert state.handle(exited(0, RESTART_STATUS, "ended with status 75"), 3.0) == [
        Announce(said(GONE)),
        Log(Level.INFO, "asked for a restart", 0),
        Log(Level.INFO, "starting (node 0)", 0),
        StartServer(0),
    ]


def test_restarts_that_were_asked_for_are_no_deaths():
    state = started()
    die(state, 0.0)
    for number in range(1000):
        state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 1.0 + number / 100)
        commands = state.handle(exited(0, RESTART_STATUS, ""), 1.0 + number / 100)
        assert deeds(commands) == [StartServer(0)]
    assert die(state, 12.0) == 14.0, "neither did they change the pause: this is the second death"


def test_who_asks_for_a_restart_before_it_listens_has_died():
    state = started()
    ((level, _, text),) = lines(state.handle(exited(0, RESTART_STATUS, "ended with status 75"), 0.5))
    assert (level, text) == (Level.WARNING, "ended with status 75; starts again in 1 s")


def test_a_server_that_does_not_come_as_far_as_listening_is_killed_once():
    state = SpawnerState(SLOTS[:1], Patience(listen_s=30.0))
    state.start(0.0)
    assert until(state, 100.0) == [(30.0, Kill(0))]
    assert die(state, 100.0) == 101.0


def test_a_server_that_listens_is_not_killed():
    state = SpawnerState(SLOTS[:1], Patience(listen_s=30.0))
    state.start(0.0)
    state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 29.9)
    assert until(state, 100.0) == []


# -- the state itself -------------------------------------------------------------------------------------------------


def broken_port(state):
    state.slots[1].slot = state.slots[0].slot


def broken_offer(state):
    state.slots[0].phase = Phase.WAITING


def broken_deaths(state):
    state.slots[0].deaths_s = [0.0] * PATIENCE.deaths


def broken_stop(state):
    state.handle(exited(), 0.0)
    state.stopping = True


def broken_kill(state):
    state.kill_s = 1.0


def broken_exit(state):
    state.exited = True


@pytest.mark.parametrize(
    ("break_it", "proof"),
    [
        (broken_port, "its own port"),
        (broken_offer, "offers none"),
        (broken_deaths, "given up"),
        (broken_stop, "starts nothing"),
        (broken_kill, "only a spawner that stops kills"),
        (broken_exit, "no server outlives"),
    ],
)
def test_an_impossible_state_is_found(break_it, proof):
    state = listening(2)
    state.check()
    break_it(state)
    with pytest.raises(Impossible, match=proof):
        state.check()
