"""A network with a clock around a real broker and a hundred simulated servers: carries, loses, and checks what it can.

Everything that happens is an entry of one agenda, so that a seed plays the same farm again.
"""

from __future__ import annotations

import heapq
from array import array
from collections import Counter, deque
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

from msgspec import Struct

from dr.broker import commands, events
from dr.broker.fleet import Phase
from dr.broker.state import Broker
from dr.broker.worker import Ticket
from dr.protocol.messages import ClientMessage, ErrorMessage, Here, ServerMessage, Tile
from dr.protocol.version import PROTOCOL_VERSION
from tests.support.churn_picture import Pictures
from tests.support.churn_server import PIXELS, ChurnServer
from tests.support.simulated_farm import KERNELS

LIVE_FRAMES = 2
STORY = 40  # events that a failure tells
REDIAL_S = 0.7  # of a server that dials in
OLD_TILES = 64  # that are kept, to come again later


class Shape(Struct, frozen=True, kw_only=True):
    """How large a render is."""

    events: int  # that the broker is told before the frames become empty ones
    buckets: tuple[int, int]  # of a frame
    check_every: int  # events
    fault_every_s: float = 0.1  # on the average
    max_servers: int = 0
    patient: bool = False
    restart: bool = False


class Link(Struct, eq=False):
    peer: bytes
    place: str  # that was dialled; of one that dialled in, its own
    server: ChurnServer | None
    latency_s: float
    dials_in: bool = False
    is_open: bool = False  # the server's end of it
    is_deaf: bool = False  # nothing comes through to the client any more
    is_cut: bool = False  # nor to the server, and nobody is told


