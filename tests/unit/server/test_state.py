"""Leases: who holds a server, who waits, and what ends a hold."""

import pytest

from dr.errors import Impossible
from dr.protocol.messages import (
    Availability,
    Beat,
    Bye,
    Drain,
    ErrorMessage,
    Grant,
    Kind,
    NoLease,
    Ping,
    Pong,
    ServerStatus,
    Tile,
    Welcome,
)
from tests.support.serving import (
    CLIENT,
    OTHER,
    THIRD,
    bucket_work,
    fresh_state,
    hello,
    lines,
    make_ready,
    manifest_of,
    said,
    send_buckets,
    setup_of,
    take_lease,
)
from workers.server.commands import (
    DropFrame,
    Exit,
    ForgetPeer,
    Log,
    RenderBucket,
    Report,
    Send,
    SendStatus,
    StopThread,
)
from workers.server.events import (
    BucketStopped,
    MessageArrived,
    MessageRefused,
    PeerRevoked,
    PeerUnreachable,
    RestartRequested,
    StopRequested,
    TileRendered,
)
from workers.server.state import RECEIPT_S
from workers.server.words import RESTART_STATUS
from workers.server.work import Limits

READY, BUSY, DRAINING = Availability.READY, Availability.BUSY, Availability.DRAINING


def reports(commands):
    return [command for command in commands if isinstance(command, Report)]


def statuses(commands, peer=OTHER):
    return [c.status for c in commands if isinstance(c, SendStatus) and c.peer == peer]


def ends(commands):
    return [command for command in commands if isinstance(command, StopThread | Exit)]


def test_a_free_server_welcomes_and_grants():
    state = fresh_state(threads=3)
    commands = state.handle(MessageArrived(CLIENT, hello()), 0.0)
    (welcome,) = said(commands, Welcome)
    (grant,) = said(commands, Grant)
    assert (welcome.name, welcome.threads, welcome.busy, welcome.holder, welcome.queue_pos) == (
        "vault",
        3,
        False,
        "",
        0,
    )
    assert grant.threads == 3
    assert len(grant.lease) == 8


def test_a_hello_without_a_wish_gets_a_welcome_only():
    state = fresh_state()
    commands = state.handle(MessageArrived(CLIENT, hello(want=False)), 0.0)
    assert len(said(commands, Welcome)) == len(commands) == 1
    assert state.holder is None


def test_a_second_client_is_told_who_holds_the_server_and_where_it_stands():
    state = fresh_state()
    take_lease(state, name="ada")
    places = []
    for peer in (OTHER, THIRD):
        (welcome,) = said(state.handle(MessageArrived(peer, hello(name="bob")), 0.1), Welcome, peer)
        places.append((welcome.busy, welcome.holder, welcome.queue_pos))
    assert places == [(True, "ada", 1), (True, "ada", 2)]


def test_bye_hands_the_server_to_the_first_who_waits():
    state = fresh_state()
    lease = take_lease(state)
    for peer in (OTHER, THIRD):
        state.handle(MessageArrived(peer, hello()), 0.0)
    commands = state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 0.1)
    (grant,) = said(commands, Grant, OTHER)
    assert not said(commands, Grant, THIRD)
    assert grant.lease != lease
    assert ForgetPeer(CLIENT) in commands


def test_leases_differ_and_hang_on_the_seed():
    leases = set()
    for _ in range(2):
        state = fresh_state()
        for _ in range(3):
            lease = take_lease(state)
            leases.add(lease)
            state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 0.0)
    assert len(leases) == 3


def test_a_wrong_lease_is_answered_nolease_and_changes_nothing():
    state = fresh_state()
    lease = take_lease(state)
    for peer, wrong in ((CLIENT, b"notright"), (OTHER, lease)):
        for message in (Bye(lease=wrong), setup_of(wrong, manifest_of({"scene.json": b""}))):
            assert said(state.handle(MessageArrived(peer, message), 0.0), NoLease, peer) == [NoLease()]
    assert state.holder is not None
    assert state.holder.lease == lease


