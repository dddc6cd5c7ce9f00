"""`dr doctor`: shows what is wrong with this machine and the farm, and what to do. Judges nothing itself."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dr.cli import COMPLETE, INCOMPLETE, REFUSED, say
from dr.cli.options import Insecure, SettingsFile
from dr.cli.status import running_spawners
from dr.cli.tables import make_console, print_lines
from dr.errors import BadInput, DrError
from dr.settings import Settings, default_settings_file, load_settings

if TYPE_CHECKING:
    from rich.text import Text

    from dr.client.doctor_checks import Check
    from dr.client.doctor_machine import Kernels

EXAMPLES = """\
Examples:

dr doctor

dr doctor node1 node2:20204 --quick

dr doctor --json --seconds 30
"""

log = logging.getLogger("dr.doctor")

MANY = 6  # subjects: then what is ok is one line for each
STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


def doctor(
    hosts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="HOST",
            show_default=False,
            help="HOST (all its servers) or HOST:PORT. Default: the servers of the settings, else this machine.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", metavar="", help="Render no test bucket.")] = False,
    local: Annotated[
        bool,
        typer.Option(
            "--local/--no-local", metavar="", help="Whether this machine renders it, too.", show_default=False
        ),
    ] = True,
    seconds: Annotated[float, typer.Option(metavar="S", min=0.1, max=3600, help="For one test bucket, at most.")] = 5.0,
    json: Annotated[bool, typer.Option("--json", metavar="", help="One JSON object last on stdout.")] = False,
    insecure: Insecure = False,
    settings: SettingsFile = None,
) -> int:
    """Test this machine and its render servers, and say what to do about what is wrong.

    Status 1 if something failed, 3 if no server admits this user's key.
    """
    from dr.client.doctor import (
        TrialOptions,
        ask_servers,
        check_buckets,
        check_servers,
        find_named,
        is_refused_everywhere,
    )
    from dr.client.doctor_machine import check_machine
    from dr.client.guard import WARNING, load_security
    from dr.client.logs import log_file

    if settings and not settings.is_file():
        raise BadInput(f"--settings: expected a settings file, found none at {settings}")
    values, checks = _load(settings)
    security = load_security(os.environ, insecure)
    if insecure:
        say(WARNING, COMPLETE)
    named = find_named(hosts or (), values, running_spawners())
    kernels = _kernels(values)
    with log_file(values.log_folder, "doctor"):
        asked = ask_servers(named, values, security)
        checks += check_machine(values, security, kernels, len(asked.seen))
        checks += [*asked.checks, *check_servers(asked.seen)]
        if not quick:
            able = local and kernels.warm and not kernels.trouble
            options = TrialOptions(settings=values, insecure=insecure, local=able, within_s=seconds)
            checks += check_buckets(asked.seen, options, _say_step)
        _log(checks)
    _print(checks, json)
    if is_refused_everywhere(checks):
        return REFUSED
    return INCOMPLETE if any(check.verdict == "FAIL" for check in checks) else COMPLETE


def _log(checks: Sequence[Check]) -> None:
    for check in checks:
        log.info("%s: %s: %s: %s", check.subject, check.name, check.verdict, check.found)


def _load(file: Path | None) -> tuple[Settings, list[Check]]:
    """The settings, or the defaults where they are broken, and the check of them."""
    from dr.client.doctor_machine import check_settings

    place = str(file or default_settings_file())
    try:
        return load_settings(file, os.environ).values, [check_settings(place, "")]
    except BadInput as error:
        return Settings(), [check_settings(place, str(error))]


def _kernels(values: Settings) -> Kernels:
    """How this machine stands with the kernels."""
    from dr.client.doctor_machine import Kernels
    from dr.scene.code_digest import code_digest
    from workers.prepare.warmup import check_cpu, kernel_digest, kernels_compiled, use_kernel_cache

    os.environ["DR_KERNEL_CACHE"] = str(values.kernel_cache)
    try:
        folder = use_kernel_cache()
        check_cpu()
        warm, trouble = kernels_compiled(), ""
    except (DrError, OSError) as error:
        folder, warm, trouble = values.kernel_cache, False, str(error)
    return Kernels(code=code_digest(), compiled=kernel_digest(), warm=warm, folder=str(folder), trouble=trouble)


def _say_step(text: str) -> None:
    """What takes time, where somebody waits for it."""
    if sys.stderr.isatty():
        print(f"\r\x1b[Kdr: {text}", end="", file=sys.stderr, flush=True)


def _print(checks: Sequence[Check], json: bool) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    if json:
        import msgspec

        counts = Counter(check.verdict for check in checks)
        print(msgspec.json.encode({"counts": counts, "checks": checks}).decode(), flush=True)
        return
    from rich.console import Group
    from rich.text import Text

    grouped = _group(checks)
    lines = [line for subject, group in grouped for line in draw(subject, group, short=len(grouped) > MANY)]
    print_lines(make_console(), Group(*lines, Text(summarise(checks), style="bold")))


def _group(checks: Sequence[Check]) -> list[tuple[str, list[Check]]]:
    """By subject, in the order in which these come up first."""
    order = list(dict.fromkeys(check.subject for check in checks))
    ordered = sorted(checks, key=lambda check: order.index(check.subject))
    return [(subject, list(group)) for subject, group in groupby(ordered, key=lambda check: check.subject)]


def draw(subject: str, checks: Sequence[Check], short: bool) -> list[Text]:
    """A line for the subject and one for each check; `short`: one for all that are ok."""
    from rich.text import Text

    fine = [check for check in checks if check.verdict == "ok"] if short else []
    lines = [Text(subject, style="bold")]
    if fine:
        lines.append(_line("ok", ", ".join(check.name for check in fine)))
    for check in checks:
        if check not in fine:
            lines.append(_line(check.verdict, f"{check.name}: {check.found}"))
            lines += [Text(f"       {check.hint}", style="italic")] if check.hint else []
    return lines


def _line(verdict: str, text: str) -> Text:
    from rich.text import Text

    return Text.assemble("  ", (f"{verdict:<4}", STYLES[verdict]), f" {text}")


def summarise(checks: Sequence[Check]) -> str:
    """`31 checks: 29 ok, 1 warn, 1 FAIL`."""
    counts = Counter(str(check.verdict) for check in checks)
    found = ", ".join(f"{counts[verdict]} {verdict}" for verdict in STYLES if counts[verdict])
    return f"{len(checks)} check{'s' if len(checks) != 1 else ''}: {found}"
