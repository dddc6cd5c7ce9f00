import pytest

from dr.errors import ProtocolError
from dr.protocol.version import CHUNK_BYTES
from workers.server.fetching import Fetching, Part

A, B = b"a" * 32, b"b" * 32


def test_an_asset_is_asked_for_in_chunks_and_no_more_than_four_at_once():
    fetching = Fetching()
    assert fetching.want([(A, 4 * CHUNK_BYTES), (B, 5)]) == []
    assert fetching.next_parts() == [Part(A, i * CHUNK_BYTES, CHUNK_BYTES) for i in range(4)]
    assert fetching.next_parts() == []
    assert not fetching.receive(A, 0, CHUNK_BYTES)
    assert fetching.next_parts() == [Part(B, 0, 5)]


def test_an_asset_is_complete_when_its_last_part_comes_in_any_order():
    fetching = Fetching()
    fetching.want([(A, 2 * CHUNK_BYTES + 1)])
    fetching.next_parts()
    answers = [fetching.receive(A, offset, n) for offset, n in ((2 * CHUNK_BYTES, 1), (0, CHUNK_BYTES))]
    assert [*answers, fetching.receive(A, CHUNK_BYTES, CHUNK_BYTES)] == [False, False, True]
    assert not fetching.complete
    fetching.seal(A)
    assert fetching.complete


def test_two_names_of_one_content_are_fetched_once():
    fetching = Fetching()
    fetching.want([(A, 3), (A, 3)])
    assert fetching.next_parts() == [Part(A, 0, 3)]


def test_an_empty_asset_needs_no_bytes_but_a_seal():
    fetching = Fetching()
    assert fetching.want([(A, 0)]) == [A]
    assert not fetching.complete


@pytest.mark.parametrize(("digest", "offset", "n"), [(B, 0, 3), (A, 1, 3), (A, 0, 2), (A, 0, 4)])
def test_an_answer_that_was_not_asked_for_is_refused(digest, offset, n):
    fetching = Fetching()
    fetching.want([(A, 3)])
    fetching.next_parts()
    with pytest.raises(ProtocolError, match="chunk"):
        fetching.receive(digest, offset, n)


def test_the_same_answer_twice_is_refused():
    fetching = Fetching()
    fetching.want([(A, 3)])
    fetching.next_parts()
    fetching.receive(A, 0, 3)
    with pytest.raises(ProtocolError, match="not asked for"):
        fetching.receive(A, 0, 3)