def test_a_holder_that_says_hello_again_keeps_its_lease():
    state = fresh_state()
    lease = take_lease(state)
    (grant,) = said(state.handle(MessageArrived(CLIENT, hello()), 0.5), Grant)
    assert grant.lease == lease


@pytest.mark.parametrize(
    ("strange", "code", "words"),
    [({"version": 2}, "version", ["1", "2"]), ({"kernels": "others"}, "kernels", ["kernels-digest", "others"])],
)
def test_another_version_is_refused_by_name(strange, code, words):
    state = fresh_state()
    commands = state.handle(MessageArrived(CLIENT, hello(**strange)), 0.0)
    (error,) = said(commands, ErrorMessage)
    assert error.code == code
    assert all(word in error.text for word in words)
    assert state.holder is None


def test_the_queue_of_waiters_is_bounded():
    state = fresh_state(limits=Limits(waiters=1))
    take_lease(state)
    assert not said(state.handle(MessageArrived(OTHER, hello()), 0.0), ErrorMessage, OTHER)
    (error,) = said(state.handle(MessageArrived(THIRD, hello()), 0.0), ErrorMessage, THIRD)
    assert error.code == "queue"
    assert list(state.waiters) == [OTHER]


def test_a_server_without_a_queue_is_had_by_who_need_not_wait():
    state = fresh_state(limits=Limits(waiters=0))
    lease = take_lease(state)
    (error,) = said(state.handle(MessageArrived(OTHER, hello()), 0.0), ErrorMessage, OTHER)
    assert error.code == "queue"
    state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 0.1)
    assert take_lease(state, OTHER)


def test_a_full_queue_does_not_keep_the_holder_from_its_lease():
    state = fresh_state(limits=Limits(waiters=1))
    lease = take_lease(state)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    assert said(state.handle(MessageArrived(CLIENT, hello()), 0.1), Grant) == [Grant(lease=lease, threads=2)]
    assert not said(state.handle(MessageArrived(OTHER, hello()), 0.1), ErrorMessage, OTHER), "it waits already"


def test_silence_of_three_seconds_ends_the_lease():
    state = fresh_state()
    lease = take_lease(state)
    make_ready(state, lease)
    state.handle(MessageArrived(OTHER, hello()), 2.0)
    state.tick(2.99)
    assert state.holder is not None
    commands = state.tick(3.0)
    assert said(commands, NoLease) == [NoLease()]
    assert len(said(commands, Grant, OTHER)) == 1
    assert DropFrame(1) in commands


def test_any_word_of_the_holder_counts_as_life():
    state = fresh_state()
    lease = take_lease(state)
    make_ready(state, lease)
    for second in range(1, 10):
        assert said(state.handle(MessageArrived(CLIENT, Ping(n=second)), float(second)), Pong) == [Pong(n=second)]
        assert not said(state.tick(second + 0.9), NoLease)


def test_a_lease_without_a_frame_ends_after_thirty_seconds():
    state = fresh_state()
    take_lease(state)
    for second in range(1, 30):
        state.handle(MessageArrived(CLIENT, Ping(n=0)), float(second))
    state.tick(29.9)
    assert state.holder is not None
    state.handle(MessageArrived(CLIENT, Ping(n=0)), 29.95)
    assert said(state.tick(30.0), NoLease) == [NoLease()]
    assert state.holder is None


def test_a_silent_waiter_loses_its_place():
    state = fresh_state()
    lease = take_lease(state)
    make_ready(state, lease)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    state.handle(MessageArrived(THIRD, hello()), 1.0)
    state.handle(MessageArrived(CLIENT, Ping(n=0)), 2.0)
    (error,) = said(state.tick(3.0), ErrorMessage, OTHER)
    assert error.code == "silent", "else its pings would be answered, and it would wait for ever"
    assert list(state.waiters) == [THIRD]


def test_an_unreachable_holder_is_gone_at_once():
    state = fresh_state()
    take_lease(state)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    assert len(said(state.handle(PeerUnreachable(CLIENT), 0.25), Grant, OTHER)) == 1


