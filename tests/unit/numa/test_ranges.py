import pytest
from hypothesis import given
from hypothesis import strategies as st

from dr.errors import BadInput
from workers.numa.ranges import format_ranges, parse_ranges


@pytest.mark.parametrize("text", ["", "a", "1-", "3-1", "1,,2", "-1", "999999", "0-99999"])
def test_a_bad_list_is_named(text: str) -> None:
    with pytest.raises(BadInput, match=r"--cpus: expected .*numbers.*, found"):
        parse_ranges(text, "--cpus")


def test_a_list_may_mix_numbers_and_ranges_and_keeps_their_order() -> None:
    assert parse_ranges("5,0-2, 4", "--cpus") == (5, 0, 1, 2, 4)


@pytest.mark.parametrize(("numbers", "text"), [([], ""), ([7], "7"), ([0, 1, 2, 3, 8], "0-3,8"), ([3, 2, 2], "3,2,2")])
def test_neighbours_become_a_range(numbers: list[int], text: str) -> None:
    assert format_ranges(numbers) == text


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=60))
def test_what_is_written_is_read_again(numbers: list[int]) -> None:
    assert list(parse_ranges(format_ranges(numbers), "ports")) == numbers
