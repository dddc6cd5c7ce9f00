"""A child process as its parent sees it: lines, ends, and who goes with it."""

from __future__ import annotations

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from workers.spawner.child import MAX_LINE_BYTES, READ_BYTES, Child

DEADLINE_S = 30


@contextmanager
def started(program: str) -> Iterator[Child]:
    child = Child([sys.executable, "-S", "-c", program], dict(os.environ))
    try:
        yield child
    finally:
        child.close()


def read_all(child: Child, fd: int) -> list[str]:
    """Every line up to the end of the stream."""
    lines: list[str] = []
    while select.select([fd], [], [], DEADLINE_S)[0]:
        more, ended = child.read_lines(fd)
        lines += more
        if ended:
            return lines
    raise AssertionError(f"only {lines}")


def wait_for_line(child: Child) -> str:
    lines: list[str] = []
    while not lines:
        assert select.select([child.stdout], [], [], DEADLINE_S)[0], "it says nothing"
        lines, ended = child.read_lines(child.stdout)
        assert not ended
    return lines[0]


def test_lines_are_whole_and_made_printable() -> None:
    parts = (b"on", b"e\n\n two\r\n", b"\x1b[31m\xff")
    program = f"import os\nfor part in {parts}: os.write(1, part)\nos.write(2, b'x\\n')"
    with started(program) as child:
        assert read_all(child, child.stdout) == ["one", " two", "?[31m\ufffd"]
        assert read_all(child, child.stderr) == ["x"]


def test_reading_never_waits() -> None:
    with started("import sys; sys.stdin.read()") as child:
        assert child.read_lines(child.stdout) == ([], False)
        assert child.read_lines(child.stderr) == ([], False)


def test_a_line_without_end_is_read_in_pieces() -> None:
    with started(f"import os; os.write(1, b'x' * {3 * MAX_LINE_BYTES})") as child:
        lines = read_all(child, child.stdout)
        assert "".join(lines) == "x" * (3 * MAX_LINE_BYTES)
        assert all(len(line) <= MAX_LINE_BYTES + READ_BYTES for line in lines)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("", "ended with status 0"),
        ("raise SystemExit(7)", "ended with status 7"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "killed by SIGKILL"),
        ("import os; os.kill(os.getpid(), 40)", "killed by signal 40"),
    ],
)
def test_the_end_has_a_reason_in_words(program: str, reason: str) -> None:
    with started(program) as child:
        assert child.reason() == "closed its output"
        assert child.wait(DEADLINE_S)
        assert child.reason() == reason


def test_last_words_are_part_of_the_reason_unless_it_was_killed_from_outside() -> None:
    with started("raise SystemExit(2)") as child:
        child.last_words.append("no such port")
        assert child.wait(DEADLINE_S)
        assert child.reason() == "ended with status 2: no such port"
    with started("import sys; sys.stdin.read()") as child:
        child.last_words.append("all is well")
        child.kill()
        assert child.wait(DEADLINE_S)
        assert child.reason() == "killed by SIGKILL"


def test_a_grandchild_that_keeps_the_streams_open_does_not_hide_the_death() -> None:
    program = (
        "import os, signal\nif os.fork() == 0: signal.pause()\nos.write(1, b'one\\ntwo'); os.write(2, b'three\\n')"
    )
    with started(program) as child:
        assert child.wait(DEADLINE_S)
        assert child.status == 0
        assert child.read_rest(child.stdout) == ["one", "two"]
        assert child.read_rest(child.stderr) == ["three"]
        (orphan,) = [each for each in psutil.process_iter() if same_group(each.pid, child.pid)]
        orphan.kill()


def test_killing_takes_along_what_it_started() -> None:
    program = "import os, signal\npid = os.fork()\npid and print(pid, flush=True)\nsignal.pause()"
    with started(program) as child:
        grandchild = psutil.Process(int(wait_for_line(child)))
        child.send_signal(signal.SIGSTOP)
        child.kill()
        assert child.wait(DEADLINE_S)
        _, alive = psutil.wait_procs([grandchild], timeout=DEADLINE_S)
        assert alive == []


def test_a_dead_child_hears_no_signal_and_closes_in_peace() -> None:
    with started("") as child:
        assert child.wait(DEADLINE_S)
        child.send_signal(signal.SIGTERM)
        child.kill()


def test_a_program_that_is_not_there_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        Child(["/no/such/dr"], {})


def test_closing_ends_it_and_gives_its_streams_back() -> None:
    before = psutil.Process().num_fds()
    with started("import signal; signal.signal(15, signal.SIG_IGN); signal.pause()") as child:
        assert not child.wait(0.0)
    assert child.status == -signal.SIGKILL
    assert psutil.Process().num_fds() == before


def same_group(pid: int, group: int) -> bool:
    try:
        return pid != group and os.getpgid(pid) == group
    except OSError:
        return False
