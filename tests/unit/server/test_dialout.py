"""The server's dialling end against the client's open door: real sockets on loopback, with keys and without."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from time import monotonic
from typing import Any, TypeVar

import pytest
import zmq
from msgspec.structs import replace

from dr.client.link import Link
from dr.keys.ring import KeyRing
from dr.keys.security import Security
from dr.protocol.envelope import join, split_server
from dr.protocol.messages import AnyMessage, Bye, ErrorMessage, Hello, Here, Ping, Pong, ServerMessage
from dr.protocol.version import PROTOCOL_VERSION
from tests.support.keys import pair_of
from workers.server import dialout as module
from workers.server.dialout import DialOut
from workers.server.dialout_target import parse_targets
from workers.server.events import MessageArrived, MessageRefused, PeerUnreachable

T = TypeVar("T")
DEADLINE_S = 30.0
FARM, ANNA, BERT, MALLORY = map(pair_of, ("farm", "anna", "bert", "mallory"))
LISTED = {ANNA.public: "anna", BERT.public: "bert"}
SERVER = Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients=LISTED))
NO_KEYS = Security()
HERE = Here(version=PROTOCOL_VERSION, boot=b"bootboot")
HELLO = Hello(version=PROTOCOL_VERSION, name="ws7", want=True)
LEASE = b"leaselea"


def client_keys(pair: Any, farm: Any = FARM) -> Security:
    return Security(ring=KeyRing(client=pair, farm_public=farm.public))


class Server:
    """The part of a server's loop that dials out."""

    def __init__(self, security: Security, *places: str) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.poller = zmq.Poller()
        self.dialout = DialOut(self.context, self.poller, HERE)
        self.dialout.dial(parse_targets(places, security), security)
        self.events: list[Any] = []

    def turn(self) -> None:
        ready = dict(self.poller.poll(5))
        self.events += self.dialout.turn(ready, monotonic())
        while event := self.dialout.receive():
            self.events.append(event)

    def of(self, kind: type[T]) -> list[T]:
        return [event for event in self.events if isinstance(event, kind)]

    def close(self) -> None:
        self.dialout.close()
        self.context.term()


class Client:
    """The part of a client's loop that listens."""

    def __init__(self, security: Security, place: str = "127.0.0.1:0") -> None:
        self.link = Link(security, place)
        assert self.link.listener
        self.place = self.link.listener.place
        self.heard: list[tuple[bytes, ServerMessage]] = []
        self.lost: list[bytes] = []

    def turn(self) -> None:
        self.heard += [(frames[0], split_server(frames[1:])[0]) for frames in self.link.messages()]
        self.lost += [loss.peer for loss in self.link.losses()]

    def has_heard(self, count: int) -> bool:
        return len(self.heard) == count

    def say(self, message: AnyMessage, peer: bytes | None = None) -> None:
        assert self.link.send(self.heard[-1][0] if peer is None else peer, join(message))

    def close(self) -> None:
        self.link.close()


class Stage(ExitStack):
    """Everybody who takes turns."""

    def __init__(self) -> None:
        super().__init__()
        self.cast: list[Server | Client] = []

    def enter(self, actor: T) -> T:
        assert isinstance(actor, Server | Client)
        self.cast.append(actor)
        self.callback(actor.close)
        return actor

    def leave(self, actor: Client) -> None:
        actor.close()
        self.cast.remove(actor)

    def until(self, is_reached: Callable[[], Any]) -> None:
        deadline = monotonic() + DEADLINE_S
        while not is_reached():
            assert monotonic() < deadline, [getattr(each, "events", None) for each in self.cast]
            for actor in self.cast:
                actor.turn()

    def pass_time(self, seconds: float) -> None:
        until_s = monotonic() + seconds
        self.until(lambda: monotonic() > until_s)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    for actor in made.cast:
        actor.close()


def greet(stage: Stage, server: Server, client: Client) -> bytes:
    """`here` and `hello`; gives the server's name for this client."""
    before = len(client.heard), len(server.events)
    stage.until(lambda: len(client.heard) > before[0])
    client.say(HELLO)
    stage.until(lambda: len(server.events) > before[1])
    peer: bytes = server.events[-1].peer
    return peer


def test_the_server_says_here_first_and_then_messages_go_both_ways(stage: Stage) -> None:
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    peer = greet(stage, server, client)
    assert [message for _, message in client.heard] == [HERE]
    assert server.events == [MessageArrived(peer, HELLO)]
    assert server.dialout.owns(peer)
    assert server.dialout.send(peer, Pong(n=7), ()) is None
    stage.until(lambda: len(client.heard) == 2)
    assert client.heard[1] == (client.heard[0][0], Pong(n=7))


