"""What a parent writes its child reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import BadInput
from dr.protocol.messages import Announcement, Availability, EngineKind
from workers.server.words import ServeOptions, as_words, read_options, read_report, report_line
from workers.server.work import Limits

NUMBERS = st.lists(st.integers(0, 65535), max_size=9, unique=True).map(tuple)
OPTIONS = st.builds(
    ServeOptions,
    endpoint=st.none() | st.just("ipc:///run/dr/1"),
    bind=st.sampled_from(["", "*", "::1"]),
    port=st.integers(0, 65535),
    engine=st.sampled_from(EngineKind),
    threads=st.none() | st.integers(1, 4096),
    cpus=st.none() | NUMBERS.filter(bool),
    nodes=NUMBERS,
    memory_nodes=NUMBERS,
    name=st.none() | st.just("a name"),
    announce=st.integers(0, 65535),
    siblings=NUMBERS,
    supervised=st.booleans(),
    dial=st.lists(st.sampled_from(["desk:20300", "[::1]:1", "--odd"]), max_size=3).map(tuple),
    insecure=st.booleans(),
    parent_pid=st.none() | st.integers(1, 1 << 22),
)


@given(OPTIONS)
def test_options_survive_the_way_to_the_child(options: ServeOptions) -> None:
    assert read_options(as_words(options), Limits()) == (options, False)


def test_a_bad_list_names_its_option() -> None:
    with pytest.raises(BadInput, match="--memory-nodes: expected numbers such as 0-3,8, found 'x'"):
        read_options(["--memory-nodes", "x"], Limits())


def test_a_report_survives_the_way_to_the_parent() -> None:
    said = Announcement(version=1, port=20204, boot=bytes(8), state=Availability.BUSY, holder='ada "the first"\n')
    assert read_report(report_line(said)) == said
    assert "\n" not in report_line(said)


@pytest.mark.parametrize("line", ["", "listening on tcp://127.0.0.1:1", "{}", '{"v": 1, "port": 0}', "null"])
def test_another_line_is_no_report(line: str) -> None:
    assert read_report(line) is None