def test_beats_come_every_quarter_second_under_a_lease():
    state = fresh_state(threads=1)
    assert state.next_deadline() is None
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1), bucket_work(2), bucket_work(3))
    assert state.next_deadline() == 0.25
    assert said(state.tick(0.25), Beat) == [Beat(lease=lease, queued=2, running=1)]
    assert state.next_deadline() == 0.5


def test_whoever_breaks_the_protocol_loses_what_it_holds():
    state = fresh_state()
    take_lease(state)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    commands = state.handle(MessageRefused(CLIENT, "nonsense"), 0.1)
    assert said(commands, ErrorMessage) == [ErrorMessage(code="protocol", text="nonsense")]
    assert len(said(commands, Grant, OTHER)) == 1


# -- keys ---------------------------------------------------------------------------------------------------------


def arrived(peer, message, key):
    return MessageArrived(peer, message, (), key)


def test_the_keys_of_holder_and_waiters_are_known():
    state = fresh_state()
    assert state.clients() == {}
    for peer, key in ((CLIENT, "key of ada"), (OTHER, "key of bob"), (THIRD, "")):
        state.handle(arrived(peer, hello(), key), 0.0)
    assert state.clients() == {CLIENT: "key of ada", OTHER: "key of bob", THIRD: ""}
    state.handle(PeerUnreachable(CLIENT), 0.1)
    assert state.clients() == {OTHER: "key of bob", THIRD: ""}
    assert state.holder.peer == OTHER


def test_a_revoked_holder_loses_its_lease_to_the_next_and_hears_why():
    state = fresh_state(threads=1)
    state.handle(arrived(CLIENT, hello(), "KEY"), 0.0)
    lease = state.holder.lease
    state.handle(arrived(OTHER, hello(), "another"), 0.0)
    manifest = manifest_of({"scene.json": b"{}"})
    state.handle(arrived(CLIENT, setup_of(lease, manifest), "KEY"), 0.1)
    commands = state.handle(PeerRevoked(CLIENT, "KEY"), 0.2)
    assert said(commands, ErrorMessage) == [
        ErrorMessage(code="key", text="your key was revoked; ask for `dr keys authorize NAME 'KEY'`")
    ]
    assert DropFrame(1) in commands
    assert commands.index(ForgetPeer(CLIENT)) < commands.index(Send(CLIENT, said(commands, ErrorMessage)[0]))
    assert len(said(commands, Grant, OTHER)) == 1
    assert "lease ended after 0 buckets: its key was revoked" in lines(commands)


def test_a_revoked_waiter_leaves_the_queue():
    state = fresh_state()
    take_lease(state)
    state.handle(arrived(OTHER, hello(), "KEY"), 0.0)
    (error,) = said(state.handle(PeerRevoked(OTHER, "KEY"), 0.1), ErrorMessage, OTHER)
    assert error.code == "key"
    assert not state.waiters
    assert state.holder.peer == CLIENT


def test_a_revoked_stranger_hears_why_and_disturbs_nobody():
    state = fresh_state()
    take_lease(state)
    commands = state.handle(PeerRevoked(OTHER, "KEY"), 0.1)
    assert [error.code for error in said(commands, ErrorMessage, OTHER)] == ["key"]
    assert len(commands) == 1


@pytest.mark.parametrize("message", [hello(), Ping(n=1)])
def test_another_key_with_the_routing_id_of_the_holder_inherits_nothing(message):
    """The holder's connection is gone, which nobody has noticed yet."""
    state = fresh_state()
    state.handle(arrived(CLIENT, hello(), "key of ada"), 0.0)
    lease = state.holder.lease
    commands = state.handle(arrived(CLIENT, message, "key of bob"), 0.1)
    assert lease not in [grant.lease for grant in said(commands, Grant)]
    assert state.clients() == ({CLIENT: "key of bob"} if isinstance(message, type(hello())) else {})


