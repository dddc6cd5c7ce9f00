"""What a supervised server tells a parent that reads late, or not at all, or is gone."""

from __future__ import annotations

import fcntl
import logging
import os

import pytest

from dr.protocol.messages import Announcement, Availability
from workers.server.parent import LINE_BYTES, LogHandler, Reports, line_of
from workers.server.words import read_report


@pytest.fixture
def pipe():
    """(end to read, end to write) of a pipe that holds one line."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, LINE_BYTES)
    os.set_blocking(reader, False)
    os.set_blocking(writer, True)
    yield reader, writer
    os.close(writer)
    os.close(reader)


def report(holder: str) -> Announcement:
    return Announcement(version=1, port=1, boot=bytes(8), state=Availability.BUSY, holder=holder)


def read_lines(reader: int) -> list[str]:
    return os.read(reader, 1 << 20).decode().splitlines()


def test_a_report_is_a_line(pipe):
    reader, writer = pipe
    reports = Reports(writer)
    reports.put(report("ada"))
    assert [read_report(line) for line in read_lines(reader)] == [report("ada")]
    assert reports.waiting is None


def test_a_parent_that_reads_late_gets_what_is_true_then(pipe):
    reader, writer = pipe
    reports = Reports(writer)
    for holder in ("ada", "bob", "eve"):
        reports.put(report(holder))
    assert [read_report(line) for line in read_lines(reader)] == [report("ada")]
    reports.send()
    assert [read_report(line) for line in read_lines(reader)] == [report("eve")]
    reports.send()
    with pytest.raises(BlockingIOError):
        os.read(reader, 1)


def test_the_longest_report_is_written_at_once():
    assert all(len(line_of(report(letter * 256))) <= LINE_BYTES for letter in '\N{GRINNING FACE}"\\')


@pytest.mark.parametrize("tell", [lambda fd: Reports(fd).put(report("ada")), lambda fd: logger(fd).info("lease")])
def test_a_parent_that_is_gone_is_no_error(tell):
    reader, writer = os.pipe()
    os.close(reader)
    tell(writer)
    os.close(writer)
    tell(-1)


def logger(fd: int) -> logging.Logger:
    found = logging.Logger("test")
    found.addHandler(LogHandler(fd))
    return found


def test_the_log_has_levels_and_no_time(pipe):
    reader, writer = pipe
    logger(writer).warning("memory %s", "full")
    assert read_lines(reader) == ["WARNING memory full"]


def test_lines_that_nobody_reads_are_lost_and_counted(pipe):
    reader, writer = pipe
    log = logger(writer)
    for number in range(4):
        log.info("line %d", number)
    assert read_lines(reader) == ["INFO line 0"]
    log.info("line 4")
    assert read_lines(reader) == ["WARNING 3 lines of this log are lost: nobody read them in time"]


def test_a_line_that_is_too_long_for_one_write_is_cut(pipe):
    reader, writer = pipe
    logger(writer).info("x" * 10_000)
    (line,) = read_lines(reader)
    assert len(line) == LINE_BYTES - 1
