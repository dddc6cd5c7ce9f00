"""Bounds what a file may cost to load. Knows bytes read and bytes decoded; knows no format.

A few bytes can ask for terabytes: a count without data, one buffer named a million times. What is decoded may grow
with what was read, by a factor that no honest file reaches (a strip of one-byte indices grows twelvefold).
"""

from __future__ import annotations

from dr.errors import BadInput

_FREE_BYTES = 1 << 26
_FACTOR = 32


class Budget:
    def __init__(self) -> None:
        self.allowed = _FREE_BYTES
        self.spent = 0

    def earn(self, read_bytes: int) -> None:
        """Notes that so many bytes of the scene's files were read."""
        self.allowed += _FACTOR * read_bytes

    def spend(self, decoded_bytes: int, place: str) -> None:
        """Call it before the work. BadInput when the scene asks for far more than its files can hold."""
        self.spent += decoded_bytes
        if self.spent > self.allowed:
            raise BadInput(
                f"{place}: {self.spent} bytes of geometry from files that can hold {self.allowed}; the file is damaged"
            )
