"""How often something happened lately, on a simulated clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.server.rate import LATELY_S, Rate


def test_a_steady_stream_is_known_after_a_while():
    rate = Rate()
    for i in range(400):
        rate.add(i * 0.1)
    assert rate.per_s(39.9) == pytest.approx(10.0, rel=0.02)


def test_it_falls_to_nothing_when_nothing_happens():
    rate = Rate()
    for i in range(1000):
        rate.add(i * 0.001)
    assert rate.per_s(1.0 + LATELY_S) == pytest.approx(rate.per_s(1.0) / 2.71828, rel=0.01)
    assert rate.per_s(61.0) == 0.0


@given(st.lists(st.floats(0.0, 3.0), max_size=50), st.floats(0.0, 100.0))
def test_it_is_never_negative_never_more_than_all_at_once_and_only_falls_by_itself(pauses, wait_s):
    rate, now = Rate(), 0.0
    for pause in pauses:
        now += pause
        rate.add(now)
    assert 0.0 <= rate.per_s(now + wait_s) <= rate.per_s(now) <= len(pauses) / LATELY_S * (1 + 1e-9)
