"""Edits of TOML text: what was asked for changes, and not one byte more."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dr.client.toml_items import tokens_of
from dr.client.toml_text import TomlText, format_value

NEW = {"host": "new"}


def edit(text: str) -> TomlText:
    tomllib.loads(text)
    return TomlText(text, "servers")


def added(text: str, *tables: Mapping[str, Any]) -> str:
    toml = edit(text)
    toml.append(tables or [NEW])
    return toml.text()


def removed(text: str, *indexes: int) -> str:
    toml = edit(text)
    toml.remove(indexes)
    return toml.text()


def changed(text: str, index: int, **fields: Any) -> str:
    toml = edit(text)
    toml.change({index: fields})
    return toml.text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", 'servers = [\n    { host = "new" },\n]\n'),
        ("threads = 1", 'threads = 1\nservers = [\n    { host = "new" },\n]'),
        ("servers = []\n", 'servers = [{ host = "new" }]\n'),
        ("servers = [ ] # c\n", 'servers = [ { host = "new" } ] # c\n'),
        ("servers = [\n]\n", 'servers = [\n    { host = "new" },\n]\n'),
        ("servers = [ # none\n  # yet\n]\n", 'servers = [ # none\n  # yet\n    { host = "new" },\n]\n'),
        ('servers = [{host="a"}]\n', 'servers = [{host="a"}, { host = "new" }]\n'),
        ('servers = [{host="a"},]\n', 'servers = [{host="a"}, { host = "new" },]\n'),
        (
            'servers = [\n\t{host="a"}, # a\n\t# end\n]\n',
            'servers = [\n\t{host="a"}, # a\n\t{ host = "new" },\n\t# end\n]\n',
        ),
        ('servers = [\n {host="a"} # ,a\n]\n', 'servers = [\n {host="a"}, # ,a\n { host = "new" }\n]\n'),
        ('servers = [{host="a"}# a\n]\n', 'servers = [{host="a"},# a\n    { host = "new" }\n]\n'),
        ('[[servers]]\nhost="a"\n', '[[servers]]\nhost="a"\n\n[[servers]]\nhost = "new"\n'),
        ('[[servers]]\nhost="a"', '[[servers]]\nhost="a"\n\n[[servers]]\nhost = "new"'),
        (
            '[[servers]]\nhost="a"\n[[ "servers" ]]\nhost="b"\n\n# x\n[x]\n',
            '[[servers]]\nhost="a"\n[[ "servers" ]]\nhost="b"\n[[servers]]\nhost = "new"\n\n# x\n[x]\n',
        ),
        ("# top\n\n[x]\na=1\n", '# top\n\nservers = [\n    { host = "new" },\n]\n\n[x]\na=1\n'),
        ("a=1\r\n[x]\r\n", 'a=1\r\nservers = [\r\n    { host = "new" },\r\n]\r\n[x]\r\n'),
        ("[x]\nservers = []\n", 'servers = [\n    { host = "new" },\n]\n\n[x]\nservers = []\n'),
    ],
)
def test_a_new_table_is_written_as_its_neighbours_are(before: str, after: str) -> None:
    assert added(before) == after


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        ('servers = [{host="a"}, {host="b"}, {host="c"}]', 1, 'servers = [{host="a"}, {host="c"}]'),
        ('servers = [ {host="a"}, {host="b"} ]', 0, 'servers = [ {host="b"} ]'),
        ('servers = [{host="a"}, {host="b"}]', 1, 'servers = [{host="a"}]'),
        (
            'servers = [\n  {host="a"}, # a\n  # b is fast\n  {host="b"}, # b\n]',
            1,
            'servers = [\n  {host="a"}, # a\n  # b is fast\n]',
        ),
        ('servers = [\n  # c\n  {host="a"}]', 0, "servers = [\n  # c\n]"),
        ('servers = [{host="a"}, # all\n {host="b"}]', 0, 'servers = [ # all\n {host="b"}]'),
        ('servers = [{host="a"}, {host="b"}, # all\n]', 1, 'servers = [{host="a"}, # all\n]'),
        (
            'servers = [\n {host="a"}, {host="b"}, # two\n {host="c"}]',
            0,
            'servers = [\n {host="b"}, # two\n {host="c"}]',
        ),
        ('servers = [{host="a", addresses=["1", "2"]}]', 0, "servers = []"),
        ('x=1\n\n[[servers]]\nhost="a"\n\n[[servers]]\nhost="b"\n', 0, 'x=1\n\n[[servers]]\nhost="b"\n'),
        ('# c\n[[servers]] # d\nhost="a" # e\nport=2\n# f\n', 0, "# c\n# f\n"),
        ('[[servers]]\nhost="a"\n[y]\n[[servers]]\nhost="b"', 1, '[[servers]]\nhost="a"\n[y]'),
    ],
)
def test_a_table_goes_and_comments_in_lines_of_their_own_stay(before: str, index: int, after: str) -> None:
    assert removed(before, index) == after


@pytest.mark.parametrize(
    ("before", "fields", "after"),
    [
        ('servers = [{host="a"}]', {"enabled": False}, 'servers = [{host="a", enabled = false}]'),
        ('servers = [ { host = "a" }, ]', {"enabled": False}, 'servers = [ { host = "a", enabled = false }, ]'),
        ('servers = [{enabled=true,host="a"}]', {"enabled": False}, 'servers = [{enabled=false,host="a"}]'),
        ('servers = [{"host"=\'a,#"\' }]', {"host": "b"}, 'servers = [{"host"="b" }]'),
        ('servers = [{host="a",port=1}]', {"port": None}, 'servers = [{host="a"}]'),
        ('servers = [{port=1, host="a"}]', {"port": None}, 'servers = [{host="a"}]'),
        ('servers = [{host="a"}]', {"addresses": ("1", "2")}, 'servers = [{host="a", addresses = ["1", "2"]}]'),
        ('[[servers]]\nhost="a" # c\n\n[x]', {"port": 2}, '[[servers]]\nhost="a" # c\nport = 2\n\n[x]'),
        ('[[servers]]\n\thost="a"', {"port": 2}, '[[servers]]\n\thost="a"\n\tport = 2'),
        ('[[servers]]\nhost="a"\nport=1 # p\n', {"port": 3}, '[[servers]]\nhost="a"\nport=3 # p\n'),
        ('[[servers]]\nhost="a"\nport=1', {"port": None}, '[[servers]]\nhost="a"'),
        ('[[servers]]\nhost = """\na"""\nport=1', {"host": "b"}, '[[servers]]\nhost = "b"\nport=1'),
    ],
)
def test_a_field_changes_where_it_stands(before: str, fields: dict[str, Any], after: str) -> None:
    assert changed(before, 0, **fields) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("threads = 1 # one\n", "threads = 2 # one\n"),
        ("'threads'=1", "'threads'=2"),
        ("a = 1\n[x]\nthreads = 1\n", "a = 1\nthreads = 2\n[x]\nthreads = 1\n"),
        ("", "threads = 2\n"),
    ],
)
def test_a_value_of_the_first_level_is_set(before: str, after: str) -> None:
    toml = edit(before)
    toml.set_value("threads", 2)
    assert toml.text() == after


def test_a_long_line_goes_on_in_the_next() -> None:
    text = added("servers = []", *({"host": f"render{number}.example.org"} for number in range(100)))
    assert max(map(len, text.splitlines())) < 200
    assert len(tomllib.loads(text)["servers"]) == 100


UTF_8 = st.text(st.characters(codec="utf-8"))


@given(st.one_of(UTF_8, st.booleans(), st.integers(0, 1 << 40), st.lists(UTF_8)))
def test_toml_reads_a_value_as_it_was_written(value: Any) -> None:
    assert tomllib.loads(f"x = {format_value(value)}")["x"] == value


BLANKS = st.sampled_from(["", " ", "  ", "\t"])
WORDS = st.sampled_from(["c", "# [[servers]]", "a, b", "]}", '"', "'''", "é = [", "servers = []"])
HOSTS = st.sampled_from(['"a"', "'b'", '"x,y"', '"q\\"]"', "'#h'", '"""m"""', "'''n'''"])


@st.composite
def fields(draw: st.DrawFn) -> list[str]:
    equals = draw(st.sampled_from(["=", " = ", " =\t"]))
    keys = draw(st.sampled_from([("host", "port", "enabled"), ('"host"', "port", "'enabled'")]))
    others = [f"{keys[1]}{equals}{draw(st.integers(1, 9))}", f"{keys[2]}{equals}true", f'addresses{equals}["1", "2"]']
    chosen = [f"{keys[0]}{equals}{draw(HOSTS)}", *draw(st.lists(st.sampled_from(others), unique=True))]
    return draw(st.permutations(chosen))


@st.composite
def inline_tables(draw: st.DrawFn) -> str:
    pad = draw(BLANKS)
    return "{" + pad + (draw(BLANKS) + "," + draw(BLANKS)).join(draw(fields())) + pad + "}"


@st.composite
def trivia(draw: st.DrawFn) -> str:
    parts = st.one_of(BLANKS, st.just("\n"), st.builds("# {}\n".format, WORDS))
    return "".join(draw(st.lists(parts, max_size=4)))


@st.composite
def arrays(draw: st.DrawFn) -> str:
    tables = draw(st.lists(inline_tables(), max_size=4))
    text = "".join(draw(trivia()) + table + draw(trivia()) + "," for table in tables)
    if tables and draw(st.booleans()):
        text = text[:-1]
    return f"servers = [{text}{draw(trivia())}]{draw(BLANKS)}# after\n"


@st.composite
def blocks(draw: st.DrawFn) -> str:
    table = "\n".join(draw(BLANKS) + field + draw(BLANKS) + "# of a field" for field in draw(fields()))
    other = draw(st.sampled_from(["", "\n[[x]]\n", "\n[x.y]\nservers = [1]\n"]))
    return f"{draw(BLANKS)}[[{draw(BLANKS)}servers ]] # of a table\n{table}\n{other if '[[' in other else ''}"


@st.composite
def documents(draw: st.DrawFn) -> str:
    top = draw(trivia()) + draw(
        st.sampled_from(["", "threads = 1\n", 'text = """\n[[servers]]\n"""\n', "a.servers = 1\n"])
    )
    listed = draw(
        st.one_of(st.just(""), arrays(), st.lists(st.builds("{}{}".format, trivia(), blocks())).map("\n".join))
    )
    below = draw(st.sampled_from(["", "\n# of x\n[z]\na = [{}]\n", "\n[z.servers]\nb = 2"]))
    text = f"{top}\n{listed}{draw(trivia())}{below}"
    return text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))


def comments(text: str) -> list[str]:
    return [token.rstrip() for token in tokens_of(text) if token.startswith("#")]


def own_line_comments(text: str) -> list[str]:
    return [found.rstrip() for found in re.findall(r"^[ \t]*(#.*)$", text, re.MULTILINE)]


@settings(max_examples=50, deadline=None)
@given(documents())
def test_an_unchanged_text_is_the_same_text(text: str) -> None:
    assert edit(text).text() == text


@settings(max_examples=50, deadline=None)
@given(documents())
def test_adding_keeps_all_that_was_there_and_removing_it_again_gives_the_same_bytes(text: str) -> None:
    before = tomllib.loads(text)
    longer = added(text)
    after = tomllib.loads(longer)
    assert after.pop("servers") == [*before.get("servers", []), NEW]
    assert after == {key: value for key, value in before.items() if key != "servers"}
    assert comments(longer) == comments(text)
    if "servers" in before:
        assert removed(longer, len(before["servers"])) == text


@settings(max_examples=50, deadline=None)
@given(documents(), st.data())
def test_removing_takes_the_right_tables_and_leaves_comments_in_their_own_lines(text: str, data: st.DataObject) -> None:
    before = tomllib.loads(text)
    listed = before.get("servers", [])
    gone = data.draw(st.sets(st.integers(0, len(listed) - 1))) if listed else set()
    shorter = removed(text, *gone)
    after = tomllib.loads(shorter)
    assert after.get("servers", []) == [table for at, table in enumerate(listed) if at not in gone]
    assert {**after, "servers": 0} == {**before, "servers": 0}
    assert set(own_line_comments(text)) <= set(comments(shorter))


@settings(max_examples=50, deadline=None)
@given(documents(), st.data())
def test_a_changed_table_changes_alone(text: str, data: st.DataObject) -> None:
    before = tomllib.loads(text)
    assume(before.get("servers"))
    index = data.draw(st.integers(0, len(before["servers"]) - 1))
    field = data.draw(st.sampled_from(["host", "port", "enabled", "addresses"]))
    value = {"host": "h", "port": 7, "enabled": False, "addresses": ["1.2.3.4"]}[field]
    there = field in before["servers"][index]
    other = changed(text, index, **{field: value})
    before["servers"][index][field] = value
    assert tomllib.loads(other) == before
    assert comments(other) == comments(text)
    if not there:
        assert changed(other, index, **{field: None}) == text
