"""View transforms against formulas and published numbers."""

from __future__ import annotations

import numpy as np
import pytest

from dr.errors import BadInput
from dr.image.display import VIEWS, check_view, to_bytes, to_display
from dr.scene.model import F32, ViewSettings

OCIO_ERROR = 2e-5  # OpenColorIO approximates logarithm and power in single precision; far below half of 1/255
HALF_STEP = 0.5 / 255


def grey(values: list[float] | F32) -> F32:
    """A picture of one row."""
    return np.repeat(np.array(values, np.float32)[None, :, None], 3, axis=2)


def shown(values: list[float] | F32, view: str, exposure: float = 0.0) -> F32:
    return to_display(grey(values), ViewSettings(view_transform=view, exposure=exposure))


def srgb(linear: F32) -> F32:
    """IEC 61966-2-1."""
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def test_standard_is_the_srgb_curve() -> None:
    linear = np.linspace(0, 1, 1001, dtype=np.float32)
    assert np.allclose(shown(linear, "Standard")[0], srgb(linear)[:, None], rtol=0, atol=OCIO_ERROR)


def test_standard_keeps_every_primary_apart() -> None:
    picture = np.eye(3, dtype=np.float32)[None]
    assert np.allclose(to_display(picture, ViewSettings()), picture, rtol=0, atol=HALF_STEP)


def test_raw_shows_the_numbers_themselves() -> None:
    assert np.array_equal(shown([0, 0.25, 1], "Raw")[0, :, 0], np.array([0, 0.25, 1], np.float32))


def test_aces_2_rises_from_black_to_white_without_clipping_below_100_times_white() -> None:
    curve = shown(np.geomspace(1e-3, 64, 200, dtype=np.float32), "ACES 2.0")[0, :, 1]
    assert (np.diff(curve) > 0).all()
    assert shown([0], "ACES 2.0")[0, 0, 0] == 0
    assert curve[-1] < 1


def test_aces_2_shows_mid_grey_at_10_nits_of_100() -> None:
    """The tone scale maps scene 0.18 to 10 nits (ACES 2.0, c_t of the Daniele curve at 100 nits: 0.10013 of peak)."""
    value = shown([0.18], "ACES 2.0")[0, 0, 1]
    assert value == pytest.approx(float(srgb(np.float32(0.10))), abs=HALF_STEP)


def test_aces_2_keeps_grey_grey() -> None:
    display = shown([0.01, 0.18, 1, 10], "ACES 2.0")[0]
    assert np.abs(display - display.mean(axis=1, keepdims=True)).max() < HALF_STEP


@pytest.mark.parametrize("view", VIEWS)
def test_one_stop_doubles_the_light(view: str) -> None:
    assert np.array_equal(shown([0.1, 0.3], view, exposure=1.0), shown([0.2, 0.6], view))


@pytest.mark.parametrize("view", VIEWS)
def test_what_is_no_number_is_black_and_infinite_light_is_white(view: str) -> None:
    display = shown([np.nan, np.inf, -1], view)[0, :, 0]
    assert display == pytest.approx([0, 1, 0], abs=HALF_STEP)


@pytest.mark.parametrize("view", VIEWS)
def test_the_given_picture_stays_as_it_is(view: str) -> None:
    picture = grey([0.1, 5])
    to_display(picture, ViewSettings(view_transform=view))
    assert np.array_equal(picture, grey([0.1, 5]))


def test_8_bits_are_the_nearest() -> None:
    steps = np.arange(256, dtype=np.float32) / 255
    assert np.array_equal(to_bytes(steps), np.arange(256))
    assert np.array_equal(to_bytes(steps[1:] - np.float32(0.49 / 255)), np.arange(1, 256))


def test_names_are_found_whatever_their_case() -> None:
    assert [check_view(name) for name in ("standard", "aces 2.0", " RAW ")] == ["Standard", "ACES 2.0", "Raw"]


def test_an_unknown_name_lists_what_there_is_and_what_was_meant() -> None:
    with pytest.raises(
        BadInput, match=r"one of Standard, ACES 2\.0, Raw, found 'ACES2' \(did you mean 'ACES 2\.0'\?\)"
    ):
        check_view("ACES2")
