"""Which files a render writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dr.client.outputs import Outputs
from dr.errors import BadInput
from dr.image.framebuffer import Picture
from dr.scene.model import Region, ViewSettings

PICTURE = Picture(
    width=4,
    height=2,
    region=Region(0, 0, 4, 2),
    channels={"beauty": np.ones((2, 4, 3), np.float32), "alpha": np.ones((2, 4), np.float32)},
)
VIEW = ViewSettings()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_output_that_cannot_be_written_does_not_cost_the_others(tmp_path: Path) -> None:
    paths = (tmp_path / "gone" / "a.exr", tmp_path / "b.exr", tmp_path / "c.png")
    with pytest.raises(BadInput) as caught:
        Outputs(paths, numbered=False).write(0, PICTURE, VIEW)
    assert "gone/a.exr: cannot write the picture" in str(caught.value)
    assert str(caught.value).endswith(f"; written: {paths[1]}, {paths[2]}")
    assert names(tmp_path) == ["b.exr", "c.png"]


def test_an_incomplete_picture_is_a_partial_exr_whatever_was_asked_for(tmp_path: Path) -> None:
    outputs = Outputs((tmp_path / "a.png", tmp_path / "b.exr"), numbered=False)
    assert outputs.write_partial(0, PICTURE, VIEW) == [tmp_path / "a.partial.exr"]
    assert names(tmp_path) == ["a.partial.exr"]


def test_a_complete_picture_takes_the_place_of_its_partial_one(tmp_path: Path) -> None:
    outputs = Outputs((tmp_path / "a.png",), numbered=False)
    outputs.write_partial(0, PICTURE, VIEW)
    assert outputs.write(0, PICTURE, VIEW) == [tmp_path / "a.png"]
    assert names(tmp_path) == ["a.png"]


def test_each_frame_has_files_of_its_own(tmp_path: Path) -> None:
    outputs = Outputs((tmp_path / "a.####.exr", tmp_path / "b.png"), numbered=True)
    assert outputs.of(7) == (tmp_path / "a.0007.exr", tmp_path / "b.0007.png")
    assert outputs.partial(7) == tmp_path / "a.0007.partial.exr"
    assert outputs.journal(7) == tmp_path / "a.0007.exr.journal"


def test_a_frame_is_there_when_all_its_files_are(tmp_path: Path) -> None:
    outputs = Outputs((tmp_path / "a.##.exr", tmp_path / "b.##.png"), numbered=True)
    (tmp_path / "a.07.exr").touch()
    assert not outputs.exist(7)
    (tmp_path / "b.07.png").touch()
    assert outputs.exist(7)


def test_without_a_name_nothing_is_written(tmp_path: Path) -> None:
    outputs = Outputs((), numbered=False)
    assert (outputs.write(0, PICTURE, VIEW), outputs.write_partial(0, PICTURE, VIEW)) == ([], [])
    assert (outputs.journal(0), outputs.partial(0), outputs.exist(0)) == (None, None, False)
