"""Render threads that do not come back from their kernels: what that costs the server, its clients and its parent."""

from dr.protocol.messages import Availability, Bye, Cancel, Drain, ErrorMessage, Grant, Kind, NoLease, Ping, Welcome
from tests.support.serving import (
    CLIENT,
    OTHER,
    THIRD,
    bucket_work,
    fresh_state,
    hello,
    lines,
    make_ready,
    said,
    send_buckets,
    take_lease,
)
from workers.server.commands import Exit, RenderBucket, SendStatus, StopThread
from workers.server.events import BucketStopped, MessageArrived, RestartRequested, TileRendered
from workers.server.state import RECEIPT_S
from workers.server.words import RESTART_STATUS
from workers.server.work import Limits

LIMITS = Limits(stuck_s=10.0, dead_s=1000.0, setup_s=1000.0)
STUCK = "bucket 0 (16x16 at 0,0, samples 0-32) of ada: was to stop 10 s ago, and its kernel goes on: thread {} is stuck"


def hung(threads, count, **identity):
    """A state whose client has cancelled `count` buckets at 0.0 that no thread gives up; its lease, their orders."""
    state = fresh_state(threads, LIMITS, **identity)
    lease = take_lease(state)
    make_ready(state, lease)
    works = [bucket_work(i) for i in range(count)]
    orders = [c for c in send_buckets(state, lease, *works) if isinstance(c, RenderBucket)]
    cancel = Cancel(lease=lease, epoch=1, buckets=list(range(count)))
    commands = state.handle(MessageArrived(CLIENT, cancel), 0.0)
    assert [command for command in commands if isinstance(command, StopThread)] == [
        StopThread(order.thread) for order in orders
    ]
    assert not lines(commands), "nothing has stopped yet"
    return state, lease, orders


def exits(commands):
    return [command.status for command in commands if isinstance(command, Exit)]


def codes(commands, peer=CLIENT):
    return [error.code for error in said(commands, ErrorMessage, peer)]


def test_a_thread_that_does_not_come_back_is_found_when_it_is_due_and_told_once():
    state, _, (order,) = hung(threads=2, count=1)
    assert not lines(state.tick(9.9))
    assert state.work.next_deadline() == 10.0
    assert lines(state.tick(10.0)) == [STUCK.format(order.thread)]
    assert state.work.next_deadline() is None
    assert not lines(state.tick(60.0))
    state.check()


def test_a_thread_that_comes_back_in_time_is_not_stuck():
    state, _, (order,) = hung(threads=1, count=1)
    state.handle(BucketStopped(order.thread, 1, order.bucket), 9.9)
    assert not lines(state.tick(10.0))


def test_others_reckon_with_the_threads_that_are_left():
    state, lease, _ = hung(threads=3, count=2)
    state.tick(10.0)
    (welcome,) = said(state.handle(MessageArrived(OTHER, hello()), 10.0), Welcome, OTHER)
    assert welcome.threads == 1
    (grant,) = said(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 10.1), Grant, OTHER)
    assert grant.threads == 1
    make_ready(state, grant.lease, epoch=2, now=10.2, peer=OTHER)
    commands = send_buckets(state, grant.lease, bucket_work(7), epoch=2, now=10.2, peer=OTHER)
    assert len([command for command in commands if isinstance(command, RenderBucket)]) == 1


def test_a_stuck_thread_that_comes_back_counts_again_and_renders():
    state, _, (order,) = hung(threads=1, count=1)
    state.tick(10.0)
    assert codes(state.handle(MessageArrived(OTHER, hello()), 11.0), OTHER) == ["stuck"]
    commands = state.handle(TileRendered(order.thread, 1, order.bucket, 12.5), 12.5)
    assert lines(commands) == [
        "bucket 0 (16x16 at 0,0, samples 0-32) of ada: stopped after 12.500 s: thread 0 can render again"
    ]
    new = take_lease(state, OTHER, 13.0)
    make_ready(state, new, epoch=2, now=13.0, peer=OTHER)
    commands = send_buckets(state, new, bucket_work(7), epoch=2, now=13.0, peer=OTHER)
    assert len([command for command in commands if isinstance(command, RenderBucket)]) == 1


def test_a_lone_server_without_threads_sends_everybody_away_and_says_why():
    state, lease, _ = hung(threads=2, count=2)
    state.handle(MessageArrived(OTHER, hello()), 9.0)
    commands = state.tick(10.0)
    assert (codes(commands), codes(commands, OTHER)) == (["stuck"], ["stuck"])
    (error,) = said(commands, ErrorMessage)
    assert error.text == "all render threads of vault are stuck in their kernels; restart it"
    assert not said(commands, Grant, OTHER)
    assert lines(commands)[-1] == "lease ended after 0 buckets: all render threads are stuck"
    assert said(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 10.1), NoLease) == [NoLease()]
    late = state.handle(MessageArrived(THIRD, hello()), 11.0)
    assert codes(late, THIRD) == ["stuck"]
    assert [welcome.threads for welcome in said(late, Welcome, THIRD)] == [1], "the least that the protocol can say"
    watched = state.handle(MessageArrived(OTHER, hello(want=False, kind=Kind.STATUS)), 11.0)
    assert [c.status.state for c in watched if isinstance(c, SendStatus)] == [Availability.DRAINING]
    state.check()


def test_a_supervised_server_with_a_stuck_thread_restarts_when_the_lease_ends():
    state, lease, _ = hung(threads=2, count=1, supervised=True)
    assert not exits(state.tick(10.0))
    assert send_buckets(state, lease, bucket_work(5), now=10.1), "it goes on for its client"
    commands = state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 10.2)
    assert lines(commands)[-1] == "restart: a render thread is stuck in its kernel"
    assert exits(commands) == [RESTART_STATUS]


def test_a_supervised_server_without_threads_drains_its_client_and_restarts():
    state, lease, _ = hung(threads=1, count=1, supervised=True)
    state.handle(MessageArrived(OTHER, hello()), 9.0)
    send_buckets(state, lease, bucket_work(5), now=9.0)
    commands = state.tick(10.0)
    assert said(commands, Drain) == [Drain(lease=lease)]
    assert codes(commands, OTHER) == ["draining"]
    assert not exits(state.handle(MessageArrived(CLIENT, Ping(n=1)), 10.5))
    assert exits(state.tick(10.0 + RECEIPT_S)) == [RESTART_STATUS]


def test_a_thread_that_is_stuck_after_the_lease_restarts_a_free_supervised_server_at_once():
    state, lease, _ = hung(threads=2, count=1, supervised=True)
    assert not exits(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 1.0))
    assert exits(state.tick(10.0)) == [RESTART_STATUS]


def test_a_server_that_stops_already_is_not_restarted_for_a_stuck_thread():
    state, lease, _ = hung(threads=2, count=1, supervised=True)
    send_buckets(state, lease, bucket_work(5), now=9.5)
    state.handle(RestartRequested("SIGHUP"), 9.6)
    state.tick(10.0)
    assert exits(state.handle(MessageArrived(CLIENT, Bye(lease=lease)), 10.2)) == [RESTART_STATUS]
    assert not exits(state.tick(20.0)), "a process ends once"
