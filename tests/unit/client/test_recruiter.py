"""Names, settings and announcements together, as the render loop drives them: the broker hears what is wanted now."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import ceil, inf
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import zmq

from dr.broker.events import ServerAdded, ServerAnnounced, ServerRemoved
from dr.client.recruiter import MAX_ANNOUNCERS, Recruiter
from dr.client.settings_watch import SettingsWatch
from dr.errors import BadInput, Refused
from dr.keys.security import Security
from dr.protocol.messages import Announcement, Availability
from dr.settings import ServerAddress, load_settings
from tests.support.spawner import free_ports
from workers.server.door import door_to
from workers.spawner.announcer import Announcer

DEADLINE_S = 30.0
LAB = Security(insecure=True)
HERE = "127.0.0.1"
BOOT = b"bootboot"

Event = ServerAdded | ServerRemoved | ServerAnnounced


class NameServer:
    """Knows the names in `known`; those in `dead` hang until the test is over, all others it does not know."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, ...]] = {}
        self.dead: set[str] = set()
        self.over = threading.Event()
        self.asked: list[str] = []

    def look_up(self, name: str, *words: Any, **options: Any) -> list[Any]:
        self.asked.append(name)
        if name in self.dead:
            self.over.wait(DEADLINE_S)
        if name not in self.known:
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (literal, 0)) for literal in self.known[name]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    made = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", made.look_up)
    yield made
    made.over.set()


class Driver:
    """Drives a recruiter like the loop, and may put the clock forward by `ahead_s`."""

    def __init__(self, stack: ExitStack, wanted: Sequence[Any], **more: Any) -> None:
        context = stack.enter_context(zmq.Context())
        self.announce_port: int = more.pop("announce_port", None) or free_ports(1)[0]
        security, watch = more.pop("security", LAB), more.pop("watch", None)
        self.recruiter = Recruiter(context, security, wanted, watch, self.announce_port)
        stack.callback(self.recruiter.close)
        self.recruiter.connected = more.pop("connected", None)
        self.ahead_s = 0.0
        self.events: list[Event] = []
        self.notices: list[str] = []
        self.others: list[Announcer] = []

    @property
    def now(self) -> float:
        return monotonic() + self.ahead_s

    @property
    def endpoints(self) -> list[str]:
        return [*self.recruiter.endpoints]

    def begin(self) -> None:
        self.notices += self.recruiter.begin()

    def turn(self) -> None:
        """Waits for a descriptor or a deadline, at most so long that other parties are served."""
        poller = zmq.Poller()
        for source in [*self.recruiter.descriptors(), *(each.socket for each in self.others)]:
            poller.register(source, zmq.POLLIN)
        most_s = 0.01 if self.others else 1.0
        wait_s = max(0.0, min(self.recruiter.next_deadline() - self.now, most_s))
        poller.poll(ceil(wait_s * 1000))
        for other in self.others:
            other.hear(monotonic())
        self.events += self.recruiter.news(self.now)
        self.notices += self.recruiter.notices()

    def until(self, done: Callable[[], object]) -> None:
        deadline = monotonic() + DEADLINE_S
        while not done():
            assert monotonic() < deadline, (self.events, self.notices, self.endpoints)
            self.turn()

    def take(self) -> list[Event]:
        """What has come since the last call."""
        self.turn()
        events, self.events = self.events, []
        return events

    def later(self, seconds: float) -> None:
        """Puts the clock forward and lets what is due then happen."""
        self.ahead_s += seconds
        self.turn()


def ask_again(driver: Driver, names: NameServer) -> None:
    """Goes on until the only name was asked once more, and its answer taken."""
    asked = len(names.asked)
    driver.later(30.0)
    driver.until(lambda: len(names.asked) > asked and driver.recruiter._lookups.next_look() < inf)


Drive = Callable[..., Driver]


@pytest.fixture
def drive() -> Iterator[Drive]:
    with ExitStack() as stack:
        yield lambda *wanted, **more: Driver(stack, wanted, **more)


def added(host: str, port: int = 20204, whole: bool = False) -> ServerAdded:
    return ServerAdded(f"tcp://{host}:{port}", whole_host=whole)


