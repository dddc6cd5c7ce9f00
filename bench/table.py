"""Prints tables that read well on a terminal and in markdown. Knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Sequence


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
    """An aligned markdown table, the first column left, the others right; `note` is a line below it."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])

    print(f"\n| {line(head)} |")
    print(f"|{'-' * (widths[0] + 2)}|{'|'.join('-' * (width + 1) + ':' for width in widths[1:])}|")
    for row in rows:
        print(f"| {line(row)} |")
    print(f"\n{note}" if note else "", flush=True)
