"""How many descriptors a process allows itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dr.client.descriptors import ENOUGH, allow_many

resource = pytest.importorskip("resource", reason="needs limits of Unix")


@pytest.fixture
def _restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("_restored")
def test_the_limit_is_raised_as_far_as_it_may_be_and_never_lowered() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most // 2, hard))
    assert allow_many() == most
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (most, hard)
    assert allow_many() == most