def removed(host: str, reason: str, port: int = 20204) -> ServerRemoved:
    return ServerRemoved(f"tcp://{host}:{port}", reason)


# -- names ------------------------------------------------------------------------------------------------------------


def test_the_living_among_the_dead_are_there_at_once(names: NameServer, drive: Drive) -> None:
    living = [f"127.0.0.{number}:20204" for number in range(1, 101)]
    names.dead = {f"dead{number}" for number in range(50)}
    unknown = [f"unknown{number}" for number in range(50)]
    driver = drive(*sorted(names.dead), *unknown, *living)
    assert driver.recruiter.begin() == []
    assert driver.take() == [added(each.partition(":")[0]) for each in living]


def test_names_are_added_as_their_answers_come(names: NameServer, drive: Drive) -> None:
    names.known = {"node1": ("127.0.0.1",), "node2": ("127.0.0.2",)}
    names.dead = {"node2"}
    driver = drive("node1:1", "node2:2", "node3:3")
    driver.begin()
    driver.until(lambda: driver.events)
    assert driver.events == [added("127.0.0.1", 1)]
    names.over.set()
    driver.until(lambda: len(driver.events) == 2)
    assert driver.events[1] == added("127.0.0.2", 2)
    driver.until(lambda: driver.notices)
    assert driver.notices == ["cannot resolve 'node3': Name or service not known"]


def test_a_name_that_fails_joins_when_it_resolves_at_last(names: NameServer, drive: Drive) -> None:
    driver = drive("127.0.0.9", "node1")
    driver.begin()
    driver.until(lambda: driver.notices)
    names.known["node1"] = ("127.0.0.1",)
    driver.later(2.0)
    driver.until(lambda: len(driver.events) == 2)
    assert driver.events == [added("127.0.0.9", whole=True), added("127.0.0.1", whole=True)]
    assert driver.notices == ["cannot resolve 'node1': Name or service not known"]


def test_silent_names_are_told_after_five_seconds(names: NameServer, drive: Drive) -> None:
    names.dead = {"node1", "node2"}
    driver = drive("127.0.0.9", "node1", "node2")
    driver.begin()
    driver.later(5.0)
    driver.until(lambda: driver.notices)
    assert driver.notices == ["cannot resolve 'node1', 'node2': no answer within 5 s; is the name server there?"]


def test_servers_that_must_be_there_and_have_no_address_end_it(names: NameServer, drive: Drive) -> None:
    with pytest.raises(BadInput, match=r"^server: cannot resolve 'a', 'b': Name or service not known; use IP addr"):
        drive("a", "b").recruiter.begin()
    names.dead = {"dead"}
    with pytest.raises(BadInput, match=r"cannot resolve 'dead': no answer within 0\.2 s; is the name server there"):
        drive("dead").recruiter.begin(0.2)


def test_servers_that_need_not_be_there_are_not_waited_for(names: NameServer, drive: Drive) -> None:
    names.dead = {"dead"}
    driver = drive("dead")
    assert driver.recruiter.begin(DEADLINE_S, required=False) == []
    assert driver.endpoints == []


def test_no_server_at_all_is_nothing_to_complain_about(drive: Drive) -> None:
    driver = drive()
    assert driver.recruiter.begin() == []
    assert driver.recruiter.next_deadline() == inf


def test_stored_addresses_stand_in_for_names_that_fail_or_hang(names: NameServer, drive: Drive) -> None:
    names.dead = {"hangs"}
    stored = [
        ServerAddress(host="fails", port=1, addresses=("127.0.0.1",)),
        ServerAddress(host="hangs", port=2, addresses=("127.0.0.2", "127.0.0.3")),
    ]
    driver = drive(*stored)
    driver.begin()
    driver.later(0.5)
    driver.until(lambda: len(driver.endpoints) == 2)
    assert set(driver.endpoints) == {"tcp://127.0.0.1:1", "tcp://127.0.0.2:2"}
    driver.until(lambda: driver.notices)
    told = "cannot resolve 'fails': Name or service not known; its stored addresses are used"
    assert told in driver.notices


