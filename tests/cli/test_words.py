"""How the command line is spelt."""

from __future__ import annotations

import pytest

from dr.cli.words import parse_bucket_size, parse_nodes, parse_numa, parse_ports, parse_region, parse_size
from dr.errors import BadInput
from dr.scene.model import Region


def test_a_size_is_two_numbers_with_an_x() -> None:
    assert parse_size("1920x1080") == (1920, 1080)


@pytest.mark.parametrize("text", ["", "1920", "0x5", "axb", "1x2x3", "-1x5", "1.5x2"])
def test_another_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"--size: expected WIDTHxHEIGHT .* found"):
        parse_size(text)


def test_a_region_is_four_numbers() -> None:
    assert parse_region("100,50,320,240") == Region(100, 50, 320, 240)


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,0,4", "a,b,c,d", "1,2,3,-4"])
def test_another_region_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match="--region: expected X,Y,WIDTH,HEIGHT"):
        parse_region(text)


def test_a_bucket_size_is_a_number_or_auto() -> None:
    assert (parse_bucket_size("auto"), parse_bucket_size("48")) == (0, 48)


@pytest.mark.parametrize("text", ["0", "1025", "big", "-3", ""])
def test_another_bucket_size_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match="--bucket-size: expected auto or"):
        parse_bucket_size(text)


def test_lists_of_nodes_and_ports_keep_their_order() -> None:
    assert (parse_nodes("3,5,6"), parse_nodes("0-3,8"), parse_nodes("6,2-3")) == ((3, 5, 6), (0, 1, 2, 3, 8), (6, 2, 3))
    assert (parse_ports("30000,40000"), parse_ports("30000-30002")) == ((30000, 40000), (30000, 30001, 30002))


@pytest.mark.parametrize("text", ["", "a", "-1", "1,,2", "3-1", "1.5", "99999999", "0-99999"])
def test_another_list_is_refused_in_one_line_that_begins_as_it_was_written(text: str) -> None:
    with pytest.raises(BadInput) as nodes:
        parse_nodes(text)
    assert str(nodes.value) == f"-node={text}: expected nodes such as 3,5,6 or 0-3,8"
    with pytest.raises(BadInput) as ports:
        parse_ports(text)
    assert str(ports.value) == f"-port={text}: expected TCP ports such as 30000,40000 or 30000-30003"


def test_a_number_of_servers_is_a_number() -> None:
    assert (parse_numa("4"), parse_numa("0")) == (4, 0)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "٤", "4 5", "9999999999"])
def test_another_number_of_servers_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput) as found:
        parse_numa(text)
    assert str(found.value) == f"-numa={text}: expected how many servers, such as 4 (0: one per node)"
