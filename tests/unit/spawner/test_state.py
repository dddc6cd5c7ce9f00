"""The spawner's decisions on a simulated clock: starts, pauses, deaths, reports, stop and reload."""

import pytest

from dr.errors import Impossible
from dr.protocol.messages import Announcement, Availability
from dr.settings import Settings
from workers.server.words import RESTART_STATUS
from workers.spawner.commands import (
    Announce,
    AskToRestart,
    AskToStop,
    Exit,
    Kill,
    Level,
    Log,
    RereadSettings,
    StartServer,
)
from workers.spawner.events import (
    ReloadRequested,
    ServerExited,
    ServerListening,
    ServerReported,
    SettingsRead,
    SettingsRefused,
    StopRequested,
)
from workers.spawner.slot import Phase
from workers.spawner.state import START_SETTINGS, Patience, Slot, SpawnerState

READY, BUSY, DRAINING, GONE = Availability.READY, Availability.BUSY, Availability.DRAINING, Availability.GONE
SLOTS = (Slot(30000, "node 0"), Slot(30001, "node 2,3"))
PATIENCE = Patience()
SIGKILLED = (-9, "killed by SIGKILL")


def said(state: Availability, slot: int = 0, holder: str = "", boot: bytes = b"bootboot") -> Announcement:
    return Announcement(version=1, port=SLOTS[slot].port, boot=boot, state=state, holder=holder)


def started(count: int = 1, now: float = 0.0) -> SpawnerState:
    state = SpawnerState(SLOTS[:count], PATIENCE)
    state.start(now)
    return state


def listening(count: int = 1, now: float = 0.0) -> SpawnerState:
    """Every server listens and is ready."""
    state = started(count, now)
    for slot in range(count):
        state.handle(ServerListening(slot, f"tcp://127.0.0.1:{SLOTS[slot].port}"), now)
        state.handle(ServerReported(slot, said(READY, slot)), now)
    return state


def exited(slot: int = 0, status: int | None = 1, reason: str = "ended with status 1") -> ServerExited:
    return ServerExited(slot, status, reason)


def deeds(commands):
    """All but the lines for people."""
    return [command for command in commands if not isinstance(command, Log)]


def lines(commands):
    return [(command.level, command.slot, command.text) for command in commands if isinstance(command, Log)]


def until(state: SpawnerState, end: float):
    """(time, command) of all that the clock alone brings until `end`, beacons left out."""
    found = []
    while (deadline := state.next_deadline()) is not None and deadline <= end:
        found += [(deadline, each) for each in deeds(state.tick(deadline)) if not isinstance(each, Announce)]
        assert state.next_deadline() != deadline, "a tick moves its deadline"
    return found


def die(state: SpawnerState, now: float, **how) -> float:
    """When the server that dies now is started again."""
    state.handle(exited(**how), now)
    ((start_s, command),) = until(state, now + PATIENCE.backoff_last_s)
    assert command == StartServer(0)
    return start_s


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
        ([(READY, ""), (BUSY, "ada"), (READY, "")], ["ready", "leased to ada", "released by ada, ready"]),
        ([(BUSY, "ada"), (BUSY, "ada"), (BUSY, "bob")], ["leased to ada", "leased to bob"]),
        ([(BUSY, "")], ["leased to a client without a name"]),
        ([(BUSY, "a\nERROR\x1b[2J")], ["leased to a?ERROR?[2J"]),
        ([(BUSY, "ada"), (DRAINING, "ada"), (DRAINING, "")], ["leased to ada", "draining", "draining"]),
    ],
)
def test_leases_and_releases_are_logged(reports, texts):
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
        commands = state.handle(exited(0, RESTART_STATUS, ""), 1.0 + number / 100)
        assert deeds(commands) == [StartServer(0)]
    assert die(state, 12.0) == 14.0, "neither did they change the pause: this is the second death"


# -- stop -------------------------------------------------------------------------------------------------------------


def test_a_stop_asks_every_server_and_ends_with_the_last_of_them():
    state = listening(2)
    assert state.handle(StopRequested("SIGTERM"), 5.0) == [
        Log(Level.INFO, "stopping: SIGTERM"),
        AskToStop(0),
        AskToStop(1),
    ]
    report = said(DRAINING, slot=1)
    assert Announce(report) in state.handle(ServerReported(1, report), 5.1)
    assert state.handle(exited(1, 0, "ended with status 0"), 5.2) == [
        Announce(said(GONE, slot=1)),
        Log(Level.INFO, "stopped", 1),
    ]
    assert state.handle(exited(0, -15, "killed by SIGTERM"), 5.3) == [
        Announce(said(GONE)),
        Log(Level.INFO, "stopped: killed by SIGTERM", 0),
        Log(Level.INFO, "every server has ended"),
        Exit(0),
    ]
    assert state.next_deadline() is None


@pytest.mark.parametrize("status", [0, 1, -9, RESTART_STATUS, None])
def test_nothing_is_started_once_a_stop_was_asked_for(status):
    state = listening(2)
    state.handle(StopRequested("SIGTERM"), 5.0)
    assert StartServer(0) not in state.handle(exited(0, status, "however"), 5.1)
    assert until(state, 5.1 + PATIENCE.backoff_last_s) == [(5.0 + PATIENCE.stop_s, Kill(1))]


def test_a_stop_does_not_wait_for_a_pause_to_end():
    state = listening(2)
    state.handle(exited(0), 4.0)
    assert deeds(state.handle(StopRequested("SIGTERM"), 4.5)) == [AskToStop(1)]
    assert deeds(state.handle(exited(1, 0), 4.6)) == [Announce(said(GONE, slot=1)), Exit(0)]


