"""V-Ray's spelling of options is understood, and nothing that is no option is touched."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.cli import main
from dr.cli.dashes import Names, command_path, mend_dashes
from dr.errors import BadInput

INSTALL = Names(
    frozenset({"numa", "node", "port", "ports", "print", "help"}),
    frozenset("hv"),
    frozenset({"numa", "node", "port", "ports"}),
)
SPAWNER = Names(
    frozenset({"numa", "node", "port", "ports", "per-node", "plan", "help"}),
    frozenset("hv"),
    frozenset({"numa", "node", "port", "ports", "per-node"}),
    {"install": INSTALL, "stop": Names(frozenset({"port", "all", "help"}), frozenset("h"), frozenset({"port"}))},
)
RENDER = Names(
    frozenset({"exposure", "output", "local", "no-local", "quiet", "verbose", "numb", "help"}),
    frozenset("oqvh"),
    frozenset({"exposure", "output", "o"}),
)
DR = Names(frozenset({"version", "help"}), frozenset("h"), commands={"spawner": SPAWNER, "render": RENDER})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("spawner -port=30000", "spawner --port=30000"),
        ("spawner -port 30000", "spawner --port 30000"),
        ("spawner --port=1", "spawner --port=1"),
        ("spawner -numa", "spawner --numa=0"),
        ("spawner --numa", "spawner --numa=0"),
        ("spawner -numa -node=3", "spawner --numa=0 --node=3"),
        ("spawner -numa --plan", "spawner --numa=0 --plan"),
        ("spawner -numa install", "spawner --numa=0 install"),
        ("spawner -numa=4", "spawner --numa=4"),
        ("spawner -numa=", "spawner --numa="),
        ("spawner -node=3,5,6 -ports=30000,40000", "spawner --node=3,5,6 --ports=30000,40000"),
        ("spawner -per-node=2", "spawner --per-node=2"),
        ("spawner install -numa=4 -v", "spawner install --numa=4 -v"),
        ("spawner stop -port=30000 -all", "spawner stop --port=30000 --all"),
        ("render a.glb -no-local", "render a.glb --no-local"),
        ("render -q -o a.exr", "render -q -o a.exr"),
        ("render -o=a.exr", "render -oa.exr"),
        ("render --exposure -0.5", "render --exposure -0.5"),
        ("render -exposure -0.5", "render --exposure -0.5"),
        ("render -o -numb", "render -o -numb"),
        ("render -qvo -numb", "render -qvo -numb"),
        ("render -qv", "render -qv"),
        ("render -oa-b.exr -v", "render -oa-b.exr -v"),
        ("render -", "render -"),
        ("render -- -numb -x", "render -- -numb -x"),
        ("render spawner -q", "render spawner -q"),
        ("-h", "-h"),
        ("--version", "--version"),
    ],
)
def test_one_dash_before_a_long_option_is_enough(words: str, expected: str) -> None:
    assert mend_dashes(words.split(), DR) == expected.split()


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("spawner -nmua=4", "No such option: -nmua=4 (did you mean -numa?)"),
        ("spawner --nmua=4", "No such option: --nmua=4 (did you mean --numa?)"),
        ("spawner -prot=1", "No such option: -prot=1 (did you mean -port?)"),
        ("spawner -node-3", "No such option: -node-3 (did you mean -node?)"),
        ("spawner -numa4", "No such option: -numa4 (did you mean -numa?)"),
        ("spawner -NODE=3", "No such option: -NODE=3 (did you mean -node?)"),
        ("spawner ---numa=4", "No such option: ---numa=4 (did you mean --numa?)"),
        ("spawner -x", "No such option: -x; see dr spawner --help"),
        ("spawner -v=1", "No such option: -v=1; see dr spawner --help"),
        ("spawner stop -numa", "No such option: -numa; see dr spawner stop --help"),
        ("spawner install -prnt", "No such option: -prnt (did you mean -print?)"),
        ("-verison", "No such option: -verison (did you mean -version?)"),
        ("spawner -numa 4", "-numa 4: expected -numa or -numa=N, found a space; write -numa=4"),
        ("spawner --numa 4 --plan", "--numa 4: expected --numa or --numa=N, found a space; write --numa=4"),
        ("spawner install -numa 4", "-numa 4: expected -numa or -numa=N, found a space; write -numa=4"),
    ],
)
def test_a_word_that_no_option_can_be_is_refused_by_name(words: str, error: str) -> None:
    with pytest.raises(BadInput) as found:
        mend_dashes(words.split(), DR)
    assert str(found.value) == error


PLAIN = st.sampled_from(
    ["a.glb", "-", "x=1", "-0.5", "--exposure=1", "-o", "-q", "-qv", "--quiet", "--", "-exposure=2"]
)


@given(st.lists(PLAIN))
def test_mending_twice_changes_nothing_more(words: list[str]) -> None:
    try:
        once = mend_dashes(["render", *words], DR)
    except BadInput:
        return
    assert mend_dashes(once, DR) == once
    assert len(once) == len(words) + 1


@pytest.mark.parametrize(
    ("words", "path"),
    [("spawner install -numa", "spawner install"), ("render a.glb spawner", "render"), ("spwner", ""), ("", "")],
)
def test_the_command_is_known_by_its_path(words: str, path: str) -> None:
    assert command_path(words.split(), DR) == path.split()


@pytest.fixture
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, whose logs are thrown away."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))


@pytest.mark.usefixtures("_user")
@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("spawner -port=31100 -ports=31101", "-port: expected once, found twice; several ports are written -port=A,B"),
        (
            "spawner --port 1 --port 2 --plan",
            "--port: expected once, found twice; several ports are written --port=A,B",
        ),
        ("spawner -node=1 -node=2 -node=3", "-node: expected once, found 3 times; several nodes are written -node=A,B"),
        ("spawner -numa=1 -numa=2", "-numa: expected once, found twice; leave one out"),
        ("spawner -numa --numa=2", "-numa: expected once, found twice; leave one out"),
        ("spawner stop -port=1 -port=2", "-port: expected once, found twice; leave one out"),
        ("spawner install -port=1 -ports=2", "-port: expected once, found twice; several ports are written -port=A,B"),
        ("serve -node=1 --node 2", "-node: expected once, found twice; several nodes are written -node=A,B"),
        ("render a.glb --samples 1 -samples=2", "--samples: expected once, found twice; leave one out"),
        ("status --seconds 1 --seconds=2", "--seconds: expected once, found twice; leave one out"),
    ],
)
def test_an_option_with_one_value_is_refused_when_it_is_said_again(
    words: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real options: click would take the last one and forget the others without a word."""
    assert main(words.split()) == 2
    assert capsys.readouterr().err == f"dr: {error}\n"


@pytest.mark.usefixtures("_user")
def test_an_option_that_may_repeat_and_a_flag_may_be_said_again(capsys: pytest.CaptureFixture[str]) -> None:
    words = "render none.glb -o a.exr -o b.png --output c.png --server 127.0.0.1:1 --server 127.0.0.1:2 -v -v --verbose"
    assert main(words.split()) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("dr: none.glb: there is no such file")
    assert main(["spawner", "--plan", "--plan", "--dial", "127.0.0.1:1", "--dial", "127.0.0.1:2"]) == 0
