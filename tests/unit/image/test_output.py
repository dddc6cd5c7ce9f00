"""Files for people: what .png and .jpg show, and that a file is replaced by a whole one or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import OpenImageIO
import pytest

from dr.errors import BadInput
from dr.image import output
from dr.image.framebuffer import Picture
from dr.image.output import check_output, replacing, write_picture
from dr.scene.model import F32, Region, ViewSettings

RAW = ViewSettings(view_transform="Raw")


def picture(beauty: list[float], alpha: list[float] | None = None) -> Picture:
    """One row of grey pixels."""
    channels: dict[str, F32] = {"beauty": np.repeat(np.array(beauty, np.float32)[None, :, None], 3, axis=2)}
    if alpha is not None:
        channels["alpha"] = np.array([alpha], np.float32)
    return Picture(width=len(beauty), height=1, region=Region(0, 0, len(beauty), 1), channels=channels)


def read(path: Path) -> npt.NDArray[np.uint8]:
    """The numbers in the file, alpha as it is there."""
    config = OpenImageIO.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    return OpenImageIO.ImageInput.open(str(path), config).read_image(OpenImageIO.UINT8)


def test_a_png_of_a_cut_out_object_has_straight_alpha(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", picture([0.0, 0.2, 0.4], [0.0, 0.4, 1.0]), RAW)
    assert read(tmp_path / "a.png")[0].tolist() == [[0, 0, 0, 0], [128, 128, 128, 102], [102, 102, 102, 255]]


def test_a_png_with_a_visible_background_is_opaque_and_shows_the_light_itself(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.png", picture([0.6, 0.2, 0.4], [0.0, 0.4, 1.0]), RAW)
    assert read(tmp_path / "a.png")[0].tolist() == [[153] * 3, [51] * 3, [102] * 3]


@pytest.mark.parametrize("alpha", [None, [1.0, 1.0]], ids=["no alpha", "alpha 1 everywhere"])
def test_a_png_without_holes_needs_no_alpha(tmp_path: Path, alpha: list[float] | None) -> None:
    write_picture(tmp_path / "a.png", picture([0.2, 0.4], alpha), RAW)
    assert read(tmp_path / "a.png")[0].tolist() == [[51] * 3, [102] * 3]


def test_a_jpeg_is_the_light_over_black(tmp_path: Path) -> None:
    write_picture(tmp_path / "a.JPG", picture([0.2] * 16, [0.4] * 16), RAW)
    assert np.abs(read(tmp_path / "a.JPG").astype(int) - 51).max() <= 2  # quality 95: quantised in steps of 2 at most


@pytest.mark.parametrize("extension", output.FORMATS)
def test_equal_pictures_are_equal_files_in_every_format(tmp_path: Path, extension: str) -> None:
    for name in ("a", "b"):
        write_picture(tmp_path / (name + extension), picture([0.1, 0.5, 0.9], [0.2, 0.7, 1]), ViewSettings())
    assert (tmp_path / f"a{extension}").read_bytes() == (tmp_path / f"b{extension}").read_bytes()


def test_a_failure_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(b"the old picture")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:  # noqa: PT012
        temporary.write_bytes(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"the old picture"
    assert os.listdir(tmp_path) == ["a.exr"]


def test_a_full_disk_is_one_clear_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.exr"
    path.write_bytes(b"the old picture")

    def full(name: str, path: Path, spec: object, pixels: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "_write", full)
    with pytest.raises(BadInput, match=r"a\.exr: cannot write the picture: No space left on device"):
        write_picture(path, picture([0.5]), RAW)
    assert path.read_bytes() == b"the old picture"
    assert os.listdir(tmp_path) == ["a.exr"]


def test_a_folder_that_vanished_meanwhile_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"a\.png: cannot write the picture: .*No such file"):
        write_picture(tmp_path / "gone" / "a.png", picture([0.5]), RAW)


def test_a_symbolic_link_stays_one_and_its_target_gets_the_picture(tmp_path: Path) -> None:
    (tmp_path / "real.exr").write_bytes(b"old")
    (tmp_path / "link.exr").symlink_to("real.exr")
    write_picture(tmp_path / "link.exr", picture([0.5]), RAW)
    assert (tmp_path / "link.exr").is_symlink()
    assert (tmp_path / "real.exr").stat().st_size > 3


def test_a_new_file_may_be_read_by_whom_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_picture(tmp_path / "a.exr", picture([0.5]), RAW)
    assert (tmp_path / "a.exr").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["a.exr", "a.EXR", "b.png", "c.jpg", "d.jpeg"])
def test_a_good_name_passes_and_leaves_no_trace(tmp_path: Path, name: str) -> None:
    check_output(tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.tif", r"ends in \.exr, \.png, \.jpg, \.jpeg, found \.tif"),
        ("a", "found no extension"),
        ("gone/a.exr", r"the folder .*gone does not exist"),
        ("file/a.exr", r"the folder .*file does not exist"),
        ("folder.exr", "found a folder"),
    ],
)
def test_a_bad_name_is_refused_before_the_render(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.exr").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match=message):
        check_output(tmp_path / name)


def test_a_folder_without_permission_is_refused_before_the_render(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **words: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)  # root may write anywhere
    with pytest.raises(BadInput, match=r"a\.exr: cannot write in the folder .*: Permission denied"):
        check_output(tmp_path / "a.exr")


def test_a_picture_that_the_format_cannot_hold_is_refused_before_the_render(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"at most 65500 pixels a side, found \(65536, 10\): use \.exr"):
        check_output(tmp_path / "a.jpg", size=(65536, 10))
    with pytest.raises(BadInput, match=r"shows the channel beauty, which is not rendered"):
        check_output(tmp_path / "a.png", channels=["depth"])
    check_output(tmp_path / "a.exr", size=(65536, 65536), channels=["depth"])


def test_a_link_that_leads_to_itself_is_refused_before_rendering(tmp_path: Path) -> None:
    loop = tmp_path / "loop.exr"
    loop.symlink_to(loop)
    with pytest.raises(BadInput, match=r"loop\.exr"):
        check_output(loop)
