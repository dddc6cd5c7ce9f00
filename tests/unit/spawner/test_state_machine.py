"""Thousands of orders of what servers, people and the clock may do to a spawner; each keeps its promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dr.protocol.messages import Announcement, Availability
from workers.server.words import RESTART_STATUS
from workers.spawner.commands import (
    Announce,
    AskToRestart,
    AskToStop,
    Exit,
    Kill,
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
from workers.spawner.state import Patience, Slot, SpawnerState

SLOTS = [Slot(30000 + number, f"node {number}") for number in range(3)]
PATIENCE = Patience()
slots = st.sampled_from(range(len(SLOTS)))
statuses = st.sampled_from([0, 1, 2, 3, 70, -9, -11, None, RESTART_STATUS])
reported = st.sampled_from([Availability.READY, Availability.BUSY, Availability.DRAINING])
changes = st.sampled_from([(), ("beat_s",), ("port",), ("announce_port", "beat_s", "waiters")])


class Process:
    """What the world knows of a server that runs."""

    def __init__(self, begun_s):
        self.begun_s = begun_s
        self.listening_s: float | None = None
        self.outdated = False  # settings have changed since it began
        self.asked_to_restart = False
        self.asked_to_stop = False
        self.killed = False
        self.mute = False  # killed because it did not listen


class Place:
    """What the world remembers of a slot: enough to say what was promised to it."""

    def __init__(self):
        self.process: Process | None = None
        self.doublings = 0  # deaths since the last healthy minute
        self.deaths_s: list[float] = []
        self.promised_s: float | None = 0.0  # when it shall be started; None: never again
        self.announced = Availability.GONE

    def bury(self, status, now):
        """The end of its process, and what it is promised for that."""
        process, self.process = self.process, None
        if process.listening_s is not None and now >= process.listening_s + PATIENCE.healthy_s:
            self.doublings = 0
        if status == RESTART_STATUS and process.listening_s is not None:
            self.promised_s = now
            return
        self.deaths_s.append(now)
        recent = [death_s for death_s in self.deaths_s if now < death_s + PATIENCE.deaths_within_s]
        pause_s = min(PATIENCE.backoff_first_s * 2**self.doublings, PATIENCE.backoff_last_s)
        self.doublings += 1
        self.promised_s = None if len(recent) >= PATIENCE.deaths else now + pause_s


class Spawner(RuleBasedStateMachine):
    """The world around a spawner: its servers, the people who signal it, and a clock that only grows."""

    def __init__(self):
        super().__init__()
        self.state = SpawnerState(SLOTS, PATIENCE)
        self.twin = SpawnerState(SLOTS, PATIENCE)
        self.places = [Place() for _ in SLOTS]
        self.now = 100.0
        self.stopped_s: float | None = None
        self.asleep = False  # the spawner hears later what time it is
        self.reading = 0  # settings that were asked for
        self.status: int | None = None
        for place in self.places:
            place.promised_s = self.now
        self.act(self.state.start(self.now), self.twin.start(self.now))

    def do(self, event):
        self.act(self.state.handle(event, self.now), self.twin.handle(event, self.now))

    def tick(self):
        self.act(self.state.tick(self.now), self.twin.tick(self.now))
        deadline = self.state.next_deadline()
        assert deadline is None or deadline > self.now, "a tick leaves nothing undone"

    def act(self, commands, same):
        assert commands == same, "the same events give the same commands"
        assert self.status is None or commands == [], "an exit is the last word"
        for command in commands:
            assert self.status is None, "an exit is the last command"
            _OBEY[type(command)](self, command)

    # -- what the spawner may do ----------------------------------------------------------------------------------

    def start_server(self, command):
        place = self.places[command.slot]
        assert place.process is None, "one server per slot"
        assert self.stopped_s is None, "a spawner that stops starts nothing"
        assert place.promised_s is not None, "a slot that was given up stays empty"
        assert self.now >= place.promised_s, "no pause is shorter than promised"
        place.process = Process(self.now)

    def ask_to_stop(self, command):
        process = self.places[command.slot].process
        assert self.stopped_s is not None
        assert not process.asked_to_stop
        process.asked_to_stop = True

    def ask_to_restart(self, command):
        process = self.places[command.slot].process
        assert self.stopped_s is None
        assert process.listening_s is not None, "only a server that listens understands"
        assert process.outdated
        assert not process.asked_to_restart, "once is enough"
        process.asked_to_restart = True

    def kill(self, command):
        process = self.places[command.slot].process
        if process.listening_s is None and self.now >= process.begun_s + PATIENCE.listen_s and not process.mute:
            process.killed = process.mute = True
            return
        assert process.asked_to_stop, "nobody is killed without a warning"
        assert not process.killed or process.mute
        assert self.asleep or self.now <= self.stopped_s + PATIENCE.stop_s, "nobody is killed late"
        process.killed = True

    def announce(self, command):
        said = command.announcement
        place = self.places[said.port - SLOTS[0].port]
        offers = said.state is not Availability.GONE
        assert place.process is not None or not offers, "a server that is gone is never offered"
        assert bool(said.holder) == (said.state is Availability.BUSY)
        place.announced = said.state

    def reread_settings(self, command):
        assert self.stopped_s is None
        self.reading += 1

    def log(self, command):
        assert command.text
        assert command.text.isprintable(), "one line"

    def exit(self, command):
        assert all(place.process is None for place in self.places), "no server outlives the spawner"
        assert command.status == (1 if self.stopped_s is None else 0)
        if self.stopped_s is None:
            assert all(place.promised_s is None for place in self.places), "it waits for every promised start"
        self.status = command.status

    # -- what may happen to it ------------------------------------------------------------------------------------

    @rule(slot=slots)
    def listens(self, slot):
        process = self.places[slot].process
        if process and process.listening_s is None:
            process.listening_s = self.now
        self.do(ServerListening(slot, f"tcp://127.0.0.1:{SLOTS[slot].port}"))

    @rule(slot=slots, state=reported, holder=st.sampled_from(["ada", "bob", "e\nve"]))
    def reports(self, slot, state, holder):
        """Also one that came too late: its process is gone."""
        holder = holder if state is Availability.BUSY else ""
        boot = b"%08d" % len(self.places[slot].deaths_s)
        report = Announcement(version=1, port=SLOTS[slot].port, boot=boot, state=state, holder=holder)
        self.do(ServerReported(slot, report))
        if self.places[slot].process and self.status is None:
            assert self.places[slot].announced is state

    @rule(slot=slots, status=statuses)
    def exits(self, slot, status):
        """Also one that was heard of already."""
        place = self.places[slot]
        if place.process:
            place.bury(status, self.now)
        self.do(ServerExited(slot, status, f"ended with status {status}:\nhow"))
        assert place.announced is Availability.GONE or place.process is not None

    @rule(slot=slots, times=st.integers(2, 6))
    def dies_again_and_again(self, slot, times):
        for _ in range(times):
            self.exits(slot, 1)
            promised_s = self.places[slot].promised_s
            if promised_s is not None and self.stopped_s is None and self.status is None:
                self.time_passes(max(0.0, promised_s - self.now))
                assert self.places[slot].process is not None, "no pause is longer than promised"

    @precondition(lambda self: self.stopped_s is None)
    @rule(slot=slots, times=st.integers(1, 20))
    def asks_for_restarts(self, slot, times):
        before = list(self.places[slot].deaths_s)
        for _ in range(times if self.places[slot].process else 0):
            self.listens(slot)
            self.exits(slot, RESTART_STATUS)
            assert self.places[slot].process is not None, "it is started at once"
        assert self.places[slot].deaths_s == before

    @rule()
    def reload(self):
        self.do(ReloadRequested())

    @precondition(lambda self: self.reading)
    @rule(changed=changes, good=st.integers(0, 3))
    def settings_are_read(self, changed, good):
        self.reading -= 1
        if good and {"beat_s", "waiters"} & set(changed):
            for place in self.places:
                if place.process:
                    place.process.outdated = True
        self.do(SettingsRead(changed) if good else SettingsRefused("dr.toml: bad"))

    @precondition(lambda self: self.now > 300.0 or self.stopped_s is not None)
    @rule()
    def stop(self):
        again = self.stopped_s is not None
        if self.status is None and not again:
            self.stopped_s = self.now
        self.do(StopRequested("test"))
        if again:
            assert all(place.process is None or place.process.killed for place in self.places)

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0, 5.0, 70.0]))
    def time_passes(self, seconds):
        end = self.now + seconds
        while (deadline := self.state.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.tick()
        self.now = end

    @rule(seconds=st.sampled_from([3.0, 40.0, 1000.0]))
    def host_sleeps(self, seconds):
        """The clock jumps and the spawner hears of it afterwards."""
        self.now += seconds
        self.asleep = True
        self.tick()
        self.asleep = False

    # -- what is true at any time ---------------------------------------------------------------------------------

    @invariant()
    def the_state_is_possible(self):
        self.state.check()

    @invariant()
    def starts_are_due_within_the_longest_pause(self):
        if self.stopped_s is not None or self.status is not None:
            return
        for place in self.places:
            if place.process is None and place.promised_s is not None:
                assert self.now < place.promised_s <= self.now + PATIENCE.backoff_last_s
                assert self.state.next_deadline() <= place.promised_s

    @invariant()
    def no_server_outlives_the_patience_of_a_stop(self):
        if self.stopped_s is not None and self.now >= self.stopped_s + PATIENCE.stop_s:
            assert all(place.process is None or place.process.killed for place in self.places)

    @invariant()
    def who_listens_with_old_settings_was_asked_to_restart(self):
        processes = [place.process for place in self.places if place.process and self.stopped_s is None]
        for process in processes:
            assert process.asked_to_restart == (process.outdated and process.listening_s is not None)

    def teardown(self):
        """Whatever happened: a stop ends everything in time, and then the spawner."""
        if self.stopped_s is None:
            if self.status is None:
                self.stopped_s = self.now
            self.do(StopRequested("the test is over"))
        self.time_passes(PATIENCE.stop_s + 1.0)
        for slot, place in enumerate(self.places):
            if place.process:
                assert place.process.killed
                self.exits(slot, -9)
        assert self.status is not None
        assert self.state.next_deadline() is None


_OBEY = {
    StartServer: Spawner.start_server,
    AskToStop: Spawner.ask_to_stop,
    AskToRestart: Spawner.ask_to_restart,
    Kill: Spawner.kill,
    Announce: Spawner.announce,
    RereadSettings: Spawner.reread_settings,
    Log: Spawner.log,
    Exit: Spawner.exit,
}

TestSpawner = Spawner.TestCase
TestSpawner.settings = settings(max_examples=100, stateful_step_count=80, deadline=None, derandomize=True)
