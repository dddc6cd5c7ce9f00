"""Servers and a network without sockets, clocks or threads, around a real broker. The test says what happens, and when.

A link is a connection that the broker dialled, or a server: two queues that keep their order, as ZeroMQ does. Whoever
drives the farm picks which link delivers next, which bucket is done next, who dies, and when time passes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

from msgspec import Struct, field

from dr.broker import commands, events
from dr.broker.buckets import Order, cut_frame
from dr.broker.fleet import Server, Timers
from dr.broker.job import Frame
from dr.broker.state import Broker
from dr.protocol.messages import (
    Beat,
    Bucket,
    BucketWork,
    Bye,
    Cancel,
    Channel,
    Chunk,
    ClientMessage,
    Drain,
    ErrorMessage,
    Failed,
    Get,
    Grant,
    Hello,
    Here,
    NoLease,
    Ping,
    Pong,
    Ready,
    ServerMessage,
    Setup,
    Tile,
    Welcome,
)
from dr.protocol.version import PROTOCOL_VERSION
from dr.scene.model import RenderSettings

KERNELS = "kernels of the test"
MANIFEST = b"m" * 32
DEAD_S = 3.0  # a server lets a silent client go after this
MAX_FRAMES = 2  # of a server; the third takes the place of the oldest


def make_frame(
    width: int = 32, height: int = 24, size: int = 8, samples: int = 16, *, index: int = 0, adaptive: bool = False
) -> Frame:
    """4 x 3 buckets that are too small to be split, unless the test wants other ones."""
    settings = RenderSettings(width=width, height=height, samples=samples, frame=index)
    return Frame(
        settings=settings,
        channels=(Channel.BEAUTY,),
        buckets=cut_frame(settings, size, Order.ROWS),
        manifest=MANIFEST,
        assets={MANIFEST: 100},
        index=index,
        adaptive=adaptive,
    )


def pixels_of(epoch: int, bucket: int, boot: bytes) -> bytes:
    """What stands for a tile's pixels."""
    return b"%d of %d by %s" % (bucket, epoch, boot)


class Held(Struct, frozen=True):
    """A bucket that a server renders or has queued."""

    epoch: int
    work: BucketWork

    @property
    def id(self) -> int:
        return self.work.id


def port_of(server: SimulatedServer) -> int:
    """Of one whose endpoint is tcp://HOST:PORT."""
    return int(server.endpoint.rpartition(":")[2])


class Said(Struct, frozen=True):
    """A message on its way to the client."""

    message: ServerMessage
    payload: tuple[bytes, ...] = ()


class Link(Struct, kw_only=True, eq=False):
    peer: bytes
    endpoint: str
    dials_in: bool = False  # the server made it
    phase: str = "dialing"  # dialing, open, cut (nothing comes through), closing (a last few messages do), closed
    to_server: deque[ClientMessage] = field(default_factory=deque)
    to_client: deque[Said] = field(default_factory=deque)


