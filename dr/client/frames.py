"""Which frames a user means, and how their files are named. Knows words and paths; opens no file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from dr.errors import BadInput

MAX_FRAMES = 1_000_000
MAX_NUMBER = (1 << 31) - 1  # RenderSettings.frame
_RANGE = re.compile(r"([0-9]{1,10})(?:-([0-9]{1,10})(?:x(-?[0-9]{1,10}))?)?", re.ASCII)
_NUMBER = re.compile(r"#+|%(?:0([0-9]{1,2}))?d")  # `####` or `%04d` in a file's name
_HASHES = "####"


def parse_frames(text: str) -> tuple[int, ...]:
    """`1-100x2,150,200-190x-5` as numbers: in the order given, each once. BadInput for anything else.

    A range includes both ends, as far as its step meets the second; without a step it goes by 1 towards it.
    """
    frames: dict[int, None] = {}
    room = MAX_FRAMES
    for word in text.split(","):
        numbers = _range(word.strip(), text)
        room -= len(numbers)
        if room < 0:
            raise BadInput(f"frames {_short(text)}: expected at most {MAX_FRAMES:,} frames, found more")
        frames.update(dict.fromkeys(numbers))
    return tuple(frames)


def show_frames(frames: Sequence[int]) -> str:
    """`1-3,7` for (1, 2, 3, 7): what `parse_frames` reads back as the same numbers in the same order."""
    words: list[str] = []
    first = 0
    while first < len(frames):
        count = _run(frames, first)
        words.append(_word(frames[first], frames[first + count - 1], count))
        first += count
    return ",".join(words)


def frame_path(pattern: Path, number: int) -> Path:
    """The file of one frame: `out.####.exr` and `out.%04d.exr` become `out.0007.exr`, and so does `out.exr`.

    Longer numbers take the room they need. Only the file's name is a pattern, not its folders.
    """
    name = pattern.name if has_number(pattern) else f"{pattern.stem}.{_HASHES}{pattern.suffix}"
    return pattern.with_name(_NUMBER.sub(lambda found: f"{number:0{_width(found)}d}", name))


def has_number(pattern: Path) -> bool:
    """Whether the file's name says where a frame's number goes."""
    return _NUMBER.search(pattern.name) is not None


def _range(word: str, text: str) -> range:
    found = _RANGE.fullmatch(word)
    if found is None:
        raise BadInput(
            f"frames {_short(text)}: expected numbers from 0 and ranges as in 1-100x2,150; found {word[:40]!r}"
        )
    first = int(found[1])
    last = first if found[2] is None else int(found[2])
    if max(first, last) > MAX_NUMBER:
        raise BadInput(f"frames {_short(text)}: expected numbers up to {MAX_NUMBER}, found {max(first, last)}")
    forward = 1 if last >= first else -1
    step = forward if found[3] is None else int(found[3])
    if step * forward <= 0:
        raise BadInput(f"frames {_short(text)}: expected a step from {first} towards {last}, found {step}")
    return range(first, last + forward, step)


def _run(frames: Sequence[int], first: int) -> int:
    """How many numbers from `first` on go by one and the same step; two alone are no range."""
    following = first + 1
    while following < len(frames) and frames[following] - frames[following - 1] == frames[first + 1] - frames[first]:
        following += 1
    count = following - first
    return count if count > 2 else 1


def _word(first: int, last: int, count: int) -> str:
    if count == 1:
        return str(first)
    step = (last - first) // (count - 1)
    return f"{first}-{last}" if abs(step) == 1 else f"{first}-{last}x{step}"


def _width(found: re.Match[str]) -> int:
    return len(found[0]) if found[0].startswith("#") else int(found[1] or 0)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
