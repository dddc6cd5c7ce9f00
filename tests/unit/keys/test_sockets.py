"""Real sockets with right, wrong and no keys, on loopback; each side has a context of its own, as two processes have.

What a client's monitor shows is recorded here because the client decides by it: only HANDSHAKE_FAILED_AUTH (400) tells
that a key was refused. A wrong server key and a busy server look alike: HANDSHAKE_FAILED_NO_DETAIL; so does a plain
server, or it shows HANDSHAKE_FAILED_PROTOCOL.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import zmq

from dr.errors import Refused
from dr.keys.changes import authorize, revoke
from dr.keys.folder import KeyPlaces
from dr.keys.ring import KeyRing, dial_out_keys
from dr.keys.sockets import secure_client, secure_dial_out, secure_listener, secure_server
from dr.keys.watch import KeyWatch
from dr.keys.zap import Zap
from tests.support.keys import pair_of

PATIENCE_S = 30.0
HANDSHAKE_MS = 20_000
FARM, ANNA, BERT, MALLORY = map(pair_of, ("farm", "anna", "bert", "mallory"))
SERVER = KeyRing(farm_public=FARM.public, farm_secret=FARM.secret, clients={ANNA.public: "anna", BERT.public: "bert"})
GUEST = KeyRing(client=ANNA, farm_public=FARM.public)
STRANGER = KeyRing(client=MALLORY, farm_public=FARM.public)
DECEIVED = KeyRing(client=ANNA, farm_public=MALLORY.public)  # expects another server than it meets

IN = "HANDSHAKE_SUCCEEDED"
REFUSED = "HANDSHAKE_FAILED_AUTH"
FAILED = "HANDSHAKE_FAILED_NO_DETAIL"
BROKEN = "HANDSHAKE_FAILED_PROTOCOL"


class Side:
    """One socket with its monitor, and with a handler of keys if it listens."""

    def __init__(self, kind: int) -> None:
        self.context = zmq.Context()
        self.socket = self.context.socket(kind)
        self.socket.linger = 0
        self.socket.handshake_ivl = HANDSHAKE_MS
        self.socket.reconnect_ivl = -1
        self.monitor = self.socket.get_monitor_socket()
        self.zap: Zap | None = None
        self.ring = KeyRing()
        self.handshakes: list[tuple[str, int]] = []
        self.heard: list[tuple[str | None, bytes]] = []  # User-Id and text

    def handle_keys(self, admit: Callable[[KeyRing, str], str | None]) -> None:
        """`self.ring` may be another one at any time."""
        self.zap = Zap(self.context, lambda public: admit(self.ring, public))

    def listen(self) -> str:
        port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        return f"tcp://127.0.0.1:{port}"

    def turn(self) -> None:
        """What a loop does when something has happened."""
        if self.zap:
            self.zap.answer(0.0)
        while self.monitor.poll(0):
            kind, value = struct.unpack("=Hi", self.monitor.recv_multipart()[0])
            name = zmq.Event(kind).name
            if name.startswith("HANDSHAKE"):
                self.handshakes.append((name, value))
        while self.socket.type != zmq.SUB and self.socket.poll(0):
            frame = self.socket.recv_multipart(copy=False)[-1]
            self.heard.append((user_id(frame), bytes(frame.buffer)))

    def close(self) -> None:
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)
        if self.zap:
            self.zap.close()
        self.context.term()


def user_id(frame: zmq.Frame) -> str | None:
    try:
        return str(frame.get("User-Id"))
    except zmq.ZMQError:  # none: the side that connects has no handler
        return None


class Scene:
    """All sides of a test."""

    def __init__(self) -> None:
        self.sides: list[Side] = []

    def server(self, ring: KeyRing | None = SERVER, handler: bool = True) -> Side:
        """Without a ring a plain one."""
        side = self.side(zmq.ROUTER)
        if ring:
            side.ring = ring
            secure_server(side.socket, ring)
            if handler:
                side.handle_keys(KeyRing.admit_client)
        return side

    def client(self, ring: KeyRing | None, endpoint: str) -> Side:
        """Dials and says `hello`."""
        side = self.side(zmq.DEALER)
        if ring:
            secure_client(side.socket, ring)
        side.socket.connect(endpoint)
        side.socket.send(b"hello")
        return side

    def side(self, kind: int) -> Side:
        self.sides.append(Side(kind))
        return self.sides[-1]

    def wait(self, until: Callable[[], object]) -> None:
        poller = zmq.Poller()
        for side in self.sides:
            for source in (side.socket, side.monitor, side.zap and side.zap.socket):
                if source is not None:
                    poller.register(source, zmq.POLLIN)
        deadline = time.monotonic() + PATIENCE_S
        while not until():
            left_s = deadline - time.monotonic()
            assert left_s > 0, [(side.handshakes, side.heard) for side in self.sides]
            poller.poll(min(1000.0, left_s * 1000))
            for side in self.sides:
                side.turn()


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    for side in scene.sides:
        side.close()


def names(side: Side) -> list[str]:
    return [name for name, _ in side.handshakes]


@pytest.mark.parametrize(
    ("ring", "who"),
    [(GUEST, ANNA.public), (SERVER, FARM.public)],
    ids=["an authorized key", "the farm key itself"],
)
def test_a_right_key_enters_and_its_messages_carry_its_user_id(scene: Scene, ring: KeyRing, who: str) -> None:
    server = scene.server()
    client = scene.client(ring, server.listen())
    scene.wait(lambda: server.heard and client.handshakes)
    assert server.heard == [(who, b"hello")]
    assert names(client) == names(server) == [IN]


def test_an_unknown_key_is_refused_by_name(scene: Scene) -> None:
    server = scene.server()
    client = scene.client(STRANGER, server.listen())
    scene.wait(lambda: client.handshakes and server.handshakes)
    assert client.handshakes == server.handshakes == [(REFUSED, 400)]
    assert server.heard == []


def meet(scene: Scene, server: Side, ring: KeyRing | None) -> tuple[str, str]:
    """A client that does not get in, then one that does: what the first one said would have come before.

    What the first client and the server saw. Of two that differ in their mechanism, one sees that and hangs up on the
    other; which of them is chance.
    """
    endpoint = server.listen()
    stranger = scene.client(ring, endpoint)
    scene.wait(lambda: stranger.handshakes and server.handshakes)
    friend = scene.client(GUEST if server.ring.farm else None, endpoint)
    scene.wait(lambda: server.heard and friend.handshakes)
    assert [text for _, text in server.heard] == [b"hello"]
    assert names(friend) == [IN]
    return names(stranger)[0], names(server)[0]


def test_a_plain_client_does_not_enter(scene: Scene) -> None:
    assert BROKEN in meet(scene, scene.server(), None)


def test_a_client_with_keys_speaks_to_no_plain_server(scene: Scene) -> None:
    assert BROKEN in meet(scene, scene.server(None), GUEST)


def test_a_client_that_expects_another_server_key_speaks_to_nobody(scene: Scene) -> None:
    assert meet(scene, scene.server(), DECEIVED) == (FAILED, BROKEN)


def test_without_a_handler_nobody_enters(scene: Scene) -> None:
    """libzmq's own default lets everybody in."""
    server = scene.server(handler=False)
    client = scene.client(GUEST, server.listen())
    scene.wait(lambda: server.handshakes)
    assert names(server) == [FAILED]
    assert set(names(client)) <= {FAILED}  # it hears nothing until the handshake timer ends, or that it failed
    assert server.heard == []