def test_another_key_with_the_routing_id_of_a_waiter_waits_behind_the_others():
    state = fresh_state()
    take_lease(state)
    for peer, key in ((OTHER, "key of ada"), (THIRD, "key of eve"), (OTHER, "key of bob")):
        commands = state.handle(arrived(peer, hello(), key), 0.1)
    assert said(commands, Welcome, OTHER)[0].queue_pos == 2
    assert list(state.waiters) == [THIRD, OTHER]


def test_a_stranger_that_breaks_the_protocol_disturbs_nobody():
    state = fresh_state()
    lease = take_lease(state)
    state.handle(MessageRefused(OTHER, "nonsense"), 0.1)
    assert state.holder is not None
    assert state.holder.lease == lease


def test_an_idle_server_that_is_told_to_stop_exits_at_once():
    assert fresh_state().handle(StopRequested("SIGTERM"), 0.0) == [Log("stop: SIGTERM"), Report(DRAINING, ""), Exit(0)]


def test_a_stopping_server_finishes_what_runs_and_takes_nothing_new():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    (order,) = [c for c in send_buckets(state, lease, bucket_work(1), bucket_work(2)) if isinstance(c, RenderBucket)]
    commands = state.handle(StopRequested("signal"), 1.0)
    assert said(commands, Drain) == [Drain(lease=lease)]
    assert said(commands, ErrorMessage, OTHER)[0].code == "draining"
    assert send_buckets(state, lease, bucket_work(3), now=1.1) == []
    assert not ends(state.handle(BucketStopped(order.thread, 1, order.bucket), 1.2)), "its last words are on their way"
    assert not ends(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 1.3)), "and those to who waited"
    assert ends(state.tick(1.0 + RECEIPT_S)) == [Exit(0)]


def test_a_stopping_server_waits_for_running_buckets_but_not_for_ever():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    state.handle(StopRequested("signal"), 1.0)
    assert state.next_deadline() == 0.25  # a beat is overdue; the stop itself is due after drain_s, at 5
    commands = state.tick(5.0)
    assert ends(commands) == [StopThread(0), Exit(0)]


@pytest.mark.parametrize(
    "orders",
    [[StopRequested("SIGTERM"), StopRequested("SIGINT")], [StopRequested("the parent process is gone", at_once=True)]],
)
def test_a_server_that_must_go_at_once_says_so_and_goes(orders):
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    commands = [command for order in orders for command in state.handle(order, 1.0)]
    assert said(commands, Drain) == [Drain(lease=lease)]
    assert ends(commands) == [StopThread(0), Exit(0)]
    assert lines(commands)[-2:] == [
        f"stop at once: {orders[-1].reason}",
        "lease ended after 0 buckets: this server leaves",
    ]
    assert state.handle(StopRequested("SIGTERM"), 1.1) == []


def render_while_stopping(state):
    """A bucket that runs when the server is told to stop, at 1.0, and is done at 1.5."""
    lease = take_lease(state)
    make_ready(state, lease)
    (order,) = [c for c in send_buckets(state, lease, bucket_work(1)) if isinstance(c, RenderBucket)]
    assert not ends(state.handle(StopRequested("SIGTERM"), 1.0))
    commands = state.handle(TileRendered(order.thread, 1, order.bucket, 0.1, (b"pixels",)), 1.5)
    assert len(said(commands, Tile)) == 1
    assert not ends(commands)
    return lease


def test_a_stopping_server_stays_until_its_last_tile_has_had_time_to_arrive():
    state = fresh_state(threads=1, limits=Limits(dead_s=100.0))
    render_while_stopping(state)
    assert not ends(state.tick(1.5 + 0.99 * RECEIPT_S))
    commands = state.tick(1.5 + RECEIPT_S)
    assert ends(commands) == [Exit(0)]
    assert ForgetPeer(CLIENT) not in commands, "what waits for a slow client is still sent"


def test_a_client_that_says_bye_has_its_last_tile():
    state = fresh_state(threads=1)
    lease = render_while_stopping(state)
    assert ends(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 1.6)) == [Exit(0)]


def test_the_way_of_the_last_tile_does_not_keep_a_server_longer_than_it_may_drain():
    state = fresh_state(threads=1, limits=Limits(drain_s=0.6))
    render_while_stopping(state)
    assert ends(state.tick(1.6)) == [Exit(0)]


