"""Examines servers: looks names up, asks all at once, lets one after the other render. Knows sockets and the clock.

What the answers mean is judged in doctor_checks, pixels in doctor_bucket.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from dr.client.addresses import saved_words
from dr.client.doctor_bucket import Trial, check_bucket, check_pixels, try_server, write_scene
from dr.client.doctor_checks import Address, Check, Own, Seen, Verdict, check_addresses, check_name, check_server
from dr.client.doctor_machine import THIS_MACHINE
from dr.client.guard import explain_failure
from dr.client.resolver import Found, look_up
from dr.client.roster import REFUSED, Place, Row
from dr.client.status import Inquiry, Patience
from dr.client.targets import RunningSpawner, Target, endpoint_of, find_targets
from dr.errors import BadInput, Refused
from dr.keys.security import Guard, Security
from dr.protocol.address import TcpAddress, parse_address
from dr.protocol.messages import Availability
from dr.protocol.version import PROTOCOL_VERSION
from dr.settings import DEFAULT_PORT, Settings

LOOK_UP_S = 4.0  # for all names together
ASK_S = 4.5  # for all servers together
PATIENCE = Patience(welcome_s=3.0, ask_s=0.3)
ASKINGS_S = 0.7  # after everybody has answered: time for two more questions, because the first round trip is slow
ADDRESSES = 4  # of a name are asked
FIRST_PORT = (DEFAULT_PORT, DEFAULT_PORT)  # of a whole host


class Asked(Struct, frozen=True, kw_only=True):
    """What became of the words: checks of names, and servers."""

    checks: tuple[Check, ...]
    seen: tuple[Seen, ...]


class Named(Struct, frozen=True, kw_only=True):
    """The servers that are examined, in a user's words; none: those of this machine and its spawners."""

    texts: tuple[str, ...] = ()
    spawners: tuple[RunningSpawner, ...] = ()


def find_named(hosts: Iterable[str], settings: Settings, spawners: Sequence[RunningSpawner]) -> Named:
    """What the user named, else the enabled servers of the settings, else this machine. Raises BadInput."""
    texts = tuple(dict.fromkeys(hosts)) or tuple(dict.fromkeys(saved_words(settings.servers)))
    for text in texts:
        parse_address(text)
    return Named(texts=texts, spawners=() if texts else tuple(spawners))


def ask_servers(named: Named, settings: Settings, security: Security) -> Asked:
    """Everybody is asked at once; done within LOOK_UP_S and ASK_S."""
    found = look_up(dict.fromkeys(_hosts(named.texts)), LOOK_UP_S)
    plan = _Plan(settings, security)
    for text in named.texts:
        plan.add(text, found)
    if not named.texts:
        plan.add_this_machine(named.spawners)
    checks = [*_check_names(found), *plan.checks]
    if not plan.targets:
        return Asked(checks=tuple(checks), seen=())
    inquiry = _inquire([*plan.targets, *plan.others], settings, security)
    spare = {place for target in plan.others for place in target.places}
    spare -= {place for target in plan.targets for place in (*target.places, *target.sure)}
    expected = bool(named.texts or named.spawners)
    rows = [row for row in inquiry.rows() if Place(row.address, row.port) not in spare]
    seen = [_see(row, inquiry, plan.names, security) for row in rows]
    seen = [replace(each, expected=expected) for each in seen]
    return Asked(checks=(*checks, *plan.check_addresses(inquiry)), seen=tuple(seen))


def _hosts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        address = parse_address(text)
        if isinstance(address, TcpAddress):
            yield address.host


def _check_names(found: Mapping[str, Found]) -> list[Check]:
    """Of names alone: an IP literal is its own address."""
    return [check_name(host, each.literals, each.trouble) for host, each in found.items() if each.literals != (host,)]


class _Plan:
    """Whom to ask. A word without an address or without its keys is a check that failed, and the others are asked."""

    def __init__(self, settings: Settings, security: Security) -> None:
        self.settings = settings
        self.security = security
        self.targets: list[Target] = []
        self.others: list[Target] = []  # the same words with the other addresses of their names
        self.names: dict[str, str] = {}  # by IP literal
        self.checks: list[Check] = []
        self._addresses: dict[str, list[Target]] = {}  # by word

    def add(self, text: str, found: Mapping[str, Found]) -> None:
        address = parse_address(text)
        if not isinstance(address, TcpAddress):
            self.targets += self._find([text], text)
            return
        literals = found[address.host].literals
        used, spare = (literals, ()) if address.every else (literals[:1], literals[1:ADDRESSES])
        for literal in literals:
            self.names.setdefault(literal, address.host)
        targets = self._find([_write(literal, address.ports) for literal in used], text)
        self.targets += targets
        if targets and spare and not TcpAddress(used[0]).is_loopback:
            others = self._find([_write(literal, address.ports or FIRST_PORT) for literal in spare], text)
            self.others += others
            self._addresses[text] = [*targets, *others]

    def add_this_machine(self, spawners: Sequence[RunningSpawner]) -> None:
        try:
            targets = find_targets((), self.settings, self.security, spawners)
        except (BadInput, Refused) as error:
            self.checks.append(_refused(THIS_MACHINE, error))
            return
        self.targets += targets
        self.names.update({place.host: target.name for target in targets for place in target.places if target.name})

    def check_addresses(self, inquiry: Inquiry) -> list[Check]:
        """Of names with several addresses: whether these lead to the same server."""
        checks = []
        for text, targets in self._addresses.items():
            places = [target.places[0] for target in targets]
            welcomes = [inquiry.roster.words(place).welcome for place in places]
            addresses = [
                Address(literal=place.host, boot=welcome.boot if welcome else b"")
                for place, welcome in zip(places, welcomes, strict=True)
            ]
            checks.append(check_addresses(text, addresses))
        return [check for check in checks if check]

    def _find(self, texts: Sequence[str], subject: str) -> list[Target]:
        try:
            return list(find_targets(texts, self.settings, self.security)) if texts else []
        except (BadInput, Refused) as error:
            self.checks.append(_refused(subject, error))
            return []


