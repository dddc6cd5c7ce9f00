"""Lists of numbers as Linux and users write them: `0-3,8`. Knows not what the numbers count."""

from __future__ import annotations

import re
from collections.abc import Iterable

from dr.errors import BadInput

MAX_NUMBERS = 65536
_PART = re.compile(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*")


def parse_ranges(text: str, place: str) -> tuple[int, ...]:
    """The numbers in the order they are written. Raises BadInput naming `place`."""
    numbers: list[int] = []
    for part in text.split(","):
        match = _PART.fullmatch(part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise BadInput(f"{place}: expected numbers such as 0-3,8, found {text!r}")
        numbers.extend(range(int(match[1]), int(match[2] or match[1]) + 1))
        if len(numbers) > MAX_NUMBERS:
            raise BadInput(f"{place}: expected at most {MAX_NUMBERS} numbers, found {text!r:.80}")
    return tuple(numbers)


def format_ranges(numbers: Iterable[int]) -> str:
    """`0-3,8` for 0, 1, 2, 3 and 8: neighbours that follow each other become a range; the order stays."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    return ",".join("-".join(map(str, run)) for run in runs)