# -- what the parent hears ----------------------------------------------------------------------------------------


def test_the_first_answer_reports_a_free_server():
    state = fresh_state(threads=0)
    assert state.tick(0.0) == [Report(READY, "")]
    assert state.tick(0.0) == []


def test_each_change_of_holder_is_reported_once():
    state = fresh_state()
    heard = []
    heard += reports(state.handle(MessageArrived(CLIENT, hello(name="ada")), 0.0))
    heard += reports(state.handle(MessageArrived(OTHER, hello(name="bob")), 0.1))
    heard += reports(state.handle(MessageArrived(CLIENT, Bye(lease=state.holder.lease)), 0.2))
    heard += reports(state.handle(PeerUnreachable(OTHER), 0.3))
    assert heard == [Report(BUSY, "ada"), Report(BUSY, "bob"), Report(READY, "")]


def test_a_draining_server_is_reported_with_its_holder_until_it_has_none():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    assert reports(state.handle(StopRequested("SIGTERM"), 1.0)) == [Report(DRAINING, "ada")]
    last = state.tick(5.0)
    assert last[-2:] == [Report(DRAINING, ""), Exit(0)]


def test_the_log_says_who_got_the_lease_and_how_it_ended():
    state = fresh_state(threads=1)
    said_lines = lines(state.handle(MessageArrived(CLIENT, hello(name="ada")), 0.0))
    lease = state.holder.lease
    make_ready(state, lease)
    (order,) = [c for c in send_buckets(state, lease, bucket_work(1)) if isinstance(c, RenderBucket)]
    state.handle(TileRendered(order.thread, 1, order.bucket, 0.1, (b"pixels",)), 0.5)
    said_lines += lines(state.tick(3.0))
    assert said_lines == ["lease given to ada", "lease ended after 1 bucket: no word for 3 s"]


# -- who watches --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strange", [{}, {"version": 7}, {"kernels": "others"}, {"want": True}])
def test_whoever_asks_for_the_status_gets_it_and_nothing_else(strange):
    state = fresh_state(nodes=(2, 3), release="0.1.0", announce=20205, siblings=(20206,))
    for _ in range(2):
        commands = state.handle(MessageArrived(OTHER, hello(kind=Kind.STATUS, **{"want": False, **strange})), 0.0)
        (welcome,) = said(commands, Welcome, OTHER)
        assert (welcome.announce, welcome.siblings, welcome.queue_pos) == (20205, [20206], 0)
        assert statuses(commands) == [ServerStatus(state=READY, nodes=[2, 3], release="0.1.0")]
        assert len(commands) == 2
    assert state.holder is None
    assert not state.waiters


def test_the_status_tells_who_holds_the_server_and_what_was_rendered_lately():
    state = fresh_state(threads=1, limits=Limits(dead_s=1000.0))
    lease = take_lease(state)
    make_ready(state, lease)
    (order,) = [c for c in send_buckets(state, lease, bucket_work(1)) if isinstance(c, RenderBucket)]
    state.handle(TileRendered(order.thread, 1, order.bucket, 0.1, (b"pixels",)), 1.0)
    ask = MessageArrived(OTHER, hello(want=False, kind=Kind.STATUS))
    (now,) = statuses(state.handle(ask, 1.0))
    assert (now.state, now.holder, now.buckets, now.buckets_per_s) == (BUSY, "ada", 1, 0.2)
    (later,) = statuses(state.handle(ask, 60.0))
    assert (later.buckets, later.buckets_per_s) == (1, 0.0)


def test_a_draining_server_still_tells_its_status():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    state.handle(StopRequested("SIGTERM"), 1.0)
    commands = state.handle(MessageArrived(OTHER, hello(want=False, kind=Kind.STATUS)), 1.1)
    assert [(status.state, status.holder) for status in statuses(commands)] == [(DRAINING, "ada")]