def test_a_plain_socket_of_the_same_context_is_not_asked_for_a_key(scene: Scene) -> None:
    """Unix sockets and gates on loopback share the context of a gate with keys."""
    server = scene.server()
    plain = server.context.socket(zmq.ROUTER)
    port = plain.bind_to_random_port("tcp://127.0.0.1")
    client = scene.client(None, f"tcp://127.0.0.1:{port}")
    scene.wait(lambda: client.handshakes)
    assert plain.poll(PATIENCE_S * 1000)
    assert plain.recv_multipart()[1] == b"hello"
    plain.close(0)


def test_subscribers_need_a_key_too(scene: Scene) -> None:
    """Announcements go over XPUB and SUB."""
    server = scene.side(zmq.XPUB)
    server.ring = SERVER
    secure_server(server.socket, SERVER)
    server.handle_keys(KeyRing.admit_client)
    endpoint = server.listen()
    subscribers = [scene.side(zmq.SUB) for _ in range(2)]
    for subscriber, ring in zip(subscribers, (GUEST, STRANGER), strict=True):
        secure_client(subscriber.socket, ring)
        subscriber.socket.subscribe(b"server.")
        subscriber.socket.connect(endpoint)
    scene.wait(lambda: all(subscriber.handshakes for subscriber in subscribers) and server.heard)
    assert [names(subscriber) for subscriber in subscribers] == [[IN], [REFUSED]]
    assert server.heard == [(ANNA.public, b"\x01server.")]