@pytest.mark.parametrize("connected", [None, list])
def test_the_true_address_replaces_a_stored_one(names: NameServer, drive: Drive, connected: Any) -> None:
    driver = drive(ServerAddress(host="node1", port=1, addresses=("127.0.0.1",)), connected=connected)
    driver.begin()
    assert driver.take() == [added("127.0.0.1", 1)]
    names.known["node1"] = ("127.0.0.2",)
    driver.later(2.0)
    driver.until(lambda: driver.events)
    assert driver.events == [removed("127.0.0.1", "its name stands for 127.0.0.2 now", 1), added("127.0.0.2", 1)]


def test_new_addresses_of_a_pool_are_added_within_five_seconds(names: NameServer, drive: Drive) -> None:
    names.known["pool"] = ("127.0.0.1",)
    driver = drive("dns+any:pool:1")
    driver.begin()
    assert driver.take() == [added("127.0.0.1", 1)]
    names.known["pool"] = ("127.0.0.1", "127.0.0.2")
    driver.later(5.0)
    driver.until(lambda: driver.events)
    assert driver.events == [added("127.0.0.2", 1)]


@pytest.mark.parametrize("word", ["dns+any:pool:1", "pool:1"])
def test_an_address_that_left_its_name_goes_unless_a_server_there_is_connected(
    names: NameServer, drive: Drive, word: str
) -> None:
    connected = ["tcp://127.0.0.1:7"]  # the host counts, not the port
    names.known["pool"] = ("127.0.0.1",)
    driver = drive(word, connected=lambda: connected)
    driver.begin()
    assert driver.take() == [added("127.0.0.1", 1)]
    names.known["pool"] = ("127.0.0.2",)
    for _ in range(3):
        ask_again(driver, names)
        assert "tcp://127.0.0.1:1" in driver.endpoints
    connected.clear()
    ask_again(driver, names)
    assert driver.endpoints == ["tcp://127.0.0.2:1"]
    gone = [event for event in driver.events if isinstance(event, ServerRemoved)]
    assert gone == [removed("127.0.0.1", "its name stands for 127.0.0.2 now", 1)]


def test_a_name_that_fails_later_keeps_its_addresses(names: NameServer, drive: Drive) -> None:
    names.known["node1"] = ("127.0.0.1",)
    driver = drive("node1:1", connected=list)
    driver.begin()
    driver.take()
    names.known.clear()
    ask_again(driver, names)
    ask_again(driver, names)
    assert driver.take() == []
    assert driver.endpoints == ["tcp://127.0.0.1:1"]
    assert driver.notices == []


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_word_that_needs_keys_is_refused_before_a_name_server_hears_of_it(names: NameServer, drive: Drive) -> None:
    with pytest.raises(Refused, match="server 'node1': a server on another machine needs a farm key"):
        drive("127.0.0.1", "node1", security=Security()).recruiter.begin()
    assert names.asked == []


def test_a_localhost_that_is_another_machine_is_not_dialled_without_keys(names: NameServer, drive: Drive) -> None:
    names.known["localhost"] = ("10.9.9.9",)
    with pytest.raises(Refused, match="needs a farm key"):
        drive("localhost", security=Security()).recruiter.begin()
    driver = drive("127.0.0.1", "localhost", security=Security())
    driver.begin()
    driver.until(lambda: driver.notices)
    assert driver.endpoints == ["tcp://127.0.0.1:20204"]
    assert "it is 10.9.9.9" in driver.notices[0]


# -- settings ---------------------------------------------------------------------------------------------------------


class Edited:
    """A settings file, and a recruiter that follows it."""

    def __init__(self, folder: Path, drive: Drive, text: str, **more: Any) -> None:
        self.path = folder / "dr.toml"
        self.path.write_text(text)
        watch = SettingsWatch(self.path, self.load, monotonic())
        self.driver = drive(*self.load(), watch=watch, **more)
        self.driver.begin()
        self.driver.take()

    def load(self) -> Sequence[ServerAddress]:
        return load_settings(self.path, {}).values.servers

    def edit(self, text: str) -> list[Event]:
        """What an edit brings within a second."""
        self.path.write_text(text)
        for _ in range(4):
            self.driver.later(0.25)
        events, self.driver.events = self.driver.events, []
        return events


