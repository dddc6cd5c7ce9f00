"""Finds this user's log files and packs them for a bug report, without keys. Knows files, not who wrote them.

A key is 40 letters, of which some are signs that names of files and hosts do not have; runs of letters like that are
taken out, besides the keys of this user. What comes from other users' keys goes the same way.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from dr.errors import BadInput
from dr.keys.key import KEY_LETTERS
from dr.keys.ring import KeyRing

PACK_BYTES = 20_000_000  # of logs, before they are compressed
KINDS = ("render", "spawner", "server", "doctor")
NO_KEY = "(a key)"
HOME = "~"
PRIVATE = 0o600
TAIL_BYTES = 1 << 16  # read at once, from the end

_Z85 = r"0-9A-Za-z.\-:+=^!/*?&<>()\[\]{}@%$#"
_RUN = re.compile(f"[{_Z85}]{{{KEY_LETTERS},}}")
_SIGNS = frozenset("+=^!*?&<>(){}@%$#")  # one of 40 random letters is among them but for 2 keys in 10,000


class LogFile(Struct, frozen=True, kw_only=True):
    path: Path
    kind: str  # one of KINDS
    size: int  # bytes
    changed_s: float  # since 1970 UTC


class Packed(Struct, frozen=True, kw_only=True):
    """One file of a pack. `cut`: only its end is there."""

    name: str
    size: int  # bytes, before they are compressed
    cut: bool = False


def find_logs(folder: Path) -> list[LogFile]:
    """The newest first; none where there is no such folder."""
    found = []
    for path in folder.glob("*.log*"):
        kind = path.name.partition("-")[0]
        with suppress(OSError):  # it was removed just now
            facts = path.stat()
            if kind in KINDS and path.is_file():
                found.append(LogFile(path=path, kind=kind, size=facts.st_size, changed_s=facts.st_mtime))
    return sorted(found, key=lambda log: (log.changed_s, log.path.name), reverse=True)


def read_tail(path: Path, lines: int) -> list[str]:
    """The last lines. Raises BadInput."""
    try:
        with path.open("rb") as stream:
            data, place = b"", stream.seek(0, os.SEEK_END)
            while place and data.count(b"\n") <= lines:
                step = min(place, TAIL_BYTES)
                place -= step
                stream.seek(place)
                data = stream.read(step) + data
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    return data.decode(errors="replace").splitlines()[-lines:] if lines else []


def pack_logs(out: Path, logs: Sequence[LogFile], facts: Mapping[str, str], ring: KeyRing) -> list[Packed]:
    """Writes `out`, a new file of this user alone: each of the facts, and the newest logs. Raises BadInput."""
    clean = Cleaner(ring, Path("~").expanduser())
    try:
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
    except FileExistsError:
        raise BadInput(f"{out}: exists already; choose another name with -o FILE") from None
    except OSError as error:
        raise BadInput(f"{out}: cannot write it: {error.strerror}") from error
    try:
        with os.fdopen(fd, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            return [*_pack_facts(archive, facts, clean), *_pack_newest(archive, logs, clean)]
    except BaseException as error:
        out.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise BadInput(f"{out}: cannot write it: {error.strerror}") from error
        raise


def _pack_facts(archive: zipfile.ZipFile, facts: Mapping[str, str], clean: Cleaner) -> Iterable[Packed]:
    for name, text in facts.items():
        data = clean.text(text).encode()
        archive.writestr(name, data)
        yield Packed(name=name, size=len(data))


def _pack_newest(archive: zipfile.ZipFile, logs: Iterable[LogFile], clean: Cleaner) -> Iterable[Packed]:
    """Until there is no room; of the one that does not fit only the end."""
    room = PACK_BYTES
    for log in logs:
        if room <= 0:
            return
        data, cut = _read_end(log.path, room)
        room -= len(data)
        text = clean.text(data.decode(errors="replace")).encode()
        archive.writestr(f"logs/{clean.text(log.path.name)}", text)
        yield Packed(name=log.path.name, size=len(text), cut=cut)


def _read_end(path: Path, room: int) -> tuple[bytes, bool]:
    """(so many bytes of the end, from the beginning of a line; whether there is more before)."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - room))
            data = stream.read(room)
    except OSError as error:
        return f"cannot be read: {error.strerror}\n".encode(), True
    return (data.partition(b"\n")[2], True) if size > room else (data, False)


class Cleaner:
    """Takes out of a text what is nobody's business."""

    def __init__(self, ring: KeyRing, home: Path) -> None:
        pairs = [pair for pair in (ring.client, ring.farm) if pair]
        known = [*(pair.secret.reveal() for pair in pairs), *(pair.public for pair in pairs), *ring.clients]
        known += [ring.farm_public] if ring.farm_public else []
        homes = {str(home), os.path.realpath(home)} - {"/", ""}
        self._keys = re.compile("|".join(map(re.escape, known))) if known else None
        self._homes = re.compile(rf"(?:{'|'.join(map(re.escape, sorted(homes, key=len, reverse=True)))})(?![\w.-])")
        self._has_home = bool(homes)

    def text(self, text: str) -> str:
        if self._keys:
            text = self._keys.sub(NO_KEY, text)
        if self._has_home:
            text = self._homes.sub(HOME, text)
        return _RUN.sub(_hide, text)


def _hide(run: re.Match[str]) -> str:
    return NO_KEY if _SIGNS & set(run[0]) else run[0]
