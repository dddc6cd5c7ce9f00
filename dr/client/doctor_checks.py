"""Judges what is known about a server or a machine: facts in, checks out, each with a hint. Knows no socket, no clock.

Only what stops a render or changes its pixels fails; what costs time or may stop one later is a warning.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from dr.client.link import NOBODY
from dr.client.roster import Place, Words
from dr.client.status import NONSENSE
from dr.protocol.messages import Announcement, ServerStatus, Welcome

GB = 1e9
FEW_FREE_BYTES = int(5 * GB)
NO_FREE_BYTES = int(0.5 * GB)
CLOCK_S = 2.0  # by so much two clocks may differ
DEBIAN_OWN_NAME = ipaddress.ip_address("127.0.1.1")  # to which Debian resolves a machine's own name
SAME_VERSION = "install the same version on both"


class Verdict(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Check(Struct, frozen=True, kw_only=True):
    """One line: what was looked at, what was found, and what to do unless it is ok."""

    subject: str  # `this machine`, HOST or HOST:PORT
    name: str
    verdict: Verdict
    found: str
    hint: str = ""


class Own(Struct, frozen=True, kw_only=True):
    """What servers are compared with."""

    kernels: str
    protocol: int
    release: str


class Seen(Struct, frozen=True, kw_only=True):
    """All that was learned about one server."""

    subject: str
    place: Place
    answers: bool = False
    state: str = ""
    holder: str = ""
    reason: str = ""  # why it does not answer
    refuses_key: bool = False  # the connection came to nothing for want of the right keys
    round_trip_s: float | None = None
    clock_ahead_s: float | None = None  # of ours; None: it does not tell
    words: Words = Words()
    expected: bool = True  # False: a guess; nobody named it


class Address(Struct, frozen=True, kw_only=True):
    """One of several addresses of a name: which process answers there, if one does."""

    literal: str
    boot: bytes = b""


def check_name(host: str, literals: Sequence[str], trouble: str) -> Check:
    """Whether a name leads to addresses, and to ones that other machines can use."""
    if not literals:
        hint = "add it to the name server or /etc/hosts, or name the server by its IP address"
        return _check(host, "name", Verdict.FAIL, f"does not resolve: {trouble}", hint)
    found = ", ".join(literals)
    if any(ipaddress.ip_address(literal) == DEBIAN_OWN_NAME for literal in literals):
        hint = "give the name its real address in /etc/hosts; on other machines 127.0.1.1 means themselves"
        return _check(host, "name", Verdict.WARN, found, hint)
    return _check(host, "name", Verdict.OK, found)


def check_addresses(subject: str, addresses: Sequence[Address]) -> Check | None:
    """Whether several addresses of one name, the one that renders use first, lead to the same server. None: they do."""
    used, *others = addresses
    elsewhere = [each.literal for each in others if each.boot and each.boot != used.boot]
    if not elsewhere:
        return None
    there = "another server answers" if used.boot else "nobody answers, but somebody"
    found = f"at {used.literal}, which renders use, {'one server answers, ' if used.boot else ''}{there} at "
    hint = "let the name have one address, or write the address; dns+any:HOST:PORT uses all of them"
    return _check(subject, "name", Verdict.WARN, found + ", ".join(elsewhere), hint)


def check_server(seen: Seen, own: Own) -> list[Check]:
    """What its gate and its announcer told. Of a server that does not answer: why."""
    if not seen.answers or seen.words.welcome is None:
        return [_check_silence(seen)]
    welcome, status, subject = seen.words.welcome, seen.words.status, seen.subject
    trip = "" if seen.round_trip_s is None else f", round trip {seen.round_trip_s * 1e3:.1f} ms"
    holder = f" with {seen.holder}" if seen.holder else ""
    return [
        _check(subject, "port", Verdict.OK, f"answers: {welcome.name}, {seen.state}{holder}{trip}"),
        _check_guard(subject, status),
        check_versions(subject, welcome, status, own),
        check_clock(subject, seen.clock_ahead_s, seen.round_trip_s or 0.0),
        check_space(subject, "cache", status.cache_free_bytes if status else -1),
        check_announced(subject, welcome, seen.words.announced, seen.place.port),
    ]


def _check_silence(seen: Seen) -> Check:
    subject = seen.subject
    if seen.refuses_key:
        hint = "" if "`dr keys" in seen.reason else "`dr keys import-farm FILE` with this farm's file, here or there"
        return _check(subject, "key", Verdict.FAIL, seen.reason, hint)
    if not seen.expected:
        hint = "start it with dr spawner; until then renders use this machine's own, temporary servers"
        return _check(subject, "port", Verdict.WARN, "no render server runs here", hint)
    port = f"TCP {seen.place.port}" if seen.place.port else "the socket"
    hints = {
        NOBODY: f"start it with dr spawner there, as a service: systemctl start dr-spawner; firewall: allow {port}",
        NONSENSE: f"another program has {port}: give the server another port, dr spawner -port=P",
    }
    hint = hints.get(seen.reason, f"is the machine on? firewall: allow {port} on it; does its server hang?")
    return _check(subject, "port", Verdict.FAIL, seen.reason or "no answer", hint)


def _check_guard(subject: str, status: ServerStatus | None) -> Check:
    guard = status.guard if status else ""
    if guard == "insecure":
        hint = "start it without --insecure, with the key of `dr keys init` or `dr keys import-farm FILE`"
        return _check(subject, "key", Verdict.WARN, "no key is asked for: whoever reaches the port can connect", hint)
    found = {"keys": "accepted", "open": "none is needed on loopback"}.get(guard, "none is needed")
    return _check(subject, "key", Verdict.OK, found)


def check_versions(subject: str, welcome: Welcome, status: ServerStatus | None, own: Own) -> Check:
    """Protocol and kernels must agree; releases are for people."""
    if welcome.version != own.protocol:
        found = f"it speaks protocol {welcome.version}, this machine {own.protocol}"
        return _check(subject, "versions", Verdict.FAIL, found, SAME_VERSION)
    if welcome.kernels != own.kernels:
        found = f"its kernels are {welcome.kernels[:16]}, this machine's {own.kernels[:16]}: pixels may differ"
        hint = f"{SAME_VERSION}, of this program and of numba, llvmlite, numpy, OpenImageIO"
        return _check(subject, "versions", Verdict.FAIL, found, hint)
    release = status.release if status else ""
    if release != own.release:
        found = f"its release is {release or 'not told'}, this machine's {own.release}"
        return _check(subject, "versions", Verdict.WARN, found, SAME_VERSION)
    found = f"release {release}, protocol {welcome.version}, kernels {welcome.kernels[:16]}"
    return _check(subject, "versions", Verdict.OK, found)


def check_clock(subject: str, ahead_s: float | None, round_trip_s: float) -> Check:
    """Logs of several machines are read side by side. Half the round trip is allowed on top: it hides in the answer."""
    if ahead_s is None:
        return _check(subject, "clock", Verdict.WARN, "it does not tell its time", SAME_VERSION)
    if abs(ahead_s) > CLOCK_S + round_trip_s / 2:
        found = f"{abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
        return _check(
            subject, "clock", Verdict.WARN, found, "let NTP set both clocks: systemctl status systemd-timesyncd"
        )
    return _check(subject, "clock", Verdict.OK, f"within {CLOCK_S:g} s of this machine's")


def check_space(subject: str, name: str, free_bytes: int, where: str = "") -> Check:
    """`free_bytes` below 0: not told."""
    on = f" on the disk of {where}" if where else ""
    if free_bytes < 0:
        return _check(subject, name, Verdict.WARN, f"it does not tell how much is free{on}", SAME_VERSION)
    found = f"{free_bytes / GB:.1f} GB free{on}"
    hint = f"free some space there; more than {FEW_FREE_BYTES / GB:g} GB are comfortable"
    if free_bytes < NO_FREE_BYTES:
        return _check(subject, name, Verdict.FAIL, found, hint)
    if free_bytes < FEW_FREE_BYTES:
        return _check(subject, name, Verdict.WARN, found, hint)
    return _check(subject, name, Verdict.OK, found)


def check_announced(subject: str, welcome: Welcome, announced: Announcement | None, port: int) -> Check:
    """Without announcements everything works, but a late server joins up to a second later."""
    name, announce = "announcements", welcome.announce
    if not announce:
        return _check(subject, name, Verdict.OK, "none: no spawner started it, so it joins within 1 s instead of 50 ms")
    if announced is None:
        found = f"port {announce} does not answer, or does not name this server"
        hint = f"firewall: allow TCP {announce}; without it a late server joins within 1 s instead of 50 ms"
        return _check(subject, name, Verdict.WARN, found, hint)
    if announced.boot != welcome.boot:
        hint = "dr status shows both; somebody else may announce there"
        return _check(subject, name, Verdict.WARN, f"port {announce} names another process on port {port}", hint)
    return _check(subject, name, Verdict.OK, f"port {announce} names it")


def _check(subject: str, name: str, verdict: Verdict, found: str, hint: str = "") -> Check:
    return Check(subject=subject, name=name, verdict=verdict, found=found, hint=hint)
