"""Thousands of orders of what clients, threads and the clock may do to a server; its state is checked after each."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dr.protocol.messages import (
    Availability,
    Bucket,
    Bye,
    Cancel,
    Chunk,
    Failed,
    Get,
    Grant,
    Kind,
    NoLease,
    Ping,
    Ready,
    Tile,
    Welcome,
)
from tests.support.serving import SCENE_BYTES, bucket_work, digest_of, fresh_state, hello, manifest_of, setup_of
from workers.server.commands import (
    Exit,
    Level,
    Log,
    OpenManifest,
    PrepareScene,
    RenderBucket,
    Report,
    SealAsset,
    Send,
    SendStatus,
    StopThread,
)
from workers.server.events import (
    AssetRefused,
    AssetSealed,
    BucketFailed,
    BucketStopped,
    KernelsWarmed,
    ManifestOpened,
    MessageArrived,
    MessageRefused,
    PeerRevoked,
    PeerUnreachable,
    PreparationFailed,
    RestartRequested,
    ScenePrepared,
    StopRequested,
    TileRendered,
)
from workers.server.state import RECEIPT_S
from workers.server.words import RESTART_STATUS
from workers.server.work import Limits

PEERS = [b"ada", b"bob", b"eve"]
MANIFEST = manifest_of({"scene.json": SCENE_BYTES})
peers = st.sampled_from(PEERS)
epochs = st.integers(1, 4)
outcomes = st.sampled_from(["tile", "stopped", "failed"])
ORDERS = st.sampled_from(
    [
        lambda server: server.restart(),
        lambda server: server.leave_and_restart(),
        lambda server: server.stop(),
        lambda server: server.stop(at_once=True),
    ]
)


class Server(RuleBasedStateMachine):
    """The world around a state: clients that are sane, forgetful or rude, threads, and a clock that only grows."""

    def __init__(self):
        super().__init__()
        self.state = fresh_state(threads=2)
        self.now = 0.0
        self.leases: dict[bytes, bytes] = {}  # what each client believes to hold
        self.jobs: dict[int, RenderBucket] = {}  # by thread
        self.stopped: set[int] = set()
        self.store: list[SealAsset | OpenManifest] = []
        self.preparing: list[int] = []
        self.wanted: list[Get] = []
        self.rendered = 0
        self.stopping = False  # somebody asked for an end without a beginning
        self.restart_due = False
        self.exit_status: int | None = None
        self.reported: Report | None = None

    @initialize(supervised=st.booleans(), end_s=st.sampled_from([0.0, 3.0, 30.0]))
    def begin(self, supervised, end_s):
        """A server of its own, or one that a spawner would start again."""
        self.supervised = supervised
        self.end_s = end_s
        self.state = fresh_state(threads=2, limits=Limits(stuck_s=2.0), supervised=supervised)
        self.reported = self.state.reported

    def act(self, commands):
        for command in commands:
            assert self.exit_status is None or not isinstance(command, Report), "nothing changes after the end"
            match command:
                case Send(peer, message):
                    self.hear(peer, message)
                case RenderBucket(thread=thread):
                    assert thread not in self.jobs, "one bucket per thread"
                    self.jobs[thread] = command
                    self.stopped.discard(thread)
                case StopThread(thread):
                    assert thread in self.jobs, "only a running thread is stopped"
                    self.stopped.add(thread)
                case SealAsset() | OpenManifest():
                    self.store.append(command)
                case PrepareScene(epoch=epoch):
                    self.preparing.append(epoch)
                case Report():
                    assert command != self.reported, "only what changes is reported"
                    self.reported = command
                case Log(level=Level.WARNING, text=text) if text.endswith("is stuck"):
                    self.restart_due = self.restart_due or (self.supervised and not self.stopping)
                case Exit(status):
                    assert self.exit_status is None
                    self.exit_status = status

    def hear(self, peer, message):
        match message:
            case Grant(lease=lease):
                assert self.state.holder.peer == peer
                self.leases[peer] = lease
            case NoLease():
                self.leases.pop(peer, None)
            case Get():
                self.wanted.append(message)
            case Tile() | Ready() | Failed():
                self.rendered += isinstance(message, Tile)
                assert message.lease == self.leases[peer], "only the holder hears of frames"
            case _:
                pass

    def do(self, event):
        self.act(self.state.handle(event, self.now))

    def say(self, peer, message, payload=()):
        self.do(MessageArrived(peer, message, payload))

    def ready_epochs(self):
        return [epoch for epoch, frame in self.state.work.frames.items() if frame.state == "ready"]

    def lease(self, peer):
        return self.leases.get(peer, b"no lease")

    @rule(peer=peers, want=st.booleans())
    def hello(self, peer, want):
        self.say(peer, hello(want, peer.decode()))

    @rule(peer=st.sampled_from([*PEERS, b"watcher"]), version=st.integers(1, 2), kernels=st.sampled_from(["", "other"]))
    def ask_status(self, peer, version, kernels):
        """The answer is right, and asking changes nothing."""
        before = (self.state.holder, dict(self.state.waiters), self.state.ending, self.state.leases)
        message = hello(True, "watcher", kind=Kind.STATUS, version=version, kernels=kernels)
        first, second = self.state.handle(MessageArrived(peer, message), self.now)
        assert isinstance(first, Send)
        assert isinstance(first.message, Welcome)
        assert isinstance(second, SendStatus)
        assert (first.peer, second.peer) == (peer, peer)
        assert Report(second.status.state, second.status.holder) == self.reported
        assert second.status.buckets == self.rendered
        assert before == (self.state.holder, dict(self.state.waiters), self.state.ending, self.state.leases)

    @rule(peer=peers, epoch=epochs)
    def setup_frame(self, peer, epoch):
        self.say(peer, setup_of(self.lease(peer), MANIFEST, epoch))

    @precondition(lambda self: self.wanted)
    @rule(data=st.data())
    def answer_get(self, data):
        self.answer(self.wanted.pop(data.draw(st.integers(0, len(self.wanted) - 1))))

    def answer(self, get):
        content = next(c for c in (MANIFEST.encode(), SCENE_BYTES) if digest_of(c) == get.digest)
        chunk = Chunk(lease=get.lease, epoch=get.epoch, digest=get.digest, offset=get.offset)
        peer = next((peer for peer, lease in self.leases.items() if lease == get.lease), PEERS[0])
        self.say(peer, chunk, (content[get.offset : get.offset + get.n],))

    @precondition(lambda self: self.store)
    @rule(good=st.integers(0, 5))
    def store_answers(self, good):
        self.store_answer(good > 0)

    def store_answer(self, good):
        command = self.store.pop(0)
        if not good:
            self.do(AssetRefused(command.epoch, "no"))
        elif isinstance(command, OpenManifest):
            self.do(ManifestOpened(command.epoch, MANIFEST))
        else:
            self.do(AssetSealed(command.epoch, command.digest))

    @precondition(lambda self: self.preparing)
    @rule(good=st.integers(0, 5))
    def preparation_ends(self, good):
        epoch = self.preparing.pop(0)
        self.do(ScenePrepared(epoch) if good else PreparationFailed(epoch, "bad", fatal=True))

    @rule()
    def kernels_warmed(self):
        self.do(KernelsWarmed())

    @precondition(lambda self: self.state.holder)
    @rule(epoch=epochs)
    def frame_becomes_ready(self, epoch):
        """The way that most frames go, in one step."""
        peer = self.state.holder.peer
        self.setup_frame(peer, epoch)
        for get in self.wanted:
            if get.epoch == epoch and get.lease == self.leases[peer] and self.state.holder:
                self.answer(get)
                while self.store:
                    self.store_answer(True)
        self.wanted = []
        self.preparing = []
        self.do(KernelsWarmed())
        self.do(ScenePrepared(epoch))

    @precondition(lambda self: self.ready_epochs())
    @rule(data=st.data(), count=st.integers(1, 4))
    def buckets(self, data, count):
        self.send_buckets(data.draw(st.sampled_from(self.ready_epochs())), count)

    def send_buckets(self, epoch, count):
        peer = self.state.holder.peer
        works = [bucket_work(i, x=16 * (i % 4)) for i in range(count)]
        self.say(peer, Bucket(lease=self.lease(peer), epoch=epoch, buckets=works))

    @rule(peer=peers, epoch=epochs, numbers=st.lists(st.integers(0, 4)))
    def cancel(self, peer, epoch, numbers):
        self.say(peer, Cancel(lease=self.lease(peer), epoch=epoch, buckets=numbers))

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), outcome=outcomes)
    def thread_ends(self, data, outcome):
        thread = data.draw(st.sampled_from(sorted(self.jobs)))
        job = self.jobs.pop(thread)
        if outcome == "tile":
            self.do(TileRendered(thread, job.epoch, job.bucket, 0.1, (b"pixels",)))
        elif outcome == "failed":
            self.do(BucketFailed(thread, job.epoch, job.bucket, "boom"))
        elif thread in self.stopped:
            self.do(BucketStopped(thread, job.epoch, job.bucket))
        else:
            self.jobs[thread] = job

    @rule(seconds=st.floats(0.0, 1.0))
    def everybody_pings(self, seconds):
        self.time_passes(seconds)
        for peer in PEERS:
            self.say(peer, Ping(n=1))

    @rule(peer=peers, how=st.sampled_from(["bye", "nonsense", "revoked", "vanish", "silence"]))
    def something_ends(self, peer, how):
        """One rule for all that costs a lease, so that most runs get far."""
        if how == "bye":
            self.say(peer, Bye(lease=self.lease(peer)))
        elif how == "nonsense":
            self.do(MessageRefused(peer, "nonsense"))
        elif how == "revoked":
            self.do(PeerRevoked(peer, "key"))
            assert peer not in self.state.clients()
        elif how == "vanish":
            self.do(PeerUnreachable(peer))
        else:
            self.time_passes(3.5)
        if how != "silence":
            self.leases.pop(peer, None)

    def time_passes(self, seconds):
        end = self.now + seconds
        while (deadline := self.state.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.act(self.state.tick(self.now))
            after = self.state.next_deadline()
            assert after is None or after > deadline, "a tick moves its deadline"
        self.now = end

    def may_end(self):
        """An early end makes a short run, so it is worth it only while somebody holds the server."""
        return self.now >= (self.end_s if self.state.holder else 20.0)

    @precondition(may_end)
    @rule(
        orders=st.lists(ORDERS, min_size=1, max_size=3),
        count=st.integers(0, 3),
        waits=st.booleans(),
        left=st.booleans(),
    )
    def the_end_is_asked_for(self, orders, count, waits, left):
        """By a signal, the parent, the holder, or several; with buckets running and clients waiting, or not."""
        for epoch in self.ready_epochs()[:1]:
            self.send_buckets(epoch, count)
        for peer in PEERS if waits else ():
            self.hello(peer, True)
        for order in orders:
            order(self)
        if left and self.state.holder:
            self.say(peer := self.state.holder.peer, Bye(lease=self.leases.pop(peer)))

    def stop(self, at_once=False):
        hurries = at_once or self.stopping
        self.stopping = self.stopping or self.exit_status is None
        self.do(StopRequested("test", at_once))
        assert self.exit_status is not None or not hurries

    def restart(self):
        self.restart_due = self.restart_due or (self.supervised and not self.stopping)
        self.do(RestartRequested("test"))

    def leave_and_restart(self):
        if self.state.holder:
            peer = self.state.holder.peer
            self.restart_due = self.restart_due or (self.supervised and not self.stopping)
            self.say(peer, Bye(lease=self.leases.pop(peer), restart=True))
            assert self.state.holder is None or self.state.holder.peer != peer

    @invariant()
    def the_state_is_possible(self):
        self.state.check()

    @invariant()
    def the_last_report_is_true(self):
        holder = self.state.holder
        if self.state.ending or self.state.work.threads.all_stuck:
            state = Availability.DRAINING
        else:
            state = Availability.BUSY if holder else Availability.READY
        assert self.reported == Report(state, holder.peer.decode() if holder else "")

    @invariant()
    def it_leaves_when_it_should_and_with_the_right_status(self):
        if self.exit_status is not None:
            assert self.exit_status == (RESTART_STATUS if self.restart_due and not self.stopping else 0)
            assert self.state.holder is None
        elif self.restart_due or self.stopping:
            assert self.state.holder is not None or self.now < self.state.ending.dismissed_s + RECEIPT_S

    @invariant()
    def clients_reckon_with_the_threads_that_are_left(self):
        threads = self.state.work.threads
        assert all(not threads.running[thread].wanted for thread in threads.stuck)
        assert not threads.all_stuck or self.supervised or not (self.state.holder or self.state.waiters)

    @invariant()
    def threads_agree(self):
        assert set(self.jobs) == set(self.state.work.threads.running)
        assert self.stopped & set(self.jobs) >= {t for t, r in self.state.work.threads.running.items() if not r.wanted}

    def teardown(self):
        """Whatever happened: when all fall silent, the server is free and every thread can be had again."""
        self.time_passes(40.0)
        for thread, job in list(self.jobs.items()):
            self.jobs.pop(thread)
            self.do(TileRendered(thread, job.epoch, job.bucket, 0.1))
        assert self.exit_status is not None or not (self.stopping or self.restart_due)
        assert self.state.holder is None
        assert not self.state.work.frames
        assert sorted(self.state.work.threads.idle) == [0, 1]


TestServer = Server.TestCase
TestServer.settings = settings(max_examples=200, stateful_step_count=80, deadline=None, derandomize=True)