class ChurnFarm:
    def __init__(self, seed: int, shape: Shape, bound_s: float) -> None:
        """No frame may take longer than `bound_s`, seconds of the simulated clock, once it is the oldest."""
        self.chance = Random(seed)
        self.shape, self.bound_s = shape, bound_s
        self.now = 0.0
        self.told = 0  # events and ticks
        self.ends_at = shape.events
        self.agenda: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = count()
        self.pictures = Pictures(self.chance, shape.buckets)
        self.frames = max(4, 2 * shape.events // sum(shape.buckets))
        self.requested = 0
        self.broker = Broker(
            kernels=KERNELS,
            seed=self.chance.randbytes(16),
            frames=self.frames,
            max_servers=shape.max_servers,
            patient=shape.patient,
            restart_servers=shape.restart,
        )
        self.servers: dict[str, ChurnServer] = {}  # by place
        self.aliases: dict[str, ChurnServer] = {}  # other addresses of the same servers
        self.links: dict[bytes, Link] = {}
        self.peers: array[int] = array("Q")  # all routing ids ever
        self.facts: deque[events.Event] = deque()
        self.story: deque[tuple[int, float, str | events.Event]] = deque(maxlen=STORY)
        self.old: deque[ServerMessage] = deque(maxlen=OLD_TILES)
        self.finished: commands.Finished | None = None
        self.seen_at_poison = 1 << 30  # servers, at least
        self.notices: Counter[str] = Counter()
        self._calls = count(1)

    # The clock

    def after(self, seconds: float, action: Callable[..., None], *words: object) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), action, words))

    def step(self) -> None:
        """The next thing happens, be it a timer of the broker."""
        deadline = self.broker.next_deadline()
        if deadline <= self.agenda[0][0]:
            self.now = max(self.now, deadline)
            self._blame_silence()
            self._note("tick")
            self._carry_out(self.broker.tick(self.now))
            self._tell_all()
        else:
            self.now, _, action, words = heapq.heappop(self.agenda)
            action(*words)

    # The loop of the client

    def tell(self, event: events.Event) -> None:
        self.facts.append(event)
        self._tell_all()

    def request_frames(self) -> None:
        while self.requested < self.frames and len(self.pictures.live) < LIVE_FRAMES and not self.finished:
            frame = self.pictures.make(self.requested, is_empty=self.told >= self.ends_at)
            self.requested += 1
            self._note(event := events.FrameRequested(frame))
            said = self.broker.handle(event, self.now)
            live = self.broker.frames.live
            epoch = live[-1].epoch if live and live[-1].frame is frame else -1 - frame.index
            self.pictures.begin(frame, epoch, self.now)
            self._carry_out(said)

    def _tell_all(self) -> None:
        while self.facts:
            event = self.facts.popleft()
            if isinstance(event, events.SendFailed) and event.peer not in self.links:
                continue
            self._note(event)
            if isinstance(event, (events.ConnectionLost, events.SendFailed)):
                self._blame_loss(event)
            self._carry_out(self.broker.handle(event, self.now))
            if isinstance(event, events.SendFailed):
                self.links.pop(event.peer, None)
            if not self.facts:
                self.request_frames()

    def _note(self, event: events.Event | str) -> None:
        self.told += 1
        self.story.append((self.told, self.now, event))
        if self.told % self.shape.check_every == 0:
            self.broker.check()
            self.check_progress()

    def check_progress(self) -> None:
        oldest = next(iter(self.pictures.live.values()), None)
        if oldest:
            age_s = self.pictures.age_s(oldest, self.now)
            assert age_s <= self.bound_s, f"frame {oldest.frame.index} is not done after {age_s:.0f} s"

    def _carry_out(self, wanted: list[commands.Command]) -> None:
        for command in wanted:
            match command:
                case commands.Send(peer, message):
                    self._send(peer, message)
                case commands.MergeTile():
                    self.pictures.merge(command)
                case commands.Dial(endpoint, peer):
                    self._dial(endpoint, peer)
                case commands.Disconnect(peer=peer):
                    self._hang_up(self.links.pop(peer))
                case commands.ReadAsset(peer, digest, offset):
                    read = events.AssetRead(peer, digest, offset, PIXELS)
                    self.after(self.chance.uniform(0.0, 0.02), self.tell, read)
                case commands.FrameFinished():
                    self.pictures.finish(command, self.seen_at_poison, self.now)
                case commands.Notify(topic):
                    self.notices[topic] += 1
                    if topic is commands.Topic.POISONED:
                        self.seen_at_poison = min(self.seen_at_poison, self.broker.fleet.seen)
                case commands.Finished():
                    assert self.finished is None, "a render finishes once"
                    self.finished = command

    # The wire

    def _dial(self, endpoint: str, peer: bytes) -> None:
        assert peer not in self.links, "a routing id was used twice"
        self.peers.append(int.from_bytes(peer[1:], "little"))
        server = self.servers.get(endpoint) or self.aliases.get(endpoint)
        link = Link(peer, endpoint, server, 0.0002 * 100 ** self.chance.random())
        self.links[peer] = link
        if self.chance.random() > 0.01:  # or nobody answers, not even with a refusal
            self.after(2 * link.latency_s, self._connect, link)

    def _connect(self, link: Link) -> None:
        if link.peer not in self.links:
            return
        if link.server and link.server.is_up:
            link.is_open = True
            self.tell(events.DialSucceeded(link.place))
        else:
            self.tell(events.ConnectionLost(link.place, "refused"))

    def call(self, server: ChurnServer, boot: bytes) -> None:
        """A server that dials in makes a connection, as long as it is the same process, and until it has one."""
        if not server.is_up or server.boot != boot or any(link.dials_in for link in self.links_of(server)):
            return
        peer = b"\x02" + next(self._calls).to_bytes(8, "big")
        self.links[peer] = Link(peer, server.place, server, 0.005, dials_in=True, is_open=True)
        self.say(peer, Here(version=PROTOCOL_VERSION, boot=boot))

    def links_of(self, server: ChurnServer) -> list[Link]:
        return [link for link in self.links.values() if link.server is server and link.is_open]

    def _send(self, peer: bytes, message: ClientMessage) -> None:
        link = self.links[peer]  # commands go only to peers that exist
        if link.is_open and not link.is_cut:
            self.after(link.latency_s, self._reach, link, message)
        elif not link.is_cut and (link.dials_in or self.chance.random() < 0.5):
            self.facts.append(events.SendFailed(peer, "unreachable"))

    def _reach(self, link: Link, message: ClientMessage) -> None:
        if link.server and link.is_open and not link.is_cut:
            link.server.hear(link.peer, message)
            if link.dials_in and isinstance(message, ErrorMessage) and not link.server.is_silent:
                self._hang_up(link)
                self._forget_caller(link)

    def say(self, peer: bytes, message: ServerMessage) -> None:
        link = self.links.get(peer)
        if link and link.is_open and not link.is_cut:
            self.after(link.latency_s, self._arrive, link, message)

    def _arrive(self, link: Link, message: ServerMessage) -> None:
        if self.links.get(link.peer) is not link or link.is_deaf or link.is_cut:
            return
        if isinstance(message, Tile):
            if self.told % 50 == 0:
                self.old.append(message)
            self.tell(events.MessageReceived(link.peer, message, PIXELS))
        else:
            self.tell(events.MessageReceived(link.peer, message))

    def _hang_up(self, link: Link) -> None:
        """The server's end closes when it hears of it; one that is cut off finds its client silent."""
        server = link.server
        if server and not link.is_cut:
            self.after(link.latency_s, self._close, link)

    def _close(self, link: Link) -> None:
        server = link.server
        if server and link.is_open:
            link.is_open = False
            if server.is_silent:
                server.missed.append((server.release, (link.peer,)))
            else:
                server.release(link.peer)
            if link.dials_in:
                self.after(REDIAL_S, self.call, server, server.boot)

    def _forget_caller(self, link: Link) -> None:
        """Nobody will send on it any more, unless the broker still believes in it: then it is told when it does."""
        if link.peer not in self.broker.fleet.peers:
            self.links.pop(link.peer, None)

    def lose(self, link: Link, *, is_deaf: bool) -> None:
        """The connection breaks; what is on its way arrives, or is lost with it."""
        link.is_deaf = link.is_deaf or is_deaf
        self._close(link)
        if link.dials_in:
            self.after(link.latency_s, self._forget_caller, link)
        else:
            self.after(link.latency_s, self._tell_loss, link)

    def _tell_loss(self, link: Link) -> None:
        if self.links.get(link.peer) is link and not link.is_cut:
            self.tell(events.ConnectionLost(link.place, "connection closed"))

    # What may excuse that a bucket was given up

    def blame(self, ticket: Ticket) -> None:
        self.pictures.blame(ticket)

    def _blame_loss(self, event: events.ConnectionLost | events.SendFailed) -> None:
        fleet = self.broker.fleet
        lost = event.peer if isinstance(event, events.SendFailed) else None
        server = (
            fleet.servers.get(event.endpoint) if isinstance(event, events.ConnectionLost) else fleet.peers.get(lost)
        )
        for ticket in server.running if server and server.phase is not Phase.DRAINING else ():
            self.blame(ticket)

    def _blame_silence(self) -> None:
        fleet = self.broker.fleet
        for server in fleet.phases[Phase.READY].values():
            if self.now >= server.heard + fleet.timers.dead_s:
                for ticket in server.running:
                    self.blame(ticket)

    def check_end(self) -> None:
        """All frames came, no routing id twice, and nobody works for us any more."""
        assert self.finished
        assert self.pictures.finished == self.frames
        expected = commands.Status.INCOMPLETE if self.pictures.given_up else commands.Status.COMPLETE
        assert self.finished.status is expected, f"expected {expected.name}, found {self.finished}"
        assert len(self.finished.poisoned) == self.pictures.given_up
        assert len(set(self.peers)) == len(self.peers), "a routing id was used twice"
        held = [server.place for server in self.servers.values() if server.holder and not server.is_silent]
        assert not held, f"after the end these still work for us: {held}"
