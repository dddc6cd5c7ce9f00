"""The OpenEXR file: every channel comes back to the bit, equal pictures are equal files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import OpenImageIO
import pytest

from dr.errors import BadInput
from dr.image.exr import REC_709, read_exr
from dr.image.framebuffer import Picture
from dr.image.output import write_picture
from dr.protocol.messages import CHANNEL_WIDTHS
from dr.scene.model import F32, Region, ViewSettings

VIEW = ViewSettings()


def plane(width: int, height: int, count: int, seed: int) -> F32:
    values = np.random.default_rng(seed).normal(size=(height, width, count)).astype(np.float32)
    return values if count > 1 else values[..., 0]


def picture(region: Region, width: int = 64, height: int = 48) -> Picture:
    channels = {str(c): plane(region.width, region.height, n, i) for i, (c, n) in enumerate(CHANNEL_WIDTHS.items())}
    channels["depth"][0, 0] = np.inf
    return Picture(width=width, height=height, region=region, channels=channels)


@pytest.mark.parametrize("region", [Region(0, 0, 64, 48), Region(30, 7, 5, 3)], ids=["whole frame", "region"])
def test_a_picture_comes_back_to_the_bit_with_its_place_in_the_frame(tmp_path: Path, region: Region) -> None:
    written = picture(region)
    write_picture(tmp_path / "a.exr", written, VIEW)
    read = read_exr(tmp_path / "a.exr")
    assert (read.width, read.height, read.region) == (64, 48, region)
    assert list(read.channels) == list(written.channels)
    for name, values in written.channels.items():
        assert read.channels[name].tobytes() == values.tobytes(), name


def test_layers_have_the_names_that_compositing_programs_show(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.exr", picture(Region(0, 0, 64, 48)), VIEW)
    spec = OpenImageIO.ImageInput.open(str(tmp_path / "a.exr")).spec()
    assert set(spec.channelnames) == {
        *("R", "G", "B", "A", "depth.Z", "normal.X", "normal.Y", "normal.Z"),
        *("albedo.R", "albedo.G", "albedo.B", "object_id.X"),
    }
    assert spec.getattribute("compression") == "zip"
    assert spec.getattribute("chromaticities") == pytest.approx(REC_709, abs=1e-7)


def test_only_the_channels_that_were_rendered_are_written(tmp_path: Path) -> None:
    region = Region(0, 0, 8, 4)
    depth = Picture(width=8, height=4, region=region, channels={"depth": plane(8, 4, 1, 0)})
    write_picture(tmp_path / "a.exr", depth, VIEW)
    assert list(read_exr(tmp_path / "a.exr").channels) == ["depth"]


def test_equal_pictures_are_equal_files_that_tell_nothing_of_the_run(tmp_path: Path) -> None:
    for name in ("a.exr", "b.exr"):
        write_picture(tmp_path / name, picture(Region(0, 0, 64, 48)), VIEW)
    written = (tmp_path / "a.exr").read_bytes()
    assert written == (tmp_path / "b.exr").read_bytes()
    header = written[: written.index(b"screenWindowWidth")]
    assert not any(word in header for word in (b"capDate", b"Software", b"HostComputer", b"owner"))


def test_a_file_that_is_no_picture_of_ours_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "text.exr").write_text("no picture")
    with pytest.raises(BadInput, match=r"text\.exr: expected an OpenEXR picture"):
        read_exr(tmp_path / "text.exr")
    with pytest.raises(BadInput, match=r"gone\.exr: expected an OpenEXR picture"):
        read_exr(tmp_path / "gone.exr")


def test_a_file_cut_short_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    write_picture(path, picture(Region(0, 0, 64, 48)), VIEW)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadInput, match=r"a\.exr: cannot read the picture: .+"):
        read_exr(path)
