"""What a render looks like."""

from __future__ import annotations

import io

import pytest
from msgspec import structs

from dr.client import progress as module
from dr.client.progress import LiveTable, PlainLines, Silence, choose_display, describe, show_count, show_time
from dr.client.tally import Progress, ServerRow

ROWS = (
    ServerRow(name="one", endpoint="a", state="rendering", text="", buckets=12, buckets_per_second=3.0),
    ServerRow(name="two", endpoint="b", state="preparing", text="building the tree", buckets=0, buckets_per_second=0),
)
HALF = Progress(
    buckets_done=12, buckets=24, seconds=4.0, samples_per_second=1.76e6, remaining_s=3.96, share=0.5, servers=ROWS,
    notices=("two: hello",),
)  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_one_line_tells_share_buckets_speed_servers_and_time_left() -> None:
    assert describe(HALF) == " 50%  12 buckets, 1.76 M samples/s, 1 server, 4.0 s left"


def test_one_of_several_frames_is_named() -> None:
    third = structs.replace(HALF, frame=12, frames_done=2, frames=100, share=0.025)
    assert describe(third).startswith("  2%  frame 12 (3 of 100), 12 buckets, ")


def test_without_a_server_at_work_the_line_says_what_is_waited_for() -> None:
    away = ServerRow(name="x", endpoint="x", state="not connected", text="", buckets=0, buckets_per_second=0)
    waits = [(), (away,), (away, ROWS[1]), (ROWS[1], ROWS[1])]
    lines = [describe(structs.replace(HALF, servers=rows)).partition(" buckets, ")[2] for rows in waits]
    alone = "waiting for a server"
    assert lines == [alone, alone, "a server is preparing", "2 servers are preparing"]


def test_the_display_follows_the_user_and_the_stream() -> None:
    kinds = [choose_display(True, Terminal()), choose_display(False, Terminal()), choose_display(False, io.StringIO())]
    assert [type(kind) for kind in kinds] == [Silence, LiveTable, PlainLines]


def test_plain_lines_tell_notices_and_now_and_then_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines.show(HALF)
    clock[0] = module.LINE_S
    lines.show(HALF)
    assert stream.getvalue().splitlines() == [
        "dr: two: hello",
        "dr: two: hello",
        f"dr: {describe(HALF)}",
        "dr:   two preparing: building the tree",
    ]


def test_a_terminal_shows_a_row_per_server() -> None:
    stream = Terminal()
    with LiveTable(stream) as table:
        table.show(HALF)
    shown = stream.getvalue()
    for words in ("12 buckets", "rendering, 12 buckets, 3.0 buckets/s", "preparing: building the tree"):
        assert words in shown
    assert "dr: two: hello" in shown


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.84, "0.8 s"), (42.4, "42 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")]
)
def test_times_read_well(seconds: float, text: str) -> None:
    assert show_time(seconds) == text


@pytest.mark.parametrize(("number", "text"), [(870, "870"), (12_340, "12.3 k"), (1.76e6, "1.76 M")])
def test_counts_read_well(number: float, text: str) -> None:
    assert show_count(number) == text
