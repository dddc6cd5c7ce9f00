"""Turns words of the command line into values. Knows their spelling; knows nothing of what they do."""

from __future__ import annotations

import re

from dr.errors import BadInput, did_you_mean
from dr.protocol.messages import EngineKind
from dr.scene.model import Region
from dr.settings import BUCKET_ORDERS
from workers.numa.ranges import parse_ranges

_COUNT = re.compile(r"[0-9]{1,9}")
_SIZE = re.compile(r"(\d{1,18})\s*[xX,]\s*(\d{1,18})")  # limits are the model's
_PART = r"(\d{1,9}(?:\.\d{1,6})?)"
_DURATION = re.compile(rf"(?:{_PART}h)?(?:{_PART}m(?:in)?)?(?:{_PART}s?)?")
_REGION = re.compile(r"(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d{1,18})")


def parse_size(text: str) -> tuple[int, int]:
    """`1920x1080` -> (1920, 1080)."""
    match = _SIZE.fullmatch(text)
    if not match or "0" in match.groups():
        raise BadInput(f"--size: expected WIDTHxHEIGHT in pixels such as 1920x1080, found {text!r}")
    return int(match[1]), int(match[2])


def parse_region(text: str) -> Region:
    """`X,Y,WIDTH,HEIGHT`, pixels of the full frame from the top left."""
    match = _REGION.fullmatch(text.replace(" ", ""))
    if not match or int(match[3]) == 0 or int(match[4]) == 0:
        raise BadInput(f"--region: expected X,Y,WIDTH,HEIGHT in pixels such as 100,50,320,240, found {text!r}")
    x, y, width, height = map(int, match.groups())
    return Region(x, y, width, height)


def parse_seconds(text: str, option: str) -> float:
    """`90`, `1.5`, `90s`, `15m`, `2h` or `1h30m` in seconds."""
    match = _DURATION.fullmatch(text.strip().lower())
    if not match or not any(match.groups()):
        raise BadInput(f"{option}: expected a time such as 90, 90s, 15m or 1h30m, found {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if total <= 0:
        raise BadInput(f"{option}: expected a time above 0, found {text!r}")
    return total


def parse_bucket_size(text: str) -> int:
    """Pixels, or 0 for `auto`."""
    if text == "auto":
        return 0
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise BadInput(f"--bucket-size: expected auto or a number of pixels from 1 to 1024, found {text!r}")
    return int(text)


def parse_bucket_order(text: str) -> str:
    if text not in BUCKET_ORDERS:
        known = ", ".join(BUCKET_ORDERS)
        raise BadInput(f"--bucket-order: expected {known}; found {text!r}{did_you_mean(text, BUCKET_ORDERS)}")
    return text


def parse_numa(text: str) -> int:
    """How many servers; 0: one per node."""
    if not _COUNT.fullmatch(text):
        raise BadInput(f"-numa={text}: expected how many servers, such as 4 (0: one per node)")
    return int(text)


def parse_per_node(text: str) -> int:
    """How many servers on each node."""
    if not _COUNT.fullmatch(text):
        raise BadInput(f"--per-node: expected a number such as 2, found {text!r}")
    return int(text)


def parse_nodes(text: str) -> tuple[int, ...]:
    """`3,5,6` or `0-3,8`, in that order."""
    return _parse_list(text, "-node", "nodes such as 3,5,6 or 0-3,8")


def parse_ports(text: str) -> tuple[int, ...]:
    """`30000,40000` or `30000-30003`, in that order."""
    return _parse_list(text, "-port", "TCP ports such as 30000,40000 or 30000-30003")


def parse_engine(text: str) -> EngineKind:
    kinds = [kind.value for kind in EngineKind]
    if text not in kinds:
        raise BadInput(f"-engine={text}: expected {' or '.join(kinds)}{did_you_mean(text, kinds)}")
    return EngineKind(text)


def _parse_list(text: str, option: str, expected: str) -> tuple[int, ...]:
    try:
        return parse_ranges(text, option)
    except BadInput as error:
        raise BadInput(f"{option}={text}: expected {expected}") from error