@pytest.mark.parametrize("pair", [ANNA, BERT])
def test_a_client_whose_key_is_listed_is_found_and_goes_by_the_name_of_its_key(stage: Stage, pair: Any) -> None:
    client = stage.enter(Client(client_keys(pair)))
    server = stage.enter(Server(SERVER, client.place))
    peer = greet(stage, server, client)
    name = f"{LISTED[pair.public]} (ws7)"
    assert server.events == [MessageArrived(peer, replace(HELLO, name=name), (), pair.public)]


def test_a_client_that_holds_the_farm_key_is_served(stage: Stage) -> None:
    holder = Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret))
    client = stage.enter(Client(holder))
    server = stage.enter(Server(SERVER, client.place))
    peer = greet(stage, server, client)
    assert server.events == [MessageArrived(peer, replace(HELLO, name="farm (ws7)"), (), FARM.public)]


STRANGE = "no client that is admitted here listens there"
REFUSED = "the client there does not admit this server's farm key"


@pytest.mark.parametrize(
    ("ours", "theirs", "complaint"),
    [
        (SERVER, client_keys(MALLORY), STRANGE),
        (SERVER, client_keys(ANNA, farm=MALLORY), REFUSED),
        (SERVER, NO_KEYS, STRANGE),
        (NO_KEYS, client_keys(ANNA), STRANGE),
    ],
    ids=["a key that is not listed", "another farm", "a client without keys", "a server without keys"],
)
def test_with_wrong_keys_on_either_side_nothing_is_said_and_the_log_tells_why_once(
    stage: Stage, ours: Security, theirs: Security, complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    client = stage.enter(Client(theirs))
    server = stage.enter(Server(ours, client.place))
    stage.until(lambda: caplog.messages)
    stage.pass_time(0.8)  # several rounds
    own = [record.getMessage() for record in caplog.records if record.name == "dr.server"]
    assert own == [f"{client.place}: {complaint}; dialling on"]
    assert (client.heard, server.events) == ([], [])


def test_a_client_that_comes_again_is_found_again_with_a_routing_id_of_its_own(stage: Stage) -> None:
    first = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, first.place))
    peer = greet(stage, server, first)
    stage.leave(first)
    stage.until(lambda: PeerUnreachable(peer) in server.events)
    assert not server.dialout.owns(peer)
    second = stage.enter(Client(NO_KEYS, first.place))
    assert greet(stage, server, second) != peer
    assert first.heard[0][0] != second.heard[0][0]


def test_what_a_client_says_before_it_goes_is_heard(stage: Stage) -> None:
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    peer = greet(stage, server, client)
    for n in range(100):
        client.say(Ping(n=n))
    client.say(Bye(lease=LEASE, restart=True))
    stage.leave(client)
    stage.until(lambda: server.of(PeerUnreachable))
    assert server.events[-2:] == [MessageArrived(peer, Bye(lease=LEASE, restart=True)), PeerUnreachable(peer)]


def test_several_clients_are_served_side_by_side(stage: Stage) -> None:
    one, two = stage.enter(Client(NO_KEYS)), stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, one.place, two.place))
    stage.until(lambda: one.heard and two.heard)
    for client, n in ((one, 1), (two, 2)):
        client.say(Ping(n=n))
    stage.until(lambda: len(server.events) == 2)
    peers = {event.message: event.peer for event in server.of(MessageArrived)}
    assert len(set(peers.values())) == 2
    assert server.dialout.send(peers[Ping(n=2)], Pong(n=2), ()) is None
    stage.until(lambda: len(two.heard) == 2)
    assert len(one.heard) == 1


def test_a_client_that_sends_the_server_away_is_dialled_again_with_growing_pauses(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    for count in (1, 2, 3):
        stage.until(partial(client.has_heard, count))
        client.say(ErrorMessage(code="twin", text="you are here already"))
    stage.until(lambda: len(server.of(PeerUnreachable)) == 3)
    assert server.of(MessageArrived) == []
    assert len({peer for peer, _ in client.heard}) == 3
    assert [line for line in caplog.messages if "twin" in line] == [
        f"{client.place}: twin: you are here already; dialling on"
    ]
    assert not any("answers" in line for line in caplog.messages)


def test_nonsense_is_refused(stage: Stage) -> None:
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    stage.until(lambda: client.heard)
    assert client.link.send(client.heard[0][0], [b"nonsense"])
    stage.until(lambda: server.of(MessageRefused))


# Keys that change


def revoke(security: Security, *names: str) -> Security:
    clients = {public: name for public, name in security.ring.clients.items() if name not in names}
    return Security(ring=KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients=clients))


