"""Runs a request on a terminal: shows it, writes the files, says how it went. Decides nothing about rendering."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
from msgspec import Struct

from dr.broker.commands import Status
from dr.cli import COMPLETE, say
from dr.cli.interrupt import cancel_on_signals
from dr.client.guard import WARNING
from dr.client.logs import log_file
from dr.client.progress import choose_display, show_count, show_time
from dr.client.render import render_request
from dr.client.request import Request
from dr.client.result import LostServer, Result, ServerStatistics
from dr.errors import BadInput
from dr.image.output import abandon_unfinished, check_place

FILES_SHOWN = 4  # in the summary
NOTHING = "nothing to render"

log = logging.getLogger("dr.cli")


class Facts(Struct, frozen=True, kw_only=True):
    """The object that `--json` prints."""

    seconds: float
    samples_per_second: float
    buckets: int
    servers: tuple[ServerStatistics, ...]
    lost: tuple[LostServer, ...]
    outputs: tuple[str, ...]


def run_request(request: Request, json: bool, quiet: bool, verbose: bool) -> int:
    """Renders, writes and reports; gives the exit status."""
    _check_log(request.bucket_log)
    with log_file(request.settings.log_folder, "render", verbose) as log_path:
        if verbose and log_path:
            print(f"dr: log: {log_path}", file=sys.stderr)
        if quiet and request.security.insecure:
            say(WARNING, COMPLETE)  # else it is the first notice
        try:
            with cancel_on_signals(quiet) as cancel, choose_display(quiet or verbose) as display:
                result = render_request(request, display.show, cancel)
            write_bucket_log(request.bucket_log, result)
        except KeyboardInterrupt:
            say("interrupted", Status.INCOMPLETE)
            _leave_at_once()
        except Exception as error:
            log.exception("ended by an error")
            error.add_note(f"the whole story is in {log_path}" if log_path else "there is no log file")
            raise
    report(result, json, quiet)
    return int(result.status)


def _leave_at_once() -> NoReturn:
    """A thread may be inside an image library, which the end of the interpreter would crash. Servers are stopped."""
    abandon_unfinished()
    logging.shutdown()
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(Status.INCOMPLETE)


def write_bucket_log(path: Path | None, result: Result) -> None:
    if path is None:
        return
    try:
        path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in result.buckets))
    except OSError as error:
        raise BadInput(f"--bucket-log: cannot write {path}: {error.strerror}") from error


def report(result: Result, json: bool, quiet: bool) -> None:
    """The last words: why it is incomplete, one line of summary, the JSON object."""
    if not result.complete:
        partials = [str(path) for path in result.outputs if path.name.endswith(".partial.exr")]
        partial = f"; what there is is in {', '.join(partials)}; --resume goes on from there" if partials else ""
        say(f"incomplete: {result.reason}{partial}", Status.INCOMPLETE)
        for bucket in result.poisoned:
            work = bucket.bucket
            say(f"bucket at {work.x},{work.y} was given up: {bucket.error}", Status.INCOMPLETE)
    if not quiet:
        print(
            summarise(result) if result.statistics.buckets or result.outputs or not result.complete else NOTHING,
            file=sys.stderr if json else sys.stdout,
            flush=True,
        )
    if json:
        facts = result.statistics
        names = tuple(str(path) for path in result.outputs)
        answer = Facts(
            seconds=facts.seconds,
            samples_per_second=facts.samples_per_second,
            buckets=facts.buckets,
            servers=facts.servers,
            lost=facts.lost,
            outputs=names,
        )
        print(msgspec.json.encode(answer).decode(), flush=True)


def summarise(result: Result) -> str:
    """One line: files, time, speed, servers, shares."""
    facts = result.statistics
    files = _show_files([str(path) for path in result.outputs])
    servers = f"{len(facts.servers)} server{'s' if len(facts.servers) != 1 else ''}"
    count = sum(not each.removed for each in facts.lost)
    lost = f" ({count} lost)" if count else ""
    return (
        f"{files}: {show_time(facts.seconds)}, {show_count(facts.samples_per_second)} samples/s on {servers}{lost}, "
        f"wait {facts.wait_share:.0%}, render {facts.render_share:.0%}"
    )


def _show_files(files: Sequence[str]) -> str:
    if len(files) > FILES_SHOWN:
        return f"{files[0]} to {files[-1]} ({len(files)} files)"
    return ", ".join(files) or "no file"


def _check_log(path: Path | None) -> None:
    """BadInput before the render rather than after it."""
    if path is None or path.is_char_device() or path.is_fifo():
        return
    try:
        check_place(path)
    except BadInput as error:
        raise BadInput(f"--bucket-log: {error}") from error