def test_a_client_that_waits_keeps_its_place_when_it_asks_for_the_status():
    state = fresh_state()
    take_lease(state)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    commands = state.handle(MessageArrived(OTHER, hello(want=False, kind=Kind.STATUS)), 0.1)
    assert [welcome.queue_pos for welcome in said(commands, Welcome, OTHER)] == [1]


# -- a fresh process ----------------------------------------------------------------------------------------------


def test_bye_with_restart_ends_a_supervised_server_with_its_own_status():
    state = fresh_state(supervised=True)
    lease = take_lease(state)
    make_ready(state, lease)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    commands = state.handle(MessageArrived(CLIENT, Bye(lease=lease, restart=True)), 0.1)
    assert [error.code for error in said(commands, ErrorMessage, OTHER)] == ["draining"]
    assert not said(commands, Grant, OTHER)
    assert commands[-1] == Report(DRAINING, "")
    assert not ends(state.tick(0.1 + 0.99 * RECEIPT_S)), "who waited shall know why"
    assert state.tick(0.1 + RECEIPT_S) == [Exit(RESTART_STATUS)]


def test_bye_with_restart_is_a_plain_bye_where_nobody_would_start_the_server_again():
    state = fresh_state()
    lease = take_lease(state)
    state.handle(MessageArrived(OTHER, hello()), 0.0)
    commands = state.handle(MessageArrived(CLIENT, Bye(lease=lease, restart=True)), 0.1)
    assert len(said(commands, Grant, OTHER)) == 1
    assert not ends(commands)
    assert lines(commands)[0].startswith("no restart")


def test_a_wrong_lease_cannot_restart_a_server():
    state = fresh_state(supervised=True)
    lease = take_lease(state)
    for peer, wrong in ((OTHER, lease), (CLIENT, b"notright")):
        assert state.handle(MessageArrived(peer, Bye(lease=wrong, restart=True)), 0.1) == [Send(peer, NoLease())]


def test_a_free_server_restarts_at_once_when_its_parent_asks():
    commands = fresh_state(supervised=True).handle(RestartRequested("SIGHUP"), 0.0)
    assert commands == [Log("restart: SIGHUP"), Report(DRAINING, ""), Exit(RESTART_STATUS)]


@pytest.mark.parametrize("end", ["bye", "gone", "silence"])
def test_a_held_server_restarts_when_the_lease_ends_however_it_ends(end):
    state = fresh_state(supervised=True)
    lease = take_lease(state)
    assert state.handle(RestartRequested("SIGHUP"), 0.5) == []
    assert not said(state.handle(MessageArrived(OTHER, hello()), 2.9), ErrorMessage, OTHER), "it waits"
    commands = {
        "bye": lambda: state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 3.0),
        "gone": lambda: state.handle(PeerUnreachable(CLIENT), 3.0),
        "silence": lambda: state.tick(3.0),
    }[end]()
    assert [error.code for error in said(commands, ErrorMessage, OTHER)] == ["draining"]
    assert not ends(commands)
    assert ends(state.tick(3.0 + RECEIPT_S)) == [Exit(RESTART_STATUS)]


def test_a_stop_wins_over_a_restart_that_waits():
    state = fresh_state(supervised=True)
    take_lease(state)
    state.handle(RestartRequested("SIGHUP"), 0.5)
    assert said(state.handle(StopRequested("SIGTERM"), 0.6), Drain)
    assert ends(state.handle(PeerUnreachable(CLIENT), 0.7)) == [Exit(0)]


def test_a_restart_does_not_bring_back_a_server_that_stops():
    state = fresh_state(threads=1, supervised=True)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    state.handle(StopRequested("SIGTERM"), 1.0)
    assert state.handle(RestartRequested("SIGHUP"), 1.1) == []
    commands = state.handle(MessageArrived(CLIENT, Bye(lease=lease, restart=True)), 1.2)
    assert ends(commands) == [StopThread(0), Exit(0)]


def test_an_impossible_state_is_found():
    state = fresh_state()
    state.check()
    state.waiters[OTHER] = None
    with pytest.raises(Impossible, match="a free server has no waiters"):
        state.check()