class SimulatedServer:
    """A render server as protocol.md describes it, for one client beside others that the test imagines."""

    def __init__(self, endpoint: str, threads: int = 2, kernels: str = KERNELS) -> None:
        self.endpoint = endpoint
        self.threads = threads
        self.kernels = kernels
        self.version = PROTOCOL_VERSION
        self.siblings: list[int] = []  # ports that its welcome names
        self.announce = 0  # port that its welcome names
        self.lent_to = "somebody"  # name of the other client
        self.dials_in = False  # too: so our client may come twice, and the second one waits
        self.restarts = 0  # times that a client asked for a fresh process
        self.lives = 0
        self.start()

    def start(self) -> None:
        """A fresh process at the same address."""
        self.lives += 1
        self.boot = f"{self.lives:02d}{self.endpoint[-6:]:>6}".encode()
        self.is_up = True
        self.is_hung = False
        self.holder: bytes | None = None  # our client's peer id
        self.waiter: bytes | None = None
        self.is_lent = False  # to another client
        self.lease = b""
        self.epochs: dict[int, bool] = {}  # of the frames that it has, oldest first; whether it is ready for them
        self.leases = 0
        self.heard = 0.0
        self.works: deque[Held] = deque()

    @property
    def epoch(self) -> int:
        """Of the newest frame; -1: it has none."""
        return next(reversed(self.epochs), -1)

    def hear(self, peer: bytes, message: ClientMessage, now: float) -> list[ServerMessage]:
        if peer == self.holder:
            self.heard = now
        match message:
            case Hello(want=want):
                return [self._welcome(), *(self.lend(peer, now) if want else [])]
            case Ping(n=n):
                return [Pong(n=n)]
            case ErrorMessage():
                self.release(peer)
                return []
        if peer != self.holder or message.lease != self.lease:
            return [NoLease()]
        return self._work(message)

    def running(self) -> list[Held]:
        return list(islice(self.works, self.threads))

    def finish(self, held: Held, seconds: float = 0.1) -> Said:
        self.works.remove(held)
        tile = Tile(lease=self.lease, epoch=held.epoch, bucket=held.work, channels=[Channel.BEAUTY], seconds=seconds)
        return Said(tile, (pixels_of(held.epoch, held.id, self.boot),))

    def fail(self, held: Held) -> Said:
        self.works.remove(held)
        return Said(Failed(lease=self.lease, epoch=held.epoch, bucket=held.id, error="kernel raised"))

    def release(self, peer: bytes) -> None:
        if peer == self.waiter:
            self.waiter = None
        if peer == self.holder:
            self.holder, self.lease = None, b""
            self._drop_all()

    def _drop_all(self) -> None:
        self.epochs.clear()
        self.works.clear()

    def _welcome(self) -> Welcome:
        return Welcome(
            version=self.version,
            kernels=self.kernels,
            boot=self.boot,
            name=self.endpoint,
            threads=self.threads,
            busy=self.is_lent,
            holder=self.lent_to if self.is_lent else "",
            announce=self.announce,
            siblings=self.siblings,
        )

    def lend(self, peer: bytes, now: float) -> list[ServerMessage]:
        if peer == self.holder:
            return [Grant(lease=self.lease, threads=self.threads)]
        if self.is_lent or (self.dials_in and self.holder not in {None, peer}):
            self.waiter = peer
            return []
        self.holder = peer  # a new connection of the same client takes the place of the old one
        self._drop_all()
        self.leases += 1
        self.lease = f"{self.leases:04d}{self.lives:04d}".encode()
        self.heard = now
        return [Grant(lease=self.lease, threads=self.threads)]

    def return_from_other(self, now: float) -> tuple[bytes, list[ServerMessage]] | None:
        """The other client lets go; our waiter, if any, is next."""
        self.is_lent = False
        if self.waiter is None:
            return None
        peer, self.waiter = self.waiter, None
        return peer, self.lend(peer, now)

    def _work(self, message: ClientMessage) -> list[ServerMessage]:
        match message:
            case Setup(epoch=epoch):
                return self._set_up(epoch)
            case Chunk(epoch=epoch) if epoch in self.epochs:
                self.epochs[epoch] = True
                return [Ready(lease=self.lease, epoch=epoch)]
            case Bucket(epoch=epoch, buckets=buckets) if epoch in self.epochs:
                assert self.epochs[epoch], "a bucket of a frame that this server is not ready for"
                self.works.extend(Held(epoch, work) for work in buckets)
            case Cancel(epoch=epoch, buckets=cancelled):
                self.works = deque(held for held in self.works if held.epoch != epoch or held.id not in cancelled)
            case Bye(restart=restart):
                assert self.holder is not None
                self.restarts += restart
                self.release(self.holder)
        return []

    def _set_up(self, epoch: int) -> list[ServerMessage]:
        if epoch in self.epochs:
            return []
        if len(self.epochs) == MAX_FRAMES:
            oldest = next(iter(self.epochs))
            del self.epochs[oldest]
            self.works = deque(held for held in self.works if held.epoch != oldest)
        self.epochs[epoch] = False
        return [Get(lease=self.lease, epoch=epoch, digest=MANIFEST, offset=0, n=100)]

    def beat(self) -> Said:
        return Said(Beat(lease=self.lease, queued=max(0, len(self.works) - self.threads), running=len(self.running())))

    def drain(self) -> Said:
        self.works = deque(self.running())
        return Said(Drain(lease=self.lease))


