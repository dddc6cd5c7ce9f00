"""What is prepared for two frames: two files where something moves, one and the same where nothing does."""

from __future__ import annotations

from pathlib import Path

import pytest

from dr.scene.assets import Folder
from dr.scene.model import RenderSettings
from workers.prepare.prepare import prepare_scene

STILL = """
[[objects]]
box = { min = [0, 0, 0], max = [1, 1, 1] }
[[cameras]]
position = [0, 0, 5]
target = [0, 0, 0]
[[lights]]
kind = "quad"
corner = [0, 4, 0]
edge_u = [1, 0, 0]
edge_v = [0, 0, 1]
radiance = [1, 1, 1]
"""
MOTIONS = {
    "object": "[objects.animation]\ntimes = [0, 9]\nrotate = [[0, 0, 0], [0, 90, 0]]\n",
    "camera": "[cameras.animation]\ntimes = [0, 9]\norbit = [0, 90]\n",
    "light": "[lights.animation]\ntimes = [0, 9]\nradiance = [[1, 1, 1], [2, 2, 2]]\n",
}


def prepared(folder: Path, text: str, frame: int) -> bytes:
    (folder / "main.scene.toml").write_text(text)
    out = folder / "prepared"
    settings = RenderSettings(frame=frame)
    prepare_scene(Folder(folder / "main.scene.toml"), "main.scene.toml", settings, out, 1, lambda text: None)
    return out.read_bytes()


def test_a_still_scene_is_prepared_the_same_for_every_frame(tmp_path: Path) -> None:
    assert prepared(tmp_path, STILL, 0) == prepared(tmp_path, STILL, 7)


@pytest.mark.parametrize("what", MOTIONS)
def test_what_moves_is_prepared_for_each_frame(tmp_path: Path, what: str) -> None:
    table = f"[[{what}s]]\n"
    before, after = STILL.split(table)
    end = after.index("[[") if "[[" in after else len(after)
    text = before + table + after[:end] + MOTIONS[what] + after[end:]
    first = prepared(tmp_path, text, 0)
    assert first == prepared(tmp_path, STILL, 0)  # it sets out from where it stands
    assert first != prepared(tmp_path, text, 7)