def _write(literal: str, ports: tuple[int, int] | None) -> str:
    host = f"[{literal}]" if ":" in literal else literal
    return host if ports is None else f"{host}:{ports[0]}-{ports[1]}"


def _refused(subject: str, error: BadInput | Refused) -> Check:
    hint = "" if "dr keys" in str(error) else "`dr keys import-farm FILE`"
    return Check(subject=subject, name="key", verdict=Verdict.FAIL, found=str(error), hint=hint)


def _inquire(targets: Sequence[Target], settings: Settings, security: Security) -> Inquiry:
    """Asks until all have answered and a little longer. The roster of a closed inquiry still knows what was said."""
    until = monotonic() + ASK_S
    inquiry = Inquiry(targets, settings.announce_port, PATIENCE, security)
    try:
        while monotonic() < until:
            inquiry.turn(until)
            if inquiry.settled:
                until = min(until, monotonic() + ASKINGS_S)
                break
        while monotonic() < until:
            inquiry.turn(until)
        inquiry.give_up(f"no answer within {ASK_S:g} s")
    finally:
        inquiry.close()
    return inquiry


def _see(row: Row, inquiry: Inquiry, names: Mapping[str, str], security: Security) -> Seen:
    place = Place(row.address, row.port)
    words = inquiry.roster.words(place)
    name = names.get(row.address, row.host)
    host = f"[{name}]" if ":" in name and row.port else name
    keyless = {explain_failure(guard, security) for guard in (*Guard, None)}
    ahead_s = None
    if words.status and words.status.clock_s:
        ahead_s = words.status.clock_s - (time.time() - (monotonic() - words.status_s))
    return Seen(
        subject=f"{host}:{row.port}" if row.port else name,
        place=place,
        answers=row.answers,
        state=row.state,
        holder=row.holder,
        reason=row.reason,
        refuses_key=row.state == REFUSED or row.reason in keyless,
        round_trip_s=inquiry.round_trips().get(place),
        clock_ahead_s=ahead_s,
        words=words,
    )


def check_servers(seen: Iterable[Seen]) -> list[Check]:
    """All checks but those of buckets."""
    from dr import __version__
    from dr.scene.code_digest import code_digest

    own = Own(kernels=code_digest(), protocol=PROTOCOL_VERSION, release=__version__)
    return [check for each in seen for check in check_server(each, own)]


def is_refused_everywhere(checks: Iterable[Check]) -> bool:
    """Whether there are servers and keys keep us from every one."""
    doors = [check for check in checks if check.subject != THIS_MACHINE and check.name in ("port", "key", "name")]
    failed = [check for check in doors if check.verdict is Verdict.FAIL]
    return bool(failed) and {check.name for check in failed} == {"key"} and not any(map(_is_open, doors))


def _is_open(check: Check) -> bool:
    return check.name == "port" and check.verdict is Verdict.OK


class TrialOptions(Struct, frozen=True, kw_only=True):
    """How test buckets are rendered."""

    settings: Settings
    insecure: bool = False
    local: bool = True  # this machine renders, too, and its pixels are what the others are compared with
    within_s: float = 5.0


def check_buckets(seen: Sequence[Seen], options: TrialOptions, say: Callable[[str], None]) -> list[Check]:
    """Lets each server that answers render the test scene, one at a time; `say` gets a line for each."""
    able = [each for each in seen if each.answers]
    trials: dict[str, Trial] = {}
    with tempfile.TemporaryDirectory(prefix="dr-doctor-") as folder:
        scene = write_scene(Path(folder))
        if options.local:
            say(f"test bucket: {THIS_MACHINE}")
            trials[THIS_MACHINE] = try_server(scene, None, options.settings, options.insecure, options.within_s)
        for number, each in enumerate(able, 1):
            say(f"test bucket: {each.subject}, {number} of {len(able)}")
            trials[each.subject] = _try(scene, each, options)
    checks = [check_bucket(subject, trial, options.within_s) for subject, trial in trials.items()]
    return [*checks, *check_pixels(trials, THIS_MACHINE if options.local else None)]


def _try(scene: Path, seen: Seen, options: TrialOptions) -> Trial:
    if seen.state == Availability.BUSY:
        return Trial(channels={}, skipped=f"busy with {seen.holder or 'another client'}")
    if seen.state != Availability.READY:
        return Trial(channels={}, skipped=f"it is {seen.state}")
    server = endpoint_of(seen.place).removeprefix("tcp://")
    return try_server(scene, server, options.settings, options.insecure, options.within_s)