def entry(host: str, more: str = "") -> str:
    return f'[[servers]]\nhost = "{host}"\n{more}\n'


def test_edits_add_disable_enable_and_remove(tmp_path: Path, drive: Drive) -> None:
    edited = Edited(tmp_path, drive, entry("127.0.0.1", "port = 1"))
    both = entry("127.0.0.1", "port = 1") + entry("127.0.0.2")
    assert edited.edit(both) == [added("127.0.0.2", whole=True)]
    assert edited.edit(entry("127.0.0.1", "port = 1\nenabled = false") + entry("127.0.0.2")) == [
        removed("127.0.0.1", "disabled in dr.toml", 1)
    ]
    assert edited.edit(both) == [added("127.0.0.1", 1)]
    assert edited.edit(entry("127.0.0.1", "port = 1")) == [removed("127.0.0.2", "removed from dr.toml")]
    assert edited.edit("") == [removed("127.0.0.1", "removed from dr.toml", 1)]
    assert edited.driver.notices == [
        "dr.toml changed: 127.0.0.2 added",
        "dr.toml changed: 127.0.0.1:1 disabled",
        "dr.toml changed: 127.0.0.1:1 enabled",
        "dr.toml changed: 127.0.0.2 removed",
        "dr.toml changed: 127.0.0.1:1 removed",
    ]


def test_a_name_that_is_added_is_looked_up(tmp_path: Path, names: NameServer, drive: Drive) -> None:
    names.known["node1"] = ("127.0.0.1",)
    edited = Edited(tmp_path, drive, "")
    events = edited.edit(entry("node1"))
    edited.driver.until(lambda: events or edited.driver.events)
    assert events + edited.driver.events == [added("127.0.0.1", whole=True)]


def test_stored_addresses_that_are_written_while_a_name_fails_are_used(
    tmp_path: Path, names: NameServer, drive: Drive
) -> None:
    edited = Edited(tmp_path, drive, entry("127.0.0.1") + entry("node1"))
    edited.driver.until(lambda: edited.driver.notices)
    assert edited.edit(entry("127.0.0.1") + entry("node1", 'addresses = ["127.0.0.2"]')) == [
        added("127.0.0.2", whole=True)
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("servers = [", "expected TOML"),
        ("surprise = 1", "unknown setting 'surprise'"),
        (entry("no such host"), "server 'no such host'"),
        (entry("10.0.0.1"), "needs a farm key"),
    ],
)
def test_an_edit_that_cannot_be_has_no_effect_and_is_told_once(
    tmp_path: Path, drive: Drive, text: str, reason: str
) -> None:
    edited = Edited(tmp_path, drive, entry("127.0.0.1"), security=Security())
    assert edited.edit(text) == []
    assert edited.edit(text) == []
    (told,) = edited.driver.notices
    assert reason in told
    assert told.endswith("; this render keeps the servers that it has")
    assert edited.driver.endpoints == ["tcp://127.0.0.1:20204"]
    assert edited.edit("") == [removed("127.0.0.1", "removed from dr.toml")]


def test_a_deleted_file_changes_nothing(tmp_path: Path, drive: Drive) -> None:
    edited = Edited(tmp_path, drive, entry("127.0.0.1"))
    edited.edit(entry("127.0.0.1"))
    edited.path.unlink()
    for _ in range(8):
        edited.driver.later(0.25)
    assert edited.driver.take() == []
    assert edited.driver.notices == [f"{edited.path} is gone; this render keeps the servers that it has"]


# -- announcements ----------------------------------------------------------------------------------------------------


def announcer(driver: Driver, stack: ExitStack, host: str = HERE, port: int | None = None) -> Announcer:
    """One that is served whenever the driver turns."""
    context = stack.enter_context(zmq.Context())
    door = door_to(host, Security())
    made = Announcer(zmq.Poller(), context, door, port or driver.announce_port, ())
    stack.callback(made.close)
    driver.others.append(made)
    return made