class SimulatedFarm:
    """A broker, its servers, the network between them, and the picture that comes of it."""

    def __init__(
        self,
        seed: bytes = b"seed of the test",
        timers: Timers | None = None,
        restart_servers: bool = False,
        frames: int = 1,
        max_servers: int = 0,
        patient: bool = False,
    ) -> None:
        self.now = 0.0
        self.broker = Broker(
            kernels=KERNELS,
            seed=seed,
            timers=timers,
            restart_servers=restart_servers,
            frames=frames,
            max_servers=max_servers,
            patient=patient,
        )
        self.announcers: list[commands.HearAnnouncements] = []
        self.servers: dict[str, SimulatedServer] = {}
        self.links: dict[bytes, Link] = {}
        self.fresh_links: list[Link] = []  # since somebody looked last
        self.silence_every_s = 0.0  # between two looks of servers at whether their client is silent
        self.silence_at = 0.0
        self.calls = 0  # connections that servers have made
        self.facts: deque[events.Event] = deque()  # that the loop has not told the broker yet
        self.reads: deque[commands.ReadAsset] = deque()
        self.pictures: dict[int, dict[int, commands.MergeTile]] = {}  # frame's index and bucket id to the tile
        self.frames_finished: list[commands.FrameFinished] = []
        self.notices: list[commands.Notify] = []
        self.finished: commands.Finished | None = None
        self.byes: dict[str, bool] = {}  # endpoints that were let go at the end, and whether they shall restart
        self.seen_at_poison: list[int] = []  # servers ever seen when a bucket was given up
        # A bucket's epoch and id to the number of times that it failed or stood on a dying server.
        self.blames: dict[tuple[int, int], int] = {}

    @property
    def merged(self) -> dict[int, commands.MergeTile]:
        """The first frame's tiles by bucket id."""
        return self.pictures.get(0, {})

    # What the loop does

    def tell(self, event: events.Event) -> None:
        """Tells the broker a fact, and the facts that follow from what it does then."""
        self.facts.append(event)
        self._tell_all()

    def _tell_all(self) -> None:
        while self.facts:
            fact = self.facts.popleft()
            self._blame_loss(fact)
            self._carry_out(self.broker.handle(fact, self.now))

    def _blame_loss(self, event: events.Event) -> None:
        """Whoever sees a server hang up cannot know that it lives, nor what it had let go of."""
        if isinstance(event, events.SendFailed) and self.links[event.peer].dials_in:
            self._blame_running(self.broker.fleet.peers.get(event.peer))

    def _blame_silence(self) -> None:
        """Nor can who hears nothing, when nobody delivered what was said."""
        for server in self.broker.fleet.peers.values():
            if self.now >= server.heard + self.broker.fleet.timers.dead_s:
                self._blame_running(server)

    def _blame_running(self, server: Server | None) -> None:
        for ticket in server.running if server else ():
            self.blames[ticket] = self.blames.get(ticket, 0) + 1

    def pass_time(self, until: float) -> None:
        """Time passes, and every timer on the way runs out when it should."""
        for _ in range(100_000):
            deadline = self.broker.next_deadline()
            if deadline > until:
                break
            self.now = max(self.now, deadline)
            self._blame_silence()
            self._carry_out(self.broker.tick(self.now))
            self._tell_all()
        else:
            raise AssertionError("the broker's timers do not come to rest")
        self.now = until
        if self.now >= self.silence_at:
            self.silence_at = self.now + self.silence_every_s
            self._lose_silent_clients()

    def _lose_silent_clients(self) -> None:
        for server in self.servers.values():
            if server.holder and not server.is_hung and self.now > server.heard + DEAD_S:
                self.lose_client(server)

    def _carry_out(self, wanted: Sequence[commands.Command]) -> None:
        self._note_byes(wanted)
        for command in wanted:
            match command:
                case commands.Dial(endpoint, peer):
                    assert peer not in self.links, "a routing id was used twice"
                    self.links[peer] = Link(peer=peer, endpoint=endpoint)
                    self.fresh_links.append(self.links[peer])
                case commands.Disconnect(peer=peer):
                    self.links[peer].phase = "closed"
                    self._tell_close(self.links[peer])
                case commands.Send(peer, message):
                    self._carry(peer, message)
                case commands.MergeTile(bucket=bucket, frame=frame):
                    picture = self.pictures.setdefault(frame, {})
                    assert bucket.id not in picture, f"bucket {bucket.id} was merged twice"
                    assert bytes(command.payload[0]).startswith(b"%d of " % bucket.id)
                    assert len(self.frames_finished) <= frame, "a tile of a frame that is finished"
                    picture[bucket.id] = command
                case commands.FrameFinished(frame):
                    assert self.finished is None
                    assert frame == len(self.frames_finished), "frames finish in order"
                    self.frames_finished.append(command)
                case commands.HearAnnouncements():
                    self.announcers.append(command)
                case commands.ReadAsset():
                    self.reads.append(command)
                case commands.Notify(topic):
                    self.notices.append(command)
                    if topic is commands.Topic.POISONED:
                        self.seen_at_poison.append(self.broker.fleet.seen)
                case commands.Finished():
                    assert self.finished is None, "a render finishes once"
                    self.finished = command

    def _note_byes(self, wanted: Sequence[commands.Command]) -> None:
        """Whoever is let go before or after the end is never asked to restart."""
        is_end = any(isinstance(command, commands.Finished) for command in wanted)
        for command in wanted:
            if isinstance(command, commands.Send) and isinstance(command.message, Bye):
                assert is_end or not command.message.restart
                if is_end:
                    self.byes[self.links[command.peer].endpoint] = command.message.restart

    def _tell_close(self, link: Link) -> None:
        """Others take the next connection of our client for the same one; here it would wait for ever."""
        server = self.servers.get(link.endpoint)
        if server and server.dials_in:
            server.release(link.peer)
            self._lend_to_waiter(server)

    def _lend_to_waiter(self, server: SimulatedServer) -> None:
        if server.dials_in and server.holder is None and not server.is_lent:
            link = self.links.get(server.waiter or b"")
            server.waiter = None
            if link and link.phase in {"open", "cut"}:
                link.to_client.extend(Said(message) for message in server.lend(link.peer, self.now))

    def _carry(self, peer: bytes, message: ClientMessage) -> None:
        link = self.links[peer]
        if link.phase in {"closing", "closed"}:
            self.facts.append(events.SendFailed(peer, "unreachable"))
        elif link.phase != "dialing":
            link.to_server.append(message)

    # What the network and the servers do

    def place(self, server: SimulatedServer) -> None:
        """The server is there; nobody has told the broker."""
        self.servers[server.endpoint] = server

    def add(self, server: SimulatedServer, whole_host: bool = False) -> None:
        self.place(server)
        self.tell(events.ServerAdded(server.endpoint, whole_host=whole_host))

    def add_host(self, servers: Sequence[SimulatedServer]) -> None:
        """Servers of one spawner, which know each other; the user names their host alone."""
        for server in servers:
            self.place(server)
            server.siblings = [port_of(other) for other in servers if other is not server]
        self.add(servers[0], whole_host=True)

    def links_in(self, *phases: str) -> list[Link]:
        return [link for link in self.links.values() if link.phase in phases]

    def connect(self, link: Link) -> None:
        server = self.servers.get(link.endpoint)
        if server and server.is_up:
            link.phase = "open"
            self.tell(events.DialSucceeded(link.endpoint))
        else:
            link.phase = "closed"
            self.tell(events.ConnectionLost(link.endpoint, "refused"))

    def call(self, server: SimulatedServer) -> None:
        """The server dials in, having given up the connection that it made before."""
        for link in self.links_in("open", "cut"):
            if link.dials_in and link.endpoint == server.endpoint:
                self._hang_up(server, link)
        self.calls += 1
        server.dials_in = True
        peer = b"\x02call%04d" % self.calls
        self.links[peer] = Link(peer=peer, endpoint=server.endpoint, dials_in=True, phase="open")
        self.links[peer].to_client.append(Said(Here(version=PROTOCOL_VERSION, boot=server.boot)))

    def is_calling(self, server: SimulatedServer) -> bool:
        """Whether there is a connection that it made."""
        return any(link.dials_in and link.endpoint == server.endpoint for link in self.links_in("open", "closing"))

    def _hang_up(self, server: SimulatedServer, link: Link) -> None:
        server.release(link.peer)
        self._lend_to_waiter(server)
        link.to_server.clear()
        link.phase = "closing" if link.phase == "open" else link.phase

    def deliver_to_server(self, link: Link) -> None:
        server = self.servers[link.endpoint]
        message = link.to_server.popleft()
        replies = server.hear(link.peer, message, self.now)
        link.to_client.extend(Said(reply) for reply in replies)
        if link.dials_in and isinstance(message, ErrorMessage):
            self._hang_up(server, link)
        self._lend_to_waiter(server)

    def deliver_to_client(self, link: Link) -> None:
        said = link.to_client.popleft()
        self.tell(events.MessageReceived(link.peer, said.message, said.payload))

    def answer_read(self) -> None:
        read = self.reads.popleft()
        self.tell(events.AssetRead(read.peer, read.digest, read.offset, (b"asset",)))

    def say(self, server: SimulatedServer, said: Said) -> None:
        """The server says something to the client that holds it."""
        link = self.links.get(server.holder or b"")
        if link and link.phase in {"open", "cut"}:
            link.to_client.append(said)

    def finish(self, server: SimulatedServer, held: Held, seconds: float = 0.1) -> None:
        self.say(server, server.finish(held, seconds))

    def fail(self, server: SimulatedServer, held: Held) -> None:
        self.blame(held)
        self.say(server, server.fail(held))

    def blame(self, held: Held) -> None:
        ticket = (held.epoch, held.id)
        self.blames[ticket] = self.blames.get(ticket, 0) + 1

    def lose_client(self, server: SimulatedServer) -> None:
        """The server gives its client up."""
        assert server.holder is not None
        self.say(server, Said(NoLease()))
        server.release(server.holder)
        self._lend_to_waiter(server)

    def crash(self, server: SimulatedServer, kept: int) -> None:
        """The process is killed; the first `kept` messages of each connection still arrive."""
        for held in server.works:
            self.blame(held)
        server.is_up = False
        server.works.clear()
        server.holder = None
        for link in self.links.values():
            if link.endpoint == server.endpoint and link.phase in {"open", "cut"}:
                cut = link.phase == "cut"
                while len(link.to_client) > kept:
                    link.to_client.pop()
                link.to_server.clear()
                link.phase = "cut" if cut else "closing"

    def close(self, link: Link) -> None:
        """The client's monitor sees a dead connection close."""
        link.phase = "closed"
        if link.dials_in:
            self.tell(events.SendFailed(link.peer, "connection closed"))
        else:
            self.tell(events.ConnectionLost(link.endpoint, "connection closed"))

    def listens(self, link: Link) -> bool:
        """Whether the server at the other end hears what arrives."""
        server = self.servers[link.endpoint]
        return server.is_up and not server.is_hung

    def flow(self) -> bool:
        """Delivers everything that is on its way, once; returns whether there was anything."""
        moved = False
        for link in list(self.links.values()):
            if link.phase == "dialing":
                moved = True
                self.connect(link)
            while link.to_client and link.phase in {"open", "closing"}:
                moved = True
                self.deliver_to_client(link)
            if link.phase == "closing":
                moved = True
                self.close(link)
            while link.to_server and link.phase == "open" and self.listens(link):
                moved = True
                self.deliver_to_server(link)
        while self.reads:
            moved = True
            self.answer_read()
        return moved
