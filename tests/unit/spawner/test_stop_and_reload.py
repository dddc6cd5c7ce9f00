"""What people ask of a spawner, on a simulated clock: to stop, and to read its settings again."""

import pytest

from dr.settings import Settings
from tests.support.spawner_state import (
    DRAINING,
    GONE,
    PATIENCE,
    SIGKILLED,
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
    ServerListening,
    ServerReported,
    SettingsRead,
    SettingsRefused,
    StopRequested,
)
from workers.spawner.state import START_SETTINGS

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


@pytest.mark.parametrize("changed", [(), ("bucket_size", "ping_s")])
def test_settings_that_stayed_the_same_or_are_a_clients_restart_nobody(changed):
    text = "settings read again: nothing changed that servers use"
    assert listening().handle(SettingsRead(changed), 1.0) == [Log(Level.INFO, text)]


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
