"""Log lines for people who do not read: a stopped terminal, a full pipe, nobody at the other end."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import select
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import pytest

from dr.client.terminal import TerminalHandler

DEADLINE_S = 30.0
LINES = [f"line {number} of a long story that nobody reads" for number in range(5000)]  # more than any buffer holds
GAP = re.compile(r"\(([0-9]+) lines of this log are lost: nobody read them in time\)")


@contextmanager
def logging_to(fd: int) -> Iterator[logging.Logger]:
    log = logging.Logger("test")
    with open(fd, "w", closefd=False) as stream:
        handler = TerminalHandler(stream)
        log.addHandler(handler)
        yield log
        handler.close()


def log_all(log: logging.Logger, lines: list[str]) -> None:
    """In a thread, so that a handler that waits fails a test instead of stopping it."""
    thread = threading.Thread(target=lambda: [log.info(line) for line in lines], daemon=True)
    thread.start()
    thread.join(DEADLINE_S)
    assert not thread.is_alive(), "the handler waits for its reader"


def read_lines(fd: int, last: str) -> list[str]:
    """All up to that line."""
    data = b""
    while last.encode() not in data:
        assert select.select([fd], [], [], DEADLINE_S)[0], data[-200:]
        data += os.read(fd, 1 << 16)
    return data.decode().splitlines()


def read_waiting(fd: int) -> str:
    """All that is there now."""
    data = b""
    while select.select([fd], [], [], 0)[0]:
        data += os.read(fd, 1 << 16)
    return data.decode()


def assert_gap_told(shown: list[str], last: str) -> None:
    """Each line is whole and in its place or counted as lost; some are, and then it goes on with `last`."""
    place = lost = 0
    for line in shown:
        if gap := GAP.fullmatch(line):
            lost += int(gap[1])
            place += int(gap[1])
        else:
            assert line == (LINES[place] if place < len(LINES) else last)
            place += 1
    assert 0 < lost < len(LINES)
    assert place > len(LINES)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(the user's end, the program's end)"""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4 * select.PIPE_BUF)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_stopped_terminal_stops_nobody_and_shows_later_what_is_missing(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with logging_to(theirs) as log:
        log.info(LINES[0])
        assert read_lines(ours, LINES[0]) == LINES[:1]
        termios.tcflow(theirs, termios.TCOOFF)  # as Ctrl-S does
        log_all(log, LINES[1:])
        termios.tcflow(theirs, termios.TCOON)
        log.info("it goes on")
        assert_gap_told([LINES[0], *read_lines(ours, "it goes on")], "it goes on")


def test_a_terminal_that_nobody_reads_stops_nobody(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with logging_to(theirs) as log:
        log_all(log, LINES)
        shown = ""
        deadline = monotonic() + DEADLINE_S
        while "it goes on" not in shown:  # the kernel makes room when it likes
            assert monotonic() < deadline, shown[-200:]
            shown += read_waiting(ours)
            log_all(log, ["it goes on"])
        assert_gap_told(shown.splitlines(), "it goes on")
    assert os.get_blocking(theirs)  # the shell has the same terminal


def test_a_pipe_that_nobody_reads_stops_nobody(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with logging_to(writer) as log:
        log_all(log, LINES)
        first = read_waiting(reader)
        log_all(log, ["it goes on"])
        assert_gap_told((first + "\n".join(read_lines(reader, "it goes on"))).splitlines(), "it goes on")


def test_what_is_lost_to_the_end_is_told_at_the_end(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    with logging_to(writer) as log:
        log_all(log, LINES)
        first = read_waiting(reader)
    assert_gap_told((first + read_waiting(reader)).splitlines(), "the log ends here")


def test_a_line_longer_than_a_pipe_takes_at_once_arrives_whole(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 16 * select.PIPE_BUF)
    with logging_to(writer) as log:
        log_all(log, ["x" * 3 * select.PIPE_BUF])
    assert os.read(reader, 1 << 20) == b"x" * 3 * select.PIPE_BUF + b"\n"


def test_a_reader_that_is_gone_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with logging_to(writer) as log:
        log_all(log, LINES)
    os.close(writer)


def test_a_stream_without_a_descriptor_is_written_to() -> None:
    stream = io.StringIO()
    log = logging.Logger("test")
    log.addHandler(TerminalHandler(stream))
    log.info("a line")
    assert stream.getvalue() == "a line\n"