def test_a_client_whose_key_is_revoked_is_told_let_go_and_not_dialled_with_that_key_again(stage: Stage) -> None:
    client = stage.enter(Client(client_keys(ANNA)))
    server = stage.enter(Server(SERVER, client.place))
    peer = greet(stage, server, client)
    assert server.dialout.take_keys(revoke(SERVER, "bert"), monotonic()) == []
    assert server.dialout.take_keys(revoke(SERVER, "anna", "bert"), monotonic()) == [PeerUnreachable(peer)]
    stage.until(lambda: len(client.heard) == 2)
    told = client.heard[1][1]
    assert isinstance(told, ErrorMessage)
    assert (told.code, told.text) == ("key", f"your key was revoked; ask for `dr keys authorize NAME '{ANNA.public}'`")
    stage.pass_time(0.8)
    assert len(client.heard) == 2


def test_a_client_whose_key_is_listed_while_it_waits_is_dialled_with_it(stage: Stage) -> None:
    client = stage.enter(Client(client_keys(ANNA)))
    server = stage.enter(Server(revoke(SERVER, "anna"), client.place))
    stage.pass_time(0.5)
    assert client.heard == []
    assert server.dialout.take_keys(SERVER, monotonic()) == []
    greet(stage, server, client)


# Trouble


def test_what_a_full_pipe_does_not_take_is_kept_and_sent_when_the_client_reads(stage: Stage) -> None:
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    peer = greet(stage, server, client)
    count = 0
    while not server.dialout.waiting:
        assert server.dialout.send(peer, ErrorMessage(code="long", text="x" * 4000), ()) is None
        count += 1
    stage.until(lambda: len(client.heard) == 1 + count)
    assert not server.dialout.waiting


def test_a_client_that_never_reads_is_given_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place))
    peer = greet(stage, server, client)
    lost = None
    while lost is None:
        lost = server.dialout.send(peer, ErrorMessage(code="long", text="x" * 4000), ())
    assert lost == PeerUnreachable(peer)
    assert not server.dialout.owns(peer)


def test_a_place_where_somebody_listens_and_never_speaks_is_left_after_the_handshake_timer(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        place = f"127.0.0.1:{mute.getsockname()[1]}"
        server = stage.enter(Server(SERVER, place))
        stage.until(lambda: len(caplog.messages) == 2)
    assert caplog.messages[1] == f"{place}: nobody answers there; dialling on"
    assert server.events == []


def test_a_name_that_does_not_resolve_is_told_once_and_asked_again_until_it_does(
    stage: Stage, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING)
    answers: list[list[Any]] = []
    asked = []

    def resolve(host: str, *words: Any, **more: Any) -> list[Any]:
        asked.append(host)
        if not answers:
            raise OSError(-2, "Name or service not known")
        return answers[0]

    monkeypatch.setattr("socket.getaddrinfo", resolve)
    client = stage.enter(Client(client_keys(ANNA)))
    port = client.place.rpartition(":")[2]
    server = stage.enter(Server(SERVER, f"render-client:{port}"))
    stage.until(lambda: len(asked) >= 3)
    answers.append([(0, 0, 0, "", ("127.0.0.1", 0))])
    greet(stage, server, client)
    told = [line for line in caplog.messages if "render-client" in line]
    assert told == [f"render-client:{port}: cannot resolve it: Name or service not known; dialling on"]
    assert set(asked) == {"render-client"}


def test_a_resolver_that_fails_later_leaves_the_address_that_was_known(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = stage.enter(Client(NO_KEYS))
    server = stage.enter(Server(NO_KEYS, client.place.replace("127.0.0.1", "localhost")))
    greet(stage, server, client)

    def fail(*words: Any, **more: Any) -> list[Any]:
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr("socket.getaddrinfo", fail)
    stage.leave(client)
    stage.until(lambda: server.of(PeerUnreachable))
    greet(stage, server, stage.enter(Client(NO_KEYS, client.place)))


def test_nobody_is_dialled_where_nobody_was_named(stage: Stage) -> None:
    server = stage.enter(Server(NO_KEYS))
    assert server.dialout.next_deadline() is None
    assert not server.dialout.waiting
