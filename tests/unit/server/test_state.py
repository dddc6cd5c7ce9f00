"""Leases: who holds a server, who waits, and what ends a hold."""

import pytest

from dr.errors import Impossible
from dr.protocol.messages import (
    Beat,
    Bye,
    Drain,
    ErrorMessage,
    Grant,
    Kind,
    NoLease,
    Ping,
    Pong,
    Welcome,
)
from tests.support.serving import (
    CLIENT,
    OTHER,
    THIRD,
    bucket_work,
    fresh_state,
    hello,
    make_ready,
    manifest_of,
    said,
    send_buckets,
    setup_of,
    take_lease,
)
from workers.server.commands import DropFrame, Exit, ForgetPeer, RenderBucket, StopThread
from workers.server.events import BucketStopped, MessageArrived, MessageRefused, PeerUnreachable, StopRequested
from workers.server.work import Limits


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
    for message in (hello(want=False), hello(kind=Kind.STATUS)):
        commands = state.handle(MessageArrived(CLIENT, message), 0.0)
        assert len(said(commands, Welcome)) == 1
        assert not said(commands, Grant)
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


def test_a_stranger_that_breaks_the_protocol_disturbs_nobody():
    state = fresh_state()
    lease = take_lease(state)
    state.handle(MessageRefused(OTHER, "nonsense"), 0.1)
    assert state.holder is not None
    assert state.holder.lease == lease


def test_an_idle_server_that_is_told_to_stop_exits_at_once():
    assert fresh_state().handle(StopRequested("signal"), 0.0) == [Exit()]


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
    assert Exit() in state.handle(BucketStopped(order.thread, 1, order.bucket), 1.2)


def test_a_stopping_server_waits_for_running_buckets_but_not_for_ever():
    state = fresh_state(threads=1)
    lease = take_lease(state)
    make_ready(state, lease)
    send_buckets(state, lease, bucket_work(1))
    state.handle(StopRequested("signal"), 1.0)
    assert state.next_deadline() == 0.25  # a beat is overdue; the stop itself is due after drain_s, at 5
    commands = state.tick(5.0)
    assert [c for c in commands if isinstance(c, StopThread | Exit)] == [StopThread(0), Exit()]


def test_an_impossible_state_is_found():
    state = fresh_state()
    state.check()
    state.waiters[OTHER] = None
    with pytest.raises(Impossible, match="a free server has no waiters"):
        state.check()
