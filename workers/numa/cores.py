"""Reads which CPUs are threads of one core, and which cores share a cache. Knows files below /sys, but no node."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from dr.errors import BadInput
from workers.numa.ranges import parse_ranges

SIBLINGS = ("thread_siblings_list", "core_cpus_list")  # two names of the same list; kernels have either or both


def read_cores(sysfs: Path, cpus: frozenset[int]) -> tuple[tuple[int, ...], ...]:
    """These CPUs by core; cores that share a last-level cache are side by side, so that consecutive runs suit them.

    Where nothing is said, each CPU is a core. Raises BadInput naming the file that is garbage.
    """
    folder = sysfs / "devices/system/cpu"
    cores = _group(cpus, lambda cpu: _read_siblings(folder / f"cpu{cpu}/topology"))
    caches = _group(cpus, lambda cpu: _read_last_cache(folder / f"cpu{cpu}/cache"))
    place = {cpu: number for number, cache in enumerate(caches) for cpu in cache}
    return tuple(sorted(cores, key=lambda core: place[core[0]]))


def read_numbers(path: Path) -> frozenset[int] | None:
    """The numbers listed in a file; None without it. Raises BadInput naming it."""
    text = read_text(path)
    return None if text is None else frozenset(parse_ranges(text, str(path)) if text else ())


def read_text(path: Path) -> str | None:
    """What a small file says, None without it. Bytes that are no text stay visible as such."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _group(cpus: frozenset[int], read_group: Callable[[int], frozenset[int]]) -> list[tuple[int, ...]]:
    """Each CPU in one group, groups by their first CPU. Only that one's file is read: 256 CPUs have many files."""
    left, groups = set(cpus), []
    for cpu in sorted(cpus):
        if cpu in left:
            group = left & (read_group(cpu) | {cpu})
            left -= group
            groups.append(tuple(sorted(group)))
    return groups


def _read_siblings(folder: Path) -> frozenset[int]:
    return next(filter(None, (read_numbers(folder / name) for name in SIBLINGS)), frozenset())


def _read_last_cache(folder: Path) -> frozenset[int]:
    """Who shares the cache of the highest level."""
    levels = [(_read_level(index / "level"), index) for index in folder.glob("index*")]
    _, last = max(levels, default=(0, folder))
    return read_numbers(last / "shared_cpu_list") or frozenset()


def _read_level(path: Path) -> int:
    text = read_text(path) or "0"
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise BadInput(f"{path}: expected the level of a cache, found {text!r:.80}")
    return int(text)
