"""Decides which bytes of which asset to ask for next. Knows no file, socket or clock: answers are plain values."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from dr.errors import ProtocolError
from dr.protocol.version import CHUNK_BYTES

CHUNKS_OUTSTANDING = 4


class Part(NamedTuple):
    """Bytes [offset, offset + n) of an asset."""

    digest: bytes
    offset: int
    n: int


class Fetching:
    """The assets of one frame on their way here. `wanted` may grow: first the manifest, then what it lists."""

    def __init__(self) -> None:
        self.waiting: deque[Part] = deque()
        self.outstanding: dict[tuple[bytes, int], Part] = {}
        self.open_parts: dict[bytes, int] = {}  # parts of each asset that have not arrived
        self.unsealed: set[bytes] = set()  # assets whose digest has not been checked
        self.known: set[bytes] = set()

    def want(self, assets: Iterable[tuple[bytes, int]]) -> list[bytes]:
        """Adds (digest, size) pairs; gives the empty assets, which need no bytes and can be sealed at once."""
        empty = []
        for digest, size in assets:
            if digest in self.known:
                continue
            self.known.add(digest)
            self.unsealed.add(digest)
            offsets = range(0, size, CHUNK_BYTES)
            self.waiting.extend(Part(digest, offset, min(CHUNK_BYTES, size - offset)) for offset in offsets)
            self.open_parts[digest] = len(offsets)
            if not offsets:
                empty.append(digest)
        return empty

    def next_parts(self) -> list[Part]:
        """What to ask for now, so that CHUNKS_OUTSTANDING requests are on their way."""
        parts = []
        while self.waiting and len(self.outstanding) < CHUNKS_OUTSTANDING:
            part = self.waiting.popleft()
            self.outstanding[part.digest, part.offset] = part
            parts.append(part)
        return parts

    def receive(self, digest: bytes, offset: int, n: int) -> bool:
        """Takes note of an answer; True when it completes its asset. Raises ProtocolError for one never asked for."""
        part = self.outstanding.pop((digest, offset), None)
        if part is None:
            raise ProtocolError(f"chunk: asset {digest.hex()[:12]} offset {offset} was not asked for")
        if n != part.n:
            raise ProtocolError(f"chunk: expected {part.n} bytes of asset {digest.hex()[:12]}, found {n}")
        self.open_parts[digest] -= 1
        return self.open_parts[digest] == 0

    def seal(self, digest: bytes) -> None:
        self.unsealed.discard(digest)

    @property
    def complete(self) -> bool:
        return not self.unsealed