def test_a_stop_with_no_server_alive_ends_at_once():
    state = listening()
    state.handle(exited(), 4.0)
    assert deeds(state.handle(StopRequested("SIGTERM"), 4.5)) == [Exit(0)]


def test_a_stop_that_was_asked_for_succeeds_even_if_a_slot_was_given_up():
    state = started(2)
    now = 0.0
    for _ in range(4):
        now = die(state, now)
    state.handle(exited(), now)
    state.handle(StopRequested("SIGTERM"), now)
    assert deeds(state.handle(exited(1, 0), now)) == [Exit(0)]


def test_who_has_not_left_in_time_is_killed_by_name():
    state = listening(2)
    state.handle(StopRequested("SIGTERM"), 5.0)
    state.handle(exited(0, 0), 6.0)
    due = 5.0 + PATIENCE.stop_s
    assert lines(state.tick(due - 0.01)) == []
    assert [each for each in state.tick(due) if not isinstance(each, Announce)] == [
        Log(Level.WARNING, "killed (node 2,3): it did not leave within 4.7 s", 1),
        Kill(1),
    ]
    assert until(state, 100.0) == [], "once is enough"
    assert Exit(0) in state.handle(exited(1, *SIGKILLED), 100.0)


def test_a_second_stop_kills_at_once_and_a_third_does_nothing():
    state = listening(2)
    state.handle(StopRequested("SIGINT"), 5.0)
    state.handle(exited(1, 0), 5.1)
    assert state.handle(StopRequested("SIGINT"), 5.2) == [
        Log(Level.WARNING, "killed (node 0): asked to stop once more: SIGINT", 0),
        Kill(0),
    ]
    assert state.handle(StopRequested("SIGINT"), 5.3) == []
    assert until(state, 100.0) == []


def test_a_server_that_is_still_starting_is_asked_to_stop_too():
    state = started()
    assert AskToStop(0) in state.handle(StopRequested("SIGTERM"), 0.1)
    assert deeds(state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 0.2)) == []


# -- reload -----------------------------------------------------------------------------------------------------------


def test_a_reload_reads_the_settings_again():
    assert listening().handle(ReloadRequested(), 1.0) == [RereadSettings()]


def test_settings_that_stayed_the_same_restart_nobody():
    assert listening().handle(SettingsRead(()), 1.0) == [Log(Level.INFO, "settings read again: nothing changed")]


def test_changed_settings_are_named_and_every_server_is_asked_to_restart():
    state = listening(2)
    commands = state.handle(SettingsRead(("beat_s", "waiters")), 1.0)
    text = "settings read again: beat_s, waiters changed; each server restarts once no client holds it"
    assert commands == [Log(Level.INFO, text), AskToRestart(0), AskToRestart(1)]


def test_a_server_that_was_asked_to_restart_is_not_asked_again_but_the_next_one_is():
    state = listening()
    state.handle(SettingsRead(("beat_s",)), 1.0)
    assert deeds(state.handle(SettingsRead(("waiters",)), 2.0)) == []
    state.handle(exited(0, RESTART_STATUS, ""), 3.0)
    state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 4.0)
    assert deeds(state.handle(SettingsRead(("beat_s",)), 5.0)) == [AskToRestart(0)]


def test_a_server_that_began_before_the_change_is_asked_when_it_listens():
    state = started()
    assert deeds(state.handle(SettingsRead(("beat_s",)), 1.0)) == []
    listens = ServerListening(0, "tcp://127.0.0.1:30000")
    assert deeds(state.handle(listens, 2.0)) == [AskToRestart(0)]


def test_a_server_that_begins_after_the_change_has_the_new_settings():
    state = listening()
    start_s = die(state, 0.5)
    state.handle(exited(), start_s)
    state.handle(SettingsRead(("beat_s",)), start_s + 0.1)
    until(state, start_s + 2.0)
    assert deeds(state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), start_s + 3.0)) == []


def test_what_a_spawner_uses_at_its_start_only_is_said_to_wait_and_restarts_nobody():
    commands = listening().handle(SettingsRead(("bind", "port")), 1.0)
    text = "settings read again: bind, port changed; that waits for the next start of the spawner"
    assert commands == [Log(Level.INFO, text)]


def test_both_kinds_of_settings_are_told_apart():
    commands = listening().handle(SettingsRead(("announce_port", "beat_s")), 1.0)
    waits, restarts = (text for _, _, text in lines(commands))
    assert ("announce_port" in waits, "beat_s" in waits) == (True, False)
    assert ("announce_port" in restarts, "beat_s" in restarts) == (False, True)
    assert deeds(commands) == [AskToRestart(0)]


def test_the_settings_of_a_start_are_settings():
    assert set(Settings.__struct_fields__) >= START_SETTINGS


def test_settings_that_cannot_be_read_change_nothing():
    commands = listening().handle(SettingsRefused("dr.toml: expected TOML"), 1.0)
    assert commands == [Log(Level.ERROR, "dr.toml: expected TOML; the old settings stay")]


def test_a_spawner_that_stops_reads_no_settings():
    state = listening()
    state.handle(StopRequested("SIGTERM"), 1.0)
    for event in (ReloadRequested(), SettingsRead(("beat_s",)), SettingsRefused("dr.toml: bad")):
        assert state.handle(event, 1.1) == []


def test_a_starting_server_that_was_to_restart_is_left_alone_by_a_stop():
    state = started()
    state.handle(SettingsRead(("beat_s",)), 1.0)
    state.handle(StopRequested("SIGTERM"), 1.1)
    assert deeds(state.handle(ServerListening(0, "tcp://127.0.0.1:30000"), 1.2)) == []


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