def test_a_revoked_client_is_known_by_its_messages_and_does_not_come_back(scene: Scene, made: KeyPlaces) -> None:
    authorize(made, "anna's laptop", ANNA.public)
    watch = KeyWatch({}, made.client.parent, now=0.0)
    assert watch.ring.farm
    guest = KeyRing(client=ANNA, farm_public=watch.ring.farm.public)
    server = scene.server(watch.ring)
    endpoint = server.listen()
    client = scene.client(guest, endpoint)
    scene.wait(lambda: server.heard)

    revoke(made, "anna's laptop")
    authorize(made, "anna's laptop", BERT.public)
    assert watch.look(now=2.0)
    server.ring = watch.ring
    client.socket.send(b"still here")
    scene.wait(lambda: len(server.heard) == 2)
    who, text = server.heard[1]
    assert text == b"still here"  # libzmq does not drop one peer of a ROUTER
    assert who is not None
    assert watch.ring.client_name(who) is None

    again = scene.client(guest, endpoint)
    scene.wait(lambda: again.handshakes)
    assert again.handshakes == [(REFUSED, 400)]


def test_a_key_that_is_authorized_later_enters_without_a_restart(scene: Scene, made: KeyPlaces) -> None:
    watch = KeyWatch({}, made.client.parent, now=0.0)
    assert watch.ring.farm
    guest = KeyRing(client=ANNA, farm_public=watch.ring.farm.public)
    server = scene.server(watch.ring)
    endpoint = server.listen()
    early = scene.client(guest, endpoint)
    scene.wait(lambda: early.handshakes)
    authorize(made, "anna's laptop", ANNA.public)
    assert watch.look(now=2.0)
    server.ring = watch.ring
    late = scene.client(guest, endpoint)
    scene.wait(lambda: late.handshakes)
    assert (names(early), names(late)) == ([REFUSED], [IN])


def listener(scene: Scene, ring: KeyRing) -> tuple[Side, str]:
    """A client that waits for servers, and where."""
    side = scene.side(zmq.ROUTER)
    side.ring = ring
    secure_listener(side.socket, ring)
    side.handle_keys(KeyRing.admit_server)
    return side, side.listen()


def dial_out(scene: Scene, ring: KeyRing, endpoint: str, expected: str) -> Side:
    side = scene.side(zmq.DEALER)
    secure_dial_out(side.socket, ring, expected)
    side.socket.connect(endpoint)
    side.socket.send(b"here")
    return side


@pytest.mark.parametrize(
    ("ring", "place"), [(GUEST, 1), (SERVER, 0)], ids=["a listed client", "a holder of the farm key"]
)
def test_a_server_that_dials_out_finds_the_client_among_its_candidates(scene: Scene, ring: KeyRing, place: int) -> None:
    client, endpoint = listener(scene, ring)
    tried = []
    for expected in dial_out_keys(SERVER):
        server = dial_out(scene, SERVER, endpoint, expected)
        scene.wait(lambda server=server: server.handshakes)
        tried += names(server)
        if tried[-1] == IN:
            break
    assert tried == [FAILED] * place + [IN]
    scene.wait(lambda: client.heard)
    assert client.heard == [(FARM.public, b"here")]


def test_a_client_that_listens_admits_no_other_client(scene: Scene) -> None:
    """Whoever is authorized as a client must not pose as a server."""
    client, endpoint = listener(scene, GUEST)
    intruder = scene.client(KeyRing(client=BERT, farm_public=ANNA.public), endpoint)
    scene.wait(lambda: intruder.handshakes)
    assert intruder.handshakes == [(REFUSED, 400)]
    assert client.heard == []


def test_a_server_dials_out_to_clients_that_it_admits_alone(scene: Scene) -> None:
    side = scene.side(zmq.DEALER)
    with pytest.raises(Refused, match="`dr keys list`"):
        secure_dial_out(side.socket, SERVER, MALLORY.public)


@pytest.mark.parametrize("secure", [secure_server, secure_client, secure_listener])
def test_without_keys_a_socket_is_refused_with_the_command_that_makes_them(scene: Scene, secure: Any) -> None:
    side = scene.side(zmq.ROUTER)
    with pytest.raises(Refused, match="dr keys init"):
        secure(side.socket, KeyRing())
