"""Ranges of frames in a user's words, and the names of their files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.client.frames import MAX_FRAMES, MAX_NUMBER, frame_path, has_number, parse_frames, show_frames
from dr.errors import BadInput

NUMBERS = st.integers(0, MAX_NUMBER)
RANGES = st.builds(
    lambda first, count, step: tuple(range(first, first + count * step, step)),
    st.integers(10_000, 20_000),
    st.integers(1, 50),
    st.integers(-99, 99).filter(bool),
)


@pytest.mark.parametrize(
    ("text", "frames"),
    [
        ("7", (7,)),
        ("1-4", (1, 2, 3, 4)),
        ("1-10x3", (1, 4, 7, 10)),
        ("1-9x3", (1, 4, 7)),
        ("3-1", (3, 2, 1)),
        ("200-190x-5", (200, 195, 190)),
        ("1-5x2,150,200-190x-5", (1, 3, 5, 150, 200, 195, 190)),
        ("5,1-6,5", (5, 1, 2, 3, 4, 6)),
        (" 1 , 2-3 ", (1, 2, 3)),
        ("4-4", (4,)),
        ("0-0x9", (0,)),
        (str(MAX_NUMBER), (MAX_NUMBER,)),
    ],
)
def test_frames_are_read_in_the_order_given_and_each_once(text, frames):
    assert parse_frames(text) == frames


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found ''"),
        ("1,,2", "found ''"),
        ("-5", "expected numbers from 0 and ranges as in 1-100x2,150; found '-5'"),
        ("1-", "found '1-'"),
        ("1--3", "found '1--3'"),
        ("1.5", "found '1.5'"),
        ("a-b", "found 'a-b'"),
        ("1x2", "found '1x2'"),
        ("1-3x", "found '1-3x'"),
        ("1-3y2", "found '1-3y2'"),
        ("\u0663", "expected numbers"),  # a digit to Python, not to us
        ("1-9x0", "expected a step from 1 towards 9, found 0"),
        ("1-9x-2", "expected a step from 1 towards 9, found -2"),
        ("9-1x2", "expected a step from 9 towards 1, found 2"),
        (str(MAX_NUMBER + 1), f"expected numbers up to {MAX_NUMBER}, found {MAX_NUMBER + 1}"),
        ("9" * 5000, "expected numbers"),
        (f"0-{MAX_FRAMES}", "expected at most 1,000,000 frames, found more"),
        (f"1-{MAX_FRAMES},2000000-2000001", "expected at most 1,000,000 frames, found more"),
        (f"0-{MAX_NUMBER}", "expected at most 1,000,000 frames, found more"),
    ],
)
def test_anything_else_is_one_line_of_bad_input(text, message):
    with pytest.raises(BadInput) as caught:
        parse_frames(text)
    line = str(caught.value)
    assert message in line
    assert len(line) < 200
    assert "\n" not in line


def test_a_million_frames_are_allowed():
    assert len(parse_frames(f"1-{MAX_FRAMES}")) == MAX_FRAMES


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((), ""),
        ((1, 2, 3, 7), "1-3,7"),
        ((1, 2), "1,2"),
        ((1, 3, 5, 7, 8, 9), "1-7x2,8,9"),
        ((1, 7, 8, 9), "1,7-9"),
        ((3, 2, 1), "3-1"),
        ((200, 195, 190), "200-190x-5"),
    ],
)
def test_frames_are_shown_as_short_ranges(frames, text):
    assert show_frames(frames) == text


@given(
    frames=st.lists(NUMBERS, unique=True).map(tuple)
    | st.lists(RANGES).map(lambda parts: tuple(dict.fromkeys(sum(parts, ()))))
)
def test_frames_that_are_shown_are_read_back(frames):
    if frames:
        assert parse_frames(show_frames(frames)) == frames


@given(parts=st.lists(RANGES, min_size=1))
def test_a_range_is_what_python_counts(parts):
    words = [f"{part[0]}-{part[-1]}x{part[1] - part[0]}" if len(part) > 1 else str(part[0]) for part in parts]
    assert parse_frames(",".join(words)) == tuple(dict.fromkeys(number for part in parts for number in part))


@pytest.mark.parametrize(
    ("pattern", "number", "path"),
    [
        ("out.####.exr", 7, "out.0007.exr"),
        ("out.####.exr", 12345, "out.12345.exr"),
        ("out_##_v2.png", 7, "out_07_v2.png"),
        ("#.png", 0, "0.png"),
        ("out.%04d.exr", 7, "out.0007.exr"),
        ("out.%d.exr", 7, "out.7.exr"),
        ("out.exr", 7, "out.0007.exr"),
        ("out", 7, "out.0007"),
        ("out.v2.exr", 7, "out.v2.0007.exr"),
        ("##/%d/out.exr", 7, "##/%d/out.0007.exr"),
        ("100%.##.exr", 7, "100%.07.exr"),
    ],
)
def test_a_frame_has_a_file_of_its_own(pattern, number, path):
    assert frame_path(Path(pattern), number) == Path(path)


@given(pattern=st.sampled_from(["out.exr", "a/out.#.png", "%02d", "x##y"]), a=NUMBERS, b=NUMBERS)
def test_two_frames_never_share_a_file(pattern, a, b):
    assert (frame_path(Path(pattern), a) == frame_path(Path(pattern), b)) == (a == b)


@pytest.mark.parametrize(
    ("pattern", "known"), [("a.##.exr", True), ("a.%03d.exr", True), ("#/a.exr", False), ("a%x", False)]
)
def test_a_pattern_says_where_the_number_goes(pattern, known):
    assert has_number(Path(pattern)) is known
