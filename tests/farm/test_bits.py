"""The promise to users: the same scene and settings give the same bits, whoever renders them in whatever pieces.

Each case runs with the engine that has no kernels and, marked slow, with the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest

import dr
from dr.client import local
from dr.settings import Settings
from tests.support.farm import environment, serving

FAKE, KERNELS = "tests.support.fake_server", "workers.server"
THREADS = (1, 2, 1)  # of the servers
SIZE = (83, 57)  # no multiple of any bucket size
SCENE = """
[[objects]]
box = { min = [-1, 0, -1], max = [1, 1, 1] }
material = "red"
rotate = [0, 30, 0]

[[objects]]
quad = { corner = [-4, 0, 4], edge_u = [8, 0, 0], edge_v = [0, 0, -8] }

[[materials]]
name = "red"
base_color = [0.8, 0.1, 0.1]
roughness = 0.3

[[lights]]
kind = "quad"
corner = [-1, 3, -1]
edge_u = [2, 0, 0]
edge_v = [0, 0, 2]
radiance = [5, 5, 5]

[[cameras]]
position = [2, 2, 5]
target = [0, 0.5, 0]
"""


class Farm:
    """Three running servers, and the picture that the first one renders alone."""

    def __init__(self, engine: str, folder: Path, addresses: list[str]) -> None:
        self.engine = engine
        self.addresses = addresses
        self.scene = folder / "bits.scene.toml"
        self.scene.write_text(SCENE)
        self.reference = self.render(servers=addresses[:1], local=False)

    def render(self, **options: object) -> dr.Result:
        settings = Settings()
        result = dr.render(self.scene, size=SIZE, samples=20, settings=settings, **options)  # type: ignore[arg-type]
        assert result.complete, result.reason
        return result

    def check(self, result: dr.Result) -> None:
        assert result.channels.keys() == self.reference.channels.keys()
        for name, plane in self.reference.channels.items():
            assert np.array_equal(plane.view(np.uint32), result.channels[name].view(np.uint32)), name


@pytest.fixture(scope="module", params=[FAKE, pytest.param(KERNELS, marks=pytest.mark.slow)])
def farm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("bits")
    with ExitStack() as stack:
        servers = [serving(folder, "--threads", threads, module=request.param) for threads in THREADS]
        addresses = [stack.enter_context(server) for server in servers]
        yield Farm(request.param, folder, addresses)


@pytest.fixture(autouse=True)
def _local_servers_like_the_farm(farm: Farm, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local, "SERVER_COMMAND", (sys.executable, "-m", farm.engine))
    for name, value in environment(tmp_path).items():
        if name == "PYTHONPATH" or farm.engine == FAKE:
            monkeypatch.setenv(name, value)


def test_the_picture_shows_something(farm: Farm) -> None:
    assert np.ptp(farm.reference.channels["beauty"]) > 0


@pytest.mark.parametrize("count", [2, 3])
def test_the_number_of_servers_changes_no_bit(farm: Farm, count: int) -> None:
    farm.check(farm.render(servers=farm.addresses[:count], local=False, bucket_size=16))


def test_the_number_of_threads_changes_no_bit(farm: Farm) -> None:
    farm.check(farm.render(servers=farm.addresses[1:2], local=False, bucket_size=16))


@pytest.mark.parametrize("size", [16, 48, 64, "auto"])
def test_the_bucket_size_changes_no_bit(farm: Farm, size: int | str) -> None:
    farm.check(farm.render(servers=farm.addresses, local=False, bucket_size=size))


@pytest.mark.parametrize("order", ["spiral", "hilbert", "rows", "columns", "checker", "random"])
def test_the_bucket_order_changes_no_bit(farm: Farm, order: str) -> None:
    farm.check(farm.render(servers=farm.addresses, local=False, bucket_size=16, bucket_order=order))


def test_local_servers_give_the_same_bits(farm: Farm) -> None:
    farm.check(farm.render(local_servers=2, threads=2, bucket_size=16))


def test_a_region_has_the_bits_of_the_whole(farm: Farm) -> None:
    x, y, width, height = 20, 10, 40, 30
    result = farm.render(servers=farm.addresses, local=False, bucket_size=16, region=(x, y, width, height))
    for name, plane in farm.reference.channels.items():
        assert np.array_equal(plane[y : y + height, x : x + width], result.channels[name]), name


def test_a_server_killed_in_the_middle_changes_no_bit(farm: Farm) -> None:
    killed: list[str] = []

    def kill_one(progress: dr.Progress) -> None:
        names = [row.name for row in progress.servers if row.buckets]
        if names and not killed:
            killed.append(names[0])
            next(child for child in psutil.Process().children() if names[0] in child.cmdline()).kill()

    result = farm.render(local_servers=3, threads=3, bucket_size=2, progress=kill_one)
    assert {loss.name for loss in result.statistics.lost} == set(killed)
    farm.check(result)
