"""The render server as it ships: real preparation, real kernels. Slow the first time: the kernels are compiled."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import platformdirs
import pytest

from dr.protocol.messages import BucketWork, Channel, Failed
from dr.scene.assets import Blobs
from dr.scene.model import RenderSettings
from tests.support.server_process import REAL, RawClient, ServerProcess
from workers.prepare.prepare import prepare_scene
from workers.prepare.scene_file import open_scene
from workers.prepare.warmup import CACHE_VARIABLE
from workers.server.kernel_engine import KernelEngine, KernelScene

pytestmark = pytest.mark.slow

SETTINGS = RenderSettings(width=64, height=48, samples=32)
BUCKETS = [BucketWork(0, 0, 0, 48, 48, 0, 32), BucketWork(1, 48, 0, 16, 48, 16, 32)]
PLY = b"""ply
format ascii 1.0
element vertex 4
property float x
property float y
property float z
element face 2
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
1 1 0
0 1 0.5
3 0 1 2
3 0 2 3
"""
FILES = {"square.ply": PLY}


def real_server(folder: Path, cache: Path | None = None) -> ServerProcess:
    """Compiled kernels are shared between tests and with whatever else runs on this machine."""
    kernels = os.environ.get(CACHE_VARIABLE, str(platformdirs.user_cache_path("dr") / "kernels"))
    words = ("--endpoint", f"ipc://{folder}/gate", "--threads", "1")
    environment = {CACHE_VARIABLE: kernels, "XDG_CACHE_HOME": str(cache or folder / "cache")}
    return ServerProcess(folder, *words, command=REAL, **environment)


def set_up(client: RawClient) -> bytes:
    lease = client.take_lease()
    client.set_up(lease, FILES, settings=SETTINGS, channels=list(Channel))
    return lease


def local_pixels(folder: Path) -> dict[int, np.ndarray]:
    """The same buckets without a farm."""
    asset = folder / "asset"
    asset.write_bytes(PLY)
    prepare_scene(Blobs({"square.ply": asset}), "square.ply", SETTINGS, folder / "x.scene", 1, lambda text: None)
    scene = KernelScene(open_scene(folder / "x.scene", SETTINGS), shared=None)
    (folder / "scenes").mkdir()
    engine = KernelEngine(folder / "scenes", 1)
    return {work.id: engine.render(scene, work, np.zeros(1, np.uint8)) for work in BUCKETS}


def prepared_files(folder: Path) -> list[str]:
    return sorted(path.suffix for path in (folder / "cache" / "dr" / "scenes").iterdir())


def test_tiles_have_the_bits_of_kernels_called_directly(tmp_path):
    folder = tmp_path / "server"
    with real_server(folder) as server, RawClient(server.endpoint()) as client:
        lease = set_up(client)
        tiles = client.render(lease, *BUCKETS)
        assert prepared_files(folder) == [".lock", ".scene"]
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert prepared_files(folder) == []
    expected = local_pixels(tmp_path)
    for work in BUCKETS:
        assert tiles[work.id].tobytes() == expected[work.id].tobytes()
    assert np.isfinite(tiles[0][..., 0:3]).all()
    assert tiles[0][..., 0:3].any()


def test_a_second_server_of_the_host_maps_the_first_ones_file(tmp_path):
    cache = tmp_path / "cache"
    with (
        real_server(tmp_path / "one", cache) as first,
        real_server(tmp_path / "two", cache) as second,
        RawClient(first.endpoint()) as client,
        RawClient(second.endpoint()) as other,
    ):
        tiles = client.render(set_up(client), *BUCKETS)
        assert "reading the scene" in client.progress
        again = other.render(set_up(other), *BUCKETS)
        assert "reading the scene" not in other.progress
        assert all(tiles[work.id].tobytes() == again[work.id].tobytes() for work in BUCKETS)


def test_a_bad_scene_is_fatal_and_names_the_place(tmp_path):
    with real_server(tmp_path / "server") as server, RawClient(server.endpoint()) as client:
        lease = client.take_lease()
        failed = client.set_up(lease, {"bad.ply": b"ply\nnonsense\n"}, until=Failed)
        assert failed.fatal
        assert failed.error.startswith("bad.ply")
