"""Turns words of the command line into values. Knows their spelling; knows nothing of what they do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dr.errors import BadInput, did_you_mean
from dr.scene.model import Region
from dr.settings import BUCKET_ORDERS

_SINGLE_DASH = re.compile(r"-[a-z][a-z-]*[a-z](=.*)?", re.DOTALL)
_SIZE = re.compile(r"(\d{1,18})\s*[xX,]\s*(\d{1,18})")  # limits are the model's
_REGION = re.compile(r"(\d{1,18}),(\d{1,18}),(\d{1,18}),(\d{1,18})")


def double_dashes(words: Sequence[str], options: frozenset[str]) -> list[str]:
    """The same words with V-Ray's spelling `-port=30000` turned into `--port=30000`.

    Only names in `options` are touched, nothing after `--`, and no word that could be a value (`-0.5`) or a cluster
    of short options (`-qv`).
    """
    done = list(words)
    end = done.index("--") if "--" in done else len(done)
    for i, word in enumerate(done[:end]):
        if _SINGLE_DASH.fullmatch(word) and word[1:].partition("=")[0] in options:
            done[i] = "-" + word
    return done


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
