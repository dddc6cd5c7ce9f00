"""What libzmq is told when it asks about a key, and what anything else is told."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zmq.utils import z85

from dr.errors import Impossible
from dr.keys.zap import DOMAIN, ENDPOINT, LOG_S, REQUESTS_PER_TURN, Zap
from tests.support.keys import pair_of

ANNA, BERT = pair_of("anna"), pair_of("bert")
ANNA_BYTES, BERT_BYTES = z85.decode(ANNA.public), z85.decode(BERT.public)
ACCEPTED = [b"", b"1.0", b"7", b"200", b"", ANNA.public.encode(), b""]
REJECTED = [b"", b"1.0", b"7", b"400", b"this key is not admitted", b"", b""]


class Asker:
    """Speaks to the handler as libzmq does, or as it never would."""

    def __init__(self) -> None:
        self.context = zmq.Context()
        self.zap = Zap(self.context, {ANNA.public: ANNA.public}.get)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(ENDPOINT)

    def ask(self, *frames: bytes, now: float = 0.0) -> list[bytes] | None:
        """An inproc message is there at once, on both ways, because the handler was bound first."""
        self.socket.send_multipart(frames)
        self.zap.answer(now)
        return self.socket.recv_multipart() if self.socket.poll(0) else None

    def close(self) -> None:
        self.socket.close(0)
        self.zap.close()
        self.context.term()


@pytest.fixture
def asker() -> Iterator[Asker]:
    asker = Asker()
    yield asker
    asker.close()


def request(key: bytes = ANNA_BYTES, mechanism: bytes = b"CURVE", domain: bytes = DOMAIN) -> list[bytes]:
    return [b"", b"1.0", b"7", domain, b"127.0.0.1", b"", mechanism, key]


def test_an_admitted_key_may_enter_and_its_messages_carry_its_user_id(asker: Asker) -> None:
    assert asker.ask(*request()) == ACCEPTED


@pytest.mark.parametrize(
    "frames",
    [
        request(BERT_BYTES),
        request(ANNA_BYTES[:-1]),
        request(ANNA_BYTES + b"\0"),
        request(ANNA.public.encode()),
        request(b""),
        request(mechanism=b"NULL"),
        request(mechanism=b"PLAIN"),
        request(mechanism=b"curve"),
        request(domain=b""),
        request(domain=b"another"),
        request()[:-1],
        request()[:4],
        [*request(), b"more"],
        [*request(mechanism=b"PLAIN"), b"password"],
    ],
)
def test_whatever_else_asks_is_refused_for_good(asker: Asker, frames: list[bytes]) -> None:
    assert asker.ask(*frames) == REJECTED


@pytest.mark.parametrize(
    "frames",
    [[b""], [b"", b""], [b"", b"1.0"], request()[1:], [b"x", *request()], [b"", b"2.0", *request()[2:]]],
    ids=["empty", "two", "no request id", "no delimiter", "no first delimiter", "another version"],
)
def test_what_is_no_request_is_dropped_and_the_next_one_is_answered(asker: Asker, frames: list[bytes]) -> None:
    assert asker.ask(*frames) is None
    assert asker.ask(*request()) == ACCEPTED


def test_any_frames_at_all_do_no_harm_and_open_no_door() -> None:
    asker = Asker()
    frame = st.binary(max_size=40) | st.sampled_from([*request(), BERT_BYTES, b"x" * 256])

    @settings(max_examples=500, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(frame, min_size=1, max_size=12))
    def ask(frames: list[bytes]) -> None:
        answer = asker.ask(*frames)
        honest = len(frames) == 8 and frames[:2] == [b"", b"1.0"] and frames[3] == DOMAIN
        if answer and answer[3] != b"400":
            assert honest
            assert (frames[6], frames[7]) == (b"CURVE", ANNA_BYTES)
        assert asker.ask(*request()) == ACCEPTED

    ask()
    asker.close()


def test_a_flood_of_requests_leaves_the_loop_its_turns(asker: Asker) -> None:
    for _ in range(REQUESTS_PER_TURN + 1):
        asker.socket.send_multipart(request())
    answers = []
    for _ in range(2):
        asker.zap.answer(0.0)
        answers.append(0)
        while asker.socket.poll(0):
            assert asker.socket.recv_multipart() == ACCEPTED
            answers[-1] += 1
    assert answers == [REQUESTS_PER_TURN, 1]


def test_an_asker_that_is_gone_does_no_harm(asker: Asker) -> None:
    asker.socket.send_multipart(request())
    asker.socket.close(0)
    asker.zap.answer(0.0)
    asker.socket = asker.context.socket(zmq.DEALER)
    asker.socket.connect(ENDPOINT)
    assert asker.ask(*request()) == ACCEPTED


def test_a_context_has_one_handler(asker: Asker) -> None:
    with pytest.raises(Impossible, match="expected the only handler of this context"):
        Zap(asker.context, lambda public: public)
    assert asker.ask(*request()) == ACCEPTED


def test_refused_keys_are_named_in_the_log_but_cannot_flood_it(asker: Asker, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dr.keys"):
        for now in (0.0, 0.1, 0.2, LOG_S, LOG_S + 0.1):
            asker.ask(*request(BERT_BYTES), now=now)
        asker.ask(*request(), now=5 * LOG_S)
    line = f"refused the key {BERT.public} from 127.0.0.1"
    assert caplog.messages == [line, f"{line} (2 more since the last such line)"]
