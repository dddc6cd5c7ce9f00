"""How the command line is spelt."""

from __future__ import annotations

import pytest

from dr.cli.words import double_dashes, parse_bucket_size, parse_region, parse_size
from dr.errors import BadInput
from dr.scene.model import Region

OPTIONS = frozenset({"port", "threads"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["serve", "-port=30000"], ["serve", "--port=30000"]),
        (["serve", "-port", "30000"], ["serve", "--port", "30000"]),
        (["serve", "--port=1"], ["serve", "--port=1"]),
        (["render", "-q", "-o", "a.exr"], ["render", "-q", "-o", "a.exr"]),
        (["render", "--exposure", "-0.5"], ["render", "--exposure", "-0.5"]),
        (["render", "-qv"], ["render", "-qv"]),
        (["serve", "--", "-port=1"], ["serve", "--", "-port=1"]),
    ],
)
def test_one_dash_before_a_long_option_is_enough(words: list[str], expected: list[str]) -> None:
    assert double_dashes(words, OPTIONS) == expected


def test_a_size_is_two_numbers_with_an_x() -> None:
    assert parse_size("1920x1080") == (1920, 1080)


@pytest.mark.parametrize("text", ["", "1920", "0x5", "axb", "1x2x3", "-1x5", "1.5x2"])
def test_another_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"--size: expected WIDTHxHEIGHT .* found"):
        parse_size(text)


def test_a_region_is_four_numbers() -> None:
    assert parse_region("100,50,320,240") == Region(100, 50, 320, 240)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,0,4", "a,b,c,d", "1,2,3,-4"])
def test_another_region_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match="--region: expected X,Y,WIDTH,HEIGHT"):
        parse_region(text)


def test_a_bucket_size_is_a_number_or_auto() -> None:
    assert (parse_bucket_size("auto"), parse_bucket_size("48")) == (0, 48)


@pytest.mark.parametrize("text", ["0", "1025", "big", "-3", ""])
def test_another_bucket_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match="--bucket-size: expected auto or"):
        parse_bucket_size(text)
