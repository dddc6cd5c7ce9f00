"""Judges this machine: settings, keys, folders, limits, kernels. Reads files and limits; opens no connection.

What only the workers know about kernels comes in as values.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from msgspec import Struct

from dr.client.doctor_checks import Check, Verdict, check_space
from dr.keys.security import Security
from dr.settings import Settings

THIS_MACHINE = "this machine"
DESCRIPTORS = 64  # of a client without servers, and some to spare
DESCRIPTORS_PER_SERVER = 2  # its gate and its announcer


class Kernels(Struct, frozen=True, kw_only=True):
    """How this machine stands with the code that makes pixels."""

    code: str  # digest of all that decides pixels, as the handshake compares it
    compiled: str = ""  # digest that names the folder of compiled kernels
    warm: bool = False  # they are compiled
    folder: str = ""
    trouble: str = ""  # why they cannot run here


def check_machine(settings: Settings, security: Security, kernels: Kernels, servers: int) -> list[Check]:
    """`servers`: how many a render of this user may talk to."""
    return [
        _check_keys(security),
        *_check_kernels(kernels),
        _check_folder("log folder", settings.log_folder),
        *_check_disks({"logs": settings.log_folder, "kernel cache": Path(kernels.folder or settings.kernel_cache)}),
        check_descriptors(servers, _soft_limit()),
    ]


def check_settings(place: str, trouble: str) -> Check:
    """`place`: the file, whether it exists or not."""
    if trouble:
        return _check("settings", Verdict.FAIL, trouble, "mend it; `dr settings` shows every setting")
    exists = Path(place).is_file()
    return _check("settings", Verdict.OK, place if exists else "defaults; there is no settings file")


def _check_keys(security: Security) -> Check:
    if security.insecure:
        return _check("keys", Verdict.WARN, "--insecure: none are used", "leave --insecure out")
    if security.trouble:
        return _check("keys", Verdict.FAIL, str(security.trouble), "`dr keys list` says it again once it is mended")
    ring = security.ring
    if ring.farm_public is None:
        return _check(
            "keys", Verdict.OK, "none: only servers of this machine can be reached; `dr keys init` makes some"
        )
    kind = "the farm key" if ring.farm else "the farm's public half and a client key"
    if ring.identity is None:
        return _check("keys", Verdict.FAIL, "the farm's public half, but no client key", "`dr keys init`")
    return _check("keys", Verdict.OK, f"{kind}, private to this user")


def _check_kernels(kernels: Kernels) -> list[Check]:
    if kernels.trouble:
        hint = "this machine can be a client: dr render --no-local --server HOST"
        return [_check("kernels", Verdict.FAIL, kernels.trouble, hint)]
    digests = f"code {kernels.code[:16]}, compiled as {kernels.compiled[:16]}"
    cold = _check("kernels", Verdict.WARN, f"not compiled yet; {digests}", "dr warmup compiles them, in some minutes")
    return [
        _check("kernels", Verdict.OK, digests) if kernels.warm else cold,
        _check_folder("kernel cache", Path(kernels.folder)),
    ]


def _check_folder(name: str, folder: Path) -> Check:
    """Whether this user may write there, or in the first folder above it that exists."""
    found = _existing(folder)
    if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
        hint = "choose another in dr.toml, or let this user write there"
        return _check(name, Verdict.FAIL, f"{folder}: cannot be written", hint)
    return _check(name, Verdict.OK, f"{folder}")


def _check_disks(folders: dict[str, Path]) -> list[Check]:
    """One check for each disk."""
    disks: dict[int, tuple[list[str], Path]] = {}
    for name, folder in folders.items():
        found = _existing(folder)
        disks.setdefault(found.stat().st_dev, ([], found))[0].append(name)
    return [
        check_space(THIS_MACHINE, "disk", shutil.disk_usage(folder).free, " and ".join(names))
        for names, folder in disks.values()
    ]


def check_descriptors(servers: int, limit: int) -> Check:
    """`limit`: open files that a process may have (RLIMIT_NOFILE); below 0: any number."""
    needed = DESCRIPTORS + DESCRIPTORS_PER_SERVER * servers
    if 0 <= limit < needed:
        found = f"{limit} open files for {servers} servers, about {needed} are needed"
        return _check(
            "open files", Verdict.WARN, found, f"ulimit -n {needed * 2}; of a service: LimitNOFILE={needed * 2}"
        )
    return _check("open files", Verdict.OK, "any number" if limit < 0 else f"{limit}, about {needed} are needed")


def _soft_limit() -> int:
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return -1
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return -1 if soft == resource.RLIM_INFINITY else soft


def _existing(folder: Path) -> Path:
    """The folder, or the first one above it that is there."""
    return next((path for path in (folder, *folder.parents) if os.path.exists(path)), Path("/"))


def _check(name: str, verdict: Verdict, found: str, hint: str = "") -> Check:
    return Check(subject=THIS_MACHINE, name=name, verdict=verdict, found=found, hint=hint)
