"""`dr warmup` says what it does without drowning it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dr.cli import main
from dr.cli import warmup as module

STEPS = ("compiling kernels: 1 of 3", "compiling kernels: 2 of 3", "compiling kernels: 3 of 3")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _nothing_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels that compile in no time, on a clock of whole seconds."""

    def warm_up(say: Callable[[str], None]) -> None:
        for step in STEPS:
            say(step)

    clock = iter(range(100, 200))
    monkeypatch.setattr("workers.prepare.warmup.warm_up", warm_up)
    monkeypatch.setattr("workers.prepare.warmup.use_kernel_cache", lambda: Path("kernels"))
    monkeypatch.setattr(module, "monotonic", lambda: float(next(clock)))


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup"]) == 0
    first, last = capsys.readouterr().err.splitlines()
    assert first == f"dr: {STEPS[0]}"
    assert last.startswith("dr: the kernels are ready after ")


def test_a_terminal_shows_each_step_in_the_same_place(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main(["warmup"]) == 0
    shown = terminal.getvalue()
    assert [step for step in STEPS if step not in shown] == []
    assert shown.count("\n") == 1


def test_a_quiet_warmup_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["warmup", "-q"]) == 0
    assert capsys.readouterr().err == ""
