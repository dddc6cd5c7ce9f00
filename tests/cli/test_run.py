"""What is left of a render: files and last words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dr.broker.commands import Status
from dr.cli.run import write_outputs
from dr.client.result import BucketRecord, Result, Statistics
from dr.errors import BadInput
from dr.image.framebuffer import Picture
from dr.scene.model import Region, ViewSettings

RECORD = BucketRecord(x=0, y=0, width=4, height=2, server="one", seconds=0.1, attempts=1)


def result(status: Status, *buckets: BucketRecord) -> Result:
    channels = {"beauty": np.ones((2, 4, 3), np.float32), "alpha": np.ones((2, 4), np.float32)}
    picture = Picture(width=4, height=2, region=Region(0, 0, 4, 2), channels=channels)
    facts = Statistics(seconds=1.0, samples_per_second=8.0, buckets=len(buckets))
    return Result(picture=picture, view=ViewSettings(), statistics=facts, status=status, buckets=buckets)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_output_that_cannot_be_written_does_not_cost_the_others(tmp_path: Path) -> None:
    paths = (tmp_path / "gone" / "a.exr", tmp_path / "b.exr", tmp_path / "c.png")
    with pytest.raises(BadInput) as caught:
        write_outputs(paths, result(Status.COMPLETE, RECORD))
    assert "gone/a.exr: cannot write the picture" in str(caught.value)
    assert str(caught.value).endswith(f"; written: {paths[1]}, {paths[2]}")
    assert names(tmp_path) == ["b.exr", "c.png"]


def test_an_incomplete_picture_is_a_partial_exr_whatever_was_asked_for(tmp_path: Path) -> None:
    paths = (tmp_path / "a.png", tmp_path / "b.exr")
    assert write_outputs(paths, result(Status.INCOMPLETE, RECORD)) == [tmp_path / "a.partial.exr"]
    assert names(tmp_path) == ["a.partial.exr"]


def test_a_picture_without_a_bucket_is_not_written(tmp_path: Path) -> None:
    assert write_outputs((tmp_path / "a.exr",), result(Status.INCOMPLETE)) == []
    assert names(tmp_path) == []
