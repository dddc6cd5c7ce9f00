"""Half a minute of churn: as many servers, faults and frames as fit into it, with dice of the day.

`python -m tests.support.churn` plays ten million events of it.
"""

from __future__ import annotations

import os
import time
from random import Random

import pytest

from tests.support.churn import Tally, play, small_shape
from tests.support.churn_farm import Shape

CI_S = 30.0
CROWD = Shape(events=100_000, buckets=(200, 2000), check_every=1000)


@pytest.mark.slow
def test_churn_loses_no_pixel_and_comes_to_an_end() -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance, tally, began = Random(seed), Tally(), time.monotonic()
    while time.monotonic() < began + CI_S / 2:
        play(chance.getrandbits(32), small_shape(chance), chance.choice((9, 20, 45)), tally, began + CI_S / 2)
    play(chance.getrandbits(32), CROWD, 100, tally, began + CI_S)
    print(tally)
    assert tally.frames > 0


def test_a_seed_plays_the_same_farm_again() -> None:
    one, other = Tally(), Tally()
    for tally in (one, other):
        play(11, Shape(events=3000, buckets=(8, 60), check_every=10), 9, tally)
    assert one == other
    assert one.faults
