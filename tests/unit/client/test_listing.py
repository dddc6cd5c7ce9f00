"""Which servers are wanted, whatever lists and answers come in whatever order."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as some

from dr.broker.events import ServerAdded, ServerRemoved
from dr.client.listing import Listed, Listing, Word
from dr.protocol.address import parse_address

TEXTS = (
    "a",
    "a:20204",
    "a:20204-20206",
    "dns+any:a",
    "b",
    "dns+any:b:20205",
    "10.0.0.1",
    "10.0.0.1:20204",
    "[fd00::1]",
    "ipc:///run/dr/1",
)
LITERALS = ("10.0.0.1", "10.0.0.2", "fd00::1")

Step = tuple[str, tuple[str, ...]]  # ("", texts) is a new list, (name, literals) an answer
lists = some.tuples(some.just(""), some.lists(some.sampled_from(TEXTS), unique=True).map(tuple))
answers = some.tuples(some.sampled_from("ab"), some.lists(some.sampled_from(LITERALS), unique=True).map(tuple))


def words(*texts: str) -> list[Word]:
    return [Word(text, parse_address(text)) for text in texts]


def expected(texts: Iterable[str], literals: dict[str, tuple[str, ...]]) -> dict[str, bool]:
    """The slow, obvious twin."""
    found: dict[str, bool] = {}
    for text in texts:
        host, _, ports = text.removeprefix("dns+any:").partition(":")
        if text.startswith("ipc:"):
            found[text] = False
            continue
        if text == "[fd00::1]":
            host, ports = "fd00::1", ""
        places = literals.get(host, ()) if host in "ab" else (host,)
        first, _, last = (ports or "20204").partition("-")
        for place in places if text.startswith("dns") else places[:1]:
            for port in range(int(first), int(last or first) + 1):
                endpoint = f"tcp://[{place}]:{port}" if ":" in place else f"tcp://{place}:{port}"
                found[endpoint] = found.get(endpoint, False) or not ports
    return found


def follow(known: dict[str, bool], changes: Iterable[Listed]) -> None:
    """What a broker makes of the events: it only ever learns that a host is wanted whole."""
    for change in changes:
        if isinstance(change, ServerRemoved):
            assert change.reason
            del known[change.endpoint]
        else:
            known[change.endpoint] = known.get(change.endpoint, False) or change.whole_host


@given(some.lists(lists | answers, max_size=12))
def test_what_was_added_and_not_removed_is_what_is_wanted_and_resolved(steps: list[Step]) -> None:
    listing = Listing()
    known: dict[str, bool] = {}
    texts: tuple[str, ...] = ()
    literals: dict[str, tuple[str, ...]] = {}
    for name, values in steps:
        if name:
            follow(known, listing.answer(name, values))
            literals |= {name: values} if name in listing.names() else {}
        else:
            follow(known, listing.want(words(*values), {}))
            texts = values
            literals = {each: found for each, found in literals.items() if each in listing.names()}
        assert known == dict(listing.endpoints) == expected(texts, literals)


@given(some.lists(lists | answers, max_size=6), lists | answers)
def test_the_same_list_or_answer_again_changes_nothing(steps: list[Step], last: Step) -> None:
    listing = Listing()
    for name, values in (*steps, last):
        changes = listing.answer(name, values) if name else listing.want(words(*values), {})
    name, values = last
    assert not (listing.answer(name, values) if name else listing.want(words(*values), {})), changes


def test_a_server_that_two_words_name_goes_with_the_last_of_them() -> None:
    listing = Listing()
    assert listing.want(words("a:20204", "10.0.0.1:20204"), {}) == [ServerAdded("tcp://10.0.0.1:20204")]
    assert listing.answer("a", ["10.0.0.1"]) == []
    assert listing.want(words("a:20204"), {"10.0.0.1:20204": "removed from dr.toml"}) == []
    gone = listing.want([], {"a:20204": "disabled in dr.toml"})
    assert gone == [ServerRemoved("tcp://10.0.0.1:20204", "disabled in dr.toml")]


def test_a_host_that_is_wanted_whole_no_more_goes_and_comes_so_that_its_other_servers_go() -> None:
    listing = Listing()
    listing.want(words("10.0.0.1", "10.0.0.1:20204"), {})
    assert listing.want(words("10.0.0.1:20204"), {"10.0.0.1": "removed from dr.toml"}) == [
        ServerRemoved("tcp://10.0.0.1:20204", "removed from dr.toml"),
        ServerAdded("tcp://10.0.0.1:20204"),
    ]


def test_a_name_that_stands_for_another_address_says_so() -> None:
    listing = Listing()
    listing.want(words("a"), {})
    listing.answer("a", ["10.0.0.1"])
    assert listing.answer("a", ["10.0.0.2"]) == [
        ServerRemoved("tcp://10.0.0.1:20204", "its name stands for 10.0.0.2 now"),
        ServerAdded("tcp://10.0.0.2:20204", whole_host=True),
    ]


def test_names_are_looked_up_and_literals_are_not() -> None:
    listing = Listing()
    listing.want(words("a:1", "dns+any:a:2", "b", "10.0.0.1", "[fd00::1]", "ipc:///run/dr/1"), {})
    assert listing.names() == {"a": True, "b": False}
