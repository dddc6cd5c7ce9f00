"""Lists of servers as a user reads them, and how one differs from another."""

from __future__ import annotations

import pytest

from dr.client.wanted import compare_lists, read_words
from dr.errors import BadInput
from dr.settings import ServerAddress


def server(host: str, port: int | None = None, enabled: bool = True, *addresses: str) -> ServerAddress:
    return ServerAddress(host=host, port=port, enabled=enabled, addresses=addresses)


def test_a_saved_list_gives_its_enabled_servers_with_their_stored_addresses() -> None:
    saved = [
        server("a", None, True, "10.0.0.1"),
        server("b", 5, False),
        server("::1", 7),
        server("a", None, True, "::2"),
    ]
    words = read_words(saved)
    assert [(word.text, word.stored) for word in words] == [("a", ("10.0.0.1", "::2")), ("[::1]:7", ())]
    assert words[0].endpoints(("10.0.0.9",)) == ("tcp://10.0.0.9:20204",)
    assert words[1].endpoints(()) == ("tcp://[::1]:7",)


def test_a_saved_host_may_stand_for_all_its_addresses() -> None:
    (word,) = read_words([server("dns+any:pool", 9)])
    assert word.endpoints(("10.0.0.1", "::2")) == ("tcp://10.0.0.1:9", "tcp://[::2]:9")


def test_a_word_that_is_no_address_is_told() -> None:
    with pytest.raises(BadInput, match="server 'no such host': expected HOST"):
        read_words([server("a"), server("no such host")])


def test_a_change_names_what_was_added_enabled_disabled_and_removed() -> None:
    before = [server("a"), server("b"), server("c"), server("d", None, False)]
    after = [server("a"), server("b", None, False), server("d"), server("e", 5)]
    change = compare_lists(before, after, "dr.toml")
    assert change.line == "dr.toml changed: e:5 added, d enabled, b disabled, c removed"
    assert change.reasons == {"b": "disabled in dr.toml", "c": "removed from dr.toml"}


def test_many_changes_are_still_one_line() -> None:
    after = [server(f"node-{number}") for number in range(100)]
    assert compare_lists([], after, "dr.toml").line == "dr.toml changed: node-0, node-1, node-2 and 97 more added"


@pytest.mark.parametrize("addresses", [(), ("10.0.0.1",)])
def test_other_order_doubles_and_stored_addresses_are_no_news(addresses: tuple[str, ...]) -> None:
    before = [server("a"), server("b", None, False)]
    after = [server("b", None, False), server("a", None, False), server("a", None, True, *addresses)]
    assert compare_lists(before, after, "dr.toml").line == ""