def publish(announcer: Announcer, port: int, state: Availability = Availability.READY) -> None:
    announcer.publish(Announcement(version=1, port=port, boot=BOOT, state=state))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def told(driver: Driver) -> list[ServerAnnounced]:
    return [event for event in driver.events if isinstance(event, ServerAnnounced)]


def test_a_ready_server_of_a_listed_host_is_announced(drive: Drive, stack: ExitStack) -> None:
    driver = drive(HERE)
    spawner = announcer(driver, stack)
    publish(spawner, 30001, Availability.BUSY)
    publish(spawner, 30002)
    driver.begin()
    driver.until(lambda: told(driver))
    assert driver.events == [added(HERE, whole=True), ServerAnnounced(f"tcp://{HERE}:30002", BOOT)]


def test_of_a_host_that_is_not_wanted_whole_only_the_listed_servers_are_announced(
    drive: Drive, stack: ExitStack
) -> None:
    driver = drive(f"{HERE}:30001-30002")
    spawner = announcer(driver, stack)
    for port in (30000, 30002, 30003, 30001):
        publish(spawner, port)
    driver.begin()
    driver.until(lambda: len(told(driver)) == 2)
    assert {event.endpoint for event in told(driver)} == {f"tcp://{HERE}:30001", f"tcp://{HERE}:30002"}


def test_an_announcer_at_another_port_is_heard_when_a_server_names_it(drive: Drive, stack: ExitStack) -> None:
    driver = drive(HERE)
    spawner = announcer(driver, stack, port=free_ports(1)[0])
    publish(spawner, 30001)
    driver.begin()
    driver.recruiter.hear(f"tcp://{HERE}:20204", spawner.port)
    driver.until(lambda: told(driver) == [ServerAnnounced(f"tcp://{HERE}:30001", BOOT)])


def test_nobody_is_heard_but_listed_hosts_and_of_each_a_few_announcers(drive: Drive, stack: ExitStack) -> None:
    driver = drive(HERE)
    driver.begin()
    for endpoint in ("tcp://127.0.0.2:20204", "ipc:///run/dr/1", "here:626f6f74"):
        driver.recruiter.hear(endpoint, 1)
    for port in range(1, 100):
        driver.recruiter.hear(f"tcp://{HERE}:20204", port)
    assert len(driver.recruiter._announcements) == MAX_ANNOUNCERS


def test_a_host_that_comes_again_is_heard_where_it_was_heard(tmp_path: Path, drive: Drive, stack: ExitStack) -> None:
    edited = Edited(tmp_path, drive, entry(HERE))
    spawner = announcer(edited.driver, stack, port=free_ports(1)[0])
    edited.driver.recruiter.hear(f"tcp://{HERE}:20204", spawner.port)
    edited.edit("")
    publish(spawner, 30001)
    events = edited.edit(entry(HERE))
    edited.driver.events = events
    edited.driver.until(lambda: told(edited.driver))
    assert told(edited.driver) == [ServerAnnounced(f"tcp://{HERE}:30001", BOOT)]


def test_announcers_take_no_more_than_their_share_of_descriptors(drive: Drive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dr.client.recruiter.allow_many", lambda: 30)
    driver = drive(*(f"127.0.0.{number}" for number in range(1, 101)))
    driver.begin()
    assert len(driver.endpoints) == 100
    assert len(driver.recruiter._announcements) == 10


def test_a_host_that_is_removed_is_not_heard_any_more(tmp_path: Path, drive: Drive, stack: ExitStack) -> None:
    edited = Edited(tmp_path, drive, entry(HERE) + entry("127.0.0.2"))
    driver = edited.driver
    spawners = [announcer(driver, stack, host) for host in (HERE, "127.0.0.2")]
    for spawner in spawners:
        publish(spawner, 30001)
    driver.later(1.0)
    driver.until(lambda: len({event.endpoint for event in told(driver)}) == 2)
    edited.edit(entry("127.0.0.2"))
    for spawner in spawners:
        publish(spawner, 30002)
    driver.until(lambda: told(driver))
    assert {event.endpoint for event in told(driver)} == {"tcp://127.0.0.2:30002"}
