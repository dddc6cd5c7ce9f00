"""Decoding images: exact bits in, exact texels out; and whatever is broken ends in BadInput, never in a crash."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813
import pytest

from dr.errors import BadInput
from dr.scene.assets import Role
from dr.scene.model import Image, Material, Scene, TexelFilter, Texture
from workers.kernels.records import RGBA8_LINEAR, RGBA8_SRGB, RGBA32F
from workers.kernels.textures.srgb import srgb_table
from workers.prepare import textures
from workers.prepare.textures import DecodedImage, Usage, decode_environment, decode_images

DATA = Path(os.environ.get("DR_DATA", Path(__file__).parents[4] / "shared" / "data"))
RANDOM = np.random.default_rng(20)


class MemoryFiles:
    """Files whose bytes are given; remembers what was asked."""

    def __init__(self, **files: bytes) -> None:
        self.files = {name.replace("__", "."): data for name, data in files.items()}
        self.asked: list[tuple[str, Role]] = []

    def read(self, name: str, role: Role, place: str) -> bytes:
        self.asked.append((name, role))
        return self.files[name]

    def refer(self, name: str, role: Role, place: str) -> None:
        raise AssertionError("textures are read, not referred to")


def png(pixels: np.ndarray, *chunks: tuple[bytes, bytes], size: tuple[int, int] | None = None) -> bytes:
    """A PNG of uint8 or uint16 [h, w, c], written by hand; `size` lies about its dimensions."""
    height, width, channels = pixels.shape
    width, height = size or (width, height)
    depth, kind = 8 * pixels.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(pixels.dtype.newbyteorder(">")).tobytes() for row in pixels)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    extra = b"".join(chunk(name, data) for name, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def written(folder: Path, ending: str, pixels: np.ndarray, **attributes: Any) -> bytes:
    """The bytes of a file that OpenImageIO writes; in names of attributes `__` stands for a colon."""
    path = str(folder / f"image{ending}")
    types = {"uint8": "uint8", "uint16": "uint16", "float32": "float", "float64": "double", "uint32": "uint"}
    spec = oiio.ImageSpec(pixels.shape[1], pixels.shape[0], pixels.shape[2], types[pixels.dtype.name])
    for name, value in attributes.items():
        if hasattr(spec, name):
            setattr(spec, name, value)
        else:
            spec.attribute(name.replace("__", ":"), value)
    out = oiio.ImageOutput.create(path)
    assert out.open(path, spec), out.geterror()
    assert out.write_image(pixels), out.geterror()
    out.close()
    return Path(path).read_bytes()


def random_bytes(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return RANDOM.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def embedded(data: bytes) -> Image:
    return Image(data=data, place="test.glb: images[0]")


def decode(data: bytes, usage: Usage = Usage.COLOR) -> DecodedImage:
    slot = {"base_color_texture" if usage is Usage.COLOR else "normal_texture": Texture(image=0)}
    scene = Scene(images=(embedded(data),), materials=(Material(**slot),))
    decoded = decode_images(scene, MemoryFiles())
    return decoded.pixels[decoded.row(0, usage)]


def expanded(pixels: np.ndarray) -> np.ndarray:
    """RGBA as glTF reads 1, 2, 3 or 4 channels."""
    opaque = np.full((*pixels.shape[:2], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
    alpha = pixels[..., -1:] if pixels.shape[2] in (2, 4) else opaque
    color = pixels[..., :3] if pixels.shape[2] > 2 else np.repeat(pixels[..., :1], 3, axis=2)
    return np.concatenate([color, alpha], axis=2).reshape(-1, 4)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("usage", "expected"), [(Usage.COLOR, RGBA8_SRGB), (Usage.DATA, RGBA8_LINEAR)])
def test_the_bytes_of_a_png_come_through_unchanged(channels: int, usage: Usage, expected: int) -> None:
    pixels = random_bytes(5, 9, channels)
    image = decode(png(pixels), usage)
    assert (image.width, image.height, image.format) == (9, 5, expected)
    assert image.data.dtype == np.uint8
    np.testing.assert_array_equal(image.data, expanded(pixels))


def test_gamma_in_a_png_changes_nothing() -> None:
    pixels = random_bytes(4, 4, 3)
    plain, marked = decode(png(pixels)), decode(png(pixels, (b"gAMA", struct.pack(">I", 100000))))
    np.testing.assert_array_equal(plain.data, marked.data)


@pytest.mark.parametrize(("ending", "faintest"), [(".png", 0), (".tif", 0), (".tga", 0), (".webp", 1)])
def test_colour_under_transparent_alpha_survives(tmp_path: Path, ending: str, faintest: int) -> None:
    """The WebP that is written here keeps no colour under an alpha of 0."""
    pixels = random_bytes(8, 8, 4)
    pixels[..., 3] = np.maximum(pixels[..., 3], faintest)
    pixels[::2, :, 3] = faintest
    data = written(tmp_path, ending, pixels, oiio__UnassociatedAlpha=1, compression="lossless:100")
    found = decode(data).data
    np.testing.assert_array_equal(found, pixels.reshape(-1, 4))


def test_a_bitmap_is_read(tmp_path: Path) -> None:
    pixels = random_bytes(6, 5, 3)
    np.testing.assert_array_equal(decode(written(tmp_path, ".bmp", pixels)).data, expanded(pixels))


def test_a_targa_without_a_footer_is_known_by_its_name(tmp_path: Path) -> None:
    pixels = random_bytes(4, 3, 4)
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 3, 4, 32, 0x28)
    data = header + pixels[..., [2, 1, 0, 3]].tobytes()
    scene = Scene(images=(Image(asset="old.TGA"),), materials=(Material(base_color_texture=Texture(image=0)),))
    files = MemoryFiles(old__TGA=data)
    np.testing.assert_array_equal(decode_images(scene, files).pixels[0].data, pixels.reshape(-1, 4))
    assert files.asked == [("old.TGA", Role.TEXTURE)]


def test_a_jpeg_is_close_to_what_was_written(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(32), np.arange(40))[..., None] * np.array([3, 2, 1]) % 256
    smooth = (128 + 60 * np.sin(ramp / 90)).astype(np.uint8)
    image = decode(written(tmp_path, ".jpg", smooth, compression="jpeg:98"))
    assert np.abs(image.data.astype(int) - expanded(smooth)).max() <= 6


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_become_linear_floats(channels: int) -> None:
    pixels = random_bytes(3, 7, channels, dtype=np.uint16)
    codes = expanded(pixels)
    color, data = decode(png(pixels)), decode(png(pixels), Usage.DATA)
    assert (color.format, data.format) == (RGBA32F, RGBA32F)
    straight = (codes / 65535.0).astype(np.float32)
    np.testing.assert_array_equal(data.data, straight)
    np.testing.assert_array_equal(color.data[:, 3], straight[:, 3])
    np.testing.assert_array_equal(color.data[:, :3], srgb_table(65536)[codes[:, :3]])


def test_float_pixels_are_linear_in_any_slot_and_alpha_is_divided_out(tmp_path: Path) -> None:
    straight = RANDOM.random((4, 6, 4)).astype(np.float32)
    straight[0, 0, 3], straight[0, 1, 3] = 0.0, 1.0
    stored = straight.copy()
    stored[..., :3] *= straight[..., 3:]
    data = written(tmp_path, ".exr", stored, compression="zip")
    for usage in Usage:
        image = decode(data, usage)
        assert image.format == RGBA32F
        np.testing.assert_allclose(image.data[1:], straight.reshape(-1, 4)[1:], rtol=3e-7)
        np.testing.assert_array_equal(image.data[0], (0, 0, 0, 0))


def test_associated_alpha_of_a_tiff_is_divided_out(tmp_path: Path) -> None:
    stored = np.array([[[100, 50, 0, 200], [0, 0, 0, 0], [255, 255, 255, 255]]], np.uint8)
    found = decode(written(tmp_path, ".tif", stored)).data
    np.testing.assert_array_equal(found, [(128, 64, 0, 200), (0, 0, 0, 0), (255, 255, 255, 255)])


def test_values_that_are_no_light_become_zero_and_are_told(tmp_path: Path) -> None:
    pixels = np.ones((2, 2, 3), np.float32)
    pixels[0, 0], pixels[1, 1, 2] = (np.nan, np.inf, -np.inf), -0.5
    image, notices = embedded(written(tmp_path, ".exr", pixels)), []
    radiance = decode_environment(image, MemoryFiles(), notices.append)
    expected = np.ones((2, 2, 4), np.float32)
    expected[0, 0, :3], expected[1, 1, 2] = 0.0, 0.0
    np.testing.assert_array_equal(radiance, expected)
    assert notices == ["test.glb: images[0]: 4 values were negative or not finite; they are 0 now"]


def test_an_environment_of_bytes_is_taken_as_srgb() -> None:
    pixels = random_bytes(4, 8, 4)
    radiance = decode_environment(embedded(png(pixels)), MemoryFiles())
    assert radiance.dtype == np.float32
    np.testing.assert_array_equal(radiance[..., :3], srgb_table(256)[pixels[..., :3]])
    np.testing.assert_array_equal(radiance[..., 3], 1.0)


def test_a_radiance_file_gives_its_values(tmp_path: Path) -> None:
    mantissas = RANDOM.integers(128, 256, (4, 16, 3)).astype(np.float32)
    pixels = mantissas * np.float32(2.0**-4)  # what a shared exponent holds exactly
    radiance = decode_environment(embedded(written(tmp_path, ".hdr", pixels)), MemoryFiles())
    assert np.abs(radiance[..., :3] - pixels).max() <= 2.0**-5  # readers may add half a step
    np.testing.assert_array_equal(radiance[..., 3], 1.0)


def test_an_exr_that_stores_a_part_of_its_frame_is_placed_in_the_frame(tmp_path: Path) -> None:
    pixels = RANDOM.random((3, 4, 3)).astype(np.float32)
    data = written(tmp_path, ".exr", pixels, x=5, y=-1, full_width=8, full_height=6)
    expected = np.zeros((6, 8, 3), np.float32)
    expected[0:2, 5:8] = pixels[1:3, 0:3]
    np.testing.assert_array_equal(decode_environment(embedded(data), MemoryFiles())[..., :3], expected)


def test_an_image_used_as_colour_and_as_data_has_two_rows_that_share_their_bytes() -> None:
    material = Material(base_color_texture=Texture(image=1), normal_texture=Texture(image=1))
    unused = Image(data=b"never looked at")
    scene = Scene(images=(unused, embedded(png(random_bytes(4, 4, 4)))), materials=(material,))
    decoded = decode_images(scene, MemoryFiles())
    color, data = (decoded.pixels[decoded.row(1, usage)] for usage in Usage)
    assert [image.format for image in decoded.pixels] == [RGBA8_SRGB, RGBA8_LINEAR]
    assert (color.format, data.format) == (RGBA8_SRGB, RGBA8_LINEAR)
    assert np.shares_memory(color.data, data.data)


def test_a_float_image_has_one_row_for_all_uses(tmp_path: Path) -> None:
    exr = embedded(written(tmp_path, ".exr", np.ones((2, 2, 3), np.float32)))
    material = Material(emission_texture=Texture(image=0), metallic_roughness_texture=Texture(image=0))
    decoded = decode_images(Scene(images=(exr,), materials=(material,)), MemoryFiles())
    assert decoded.rows == {(0, Usage.COLOR): 0, (0, Usage.DATA): 0}
    assert len(decoded.pixels) == 1


def test_the_number_of_threads_changes_nothing() -> None:
    images = tuple(embedded(png(random_bytes(16, 16, 3))) for _ in range(6))
    materials = tuple(Material(base_color_texture=Texture(image=i)) for i in reversed(range(6)))
    scene = Scene(images=images, materials=materials)
    one, many = (decode_images(scene, MemoryFiles(), threads=threads) for threads in (1, 4))
    assert one.rows == many.rows == {(i, Usage.COLOR): i for i in range(6)}
    for a, b in zip(one.pixels, many.pixels, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_a_probe_is_the_linear_colour_at_a_coordinate() -> None:
    pixels = random_bytes(2, 2, 3)
    texture = Texture(image=0, filter=TexelFilter.NEAREST)
    scene = Scene(images=(embedded(png(pixels)),), materials=(Material(emission_texture=texture),))
    uv = np.array([(0.25, 0.25), (0.75, 0.25), (1.25, 0.75)])
    expected = srgb_table(256)[np.array([pixels[0, 0], pixels[0, 1], pixels[1, 0]])]
    np.testing.assert_array_equal(decode_images(scene, MemoryFiles()).probe(texture, uv), expected)


@pytest.mark.parametrize("size", [(70000, 4), (4, 70000), (65536, 4096), (0, 4)])
def test_an_image_that_claims_too_many_pixels_is_refused_unread(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match=r"^test.glb: images\[0\]: "):
        decode(png(random_bytes(4, 4, 3), size=size))


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", "an empty file"), (b"<svg xmlns=", r"a file that begins with b'<svg xml'")],
)
def test_an_unknown_format_is_refused_with_what_was_found(data: bytes, found: str) -> None:
    with pytest.raises(BadInput, match=f"expected a PNG, JPEG, .* image, found {found}"):
        decode(data)


def test_pixels_of_other_types_are_refused(tmp_path: Path) -> None:
    data = written(tmp_path, ".tif", np.zeros((2, 2, 3), np.float64))
    with pytest.raises(BadInput, match="expected 8- or 16-bit or float pixels, found double"):
        decode(data)


def test_the_message_names_the_place_and_the_file_but_no_temporary_path() -> None:
    scene = Scene(
        images=(Image(asset="textures/wood.png", place="chair.gltf: images[2]"),),
        materials=(Material(base_color_texture=Texture(image=0)),),
    )
    files = MemoryFiles()
    files.files["textures/wood.png"] = png(random_bytes(8, 8, 3))[:-40]
    with pytest.raises(BadInput) as error:
        decode_images(scene, files)
    assert str(error.value).startswith("chair.gltf: images[2]: textures/wood.png: cannot read the image: ")
    assert "tmp" not in str(error.value)


def test_of_several_broken_images_the_first_is_named() -> None:
    images = tuple(Image(data=b"broken", place=f"images[{i}]") for i in range(4))
    materials = tuple(Material(base_color_texture=Texture(image=i)) for i in (3, 1, 2))
    with pytest.raises(BadInput, match=r"^images\[1\]"):
        decode_images(Scene(images=images, materials=materials), MemoryFiles())


CHILD = """
import sys
from pathlib import Path
from dr.errors import BadInput
from dr.scene.model import Image
from workers.prepare.textures import decode_environment
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode_environment(Image(data=path.read_bytes(), place=path.name), None)
        print("decoded", path.name)
    except BadInput as error:
        print("refused", error)
"""


def outcomes(folder: Path) -> list[str]:
    """What a child process says about each file of a folder, so that a crashing codec cannot end the tests."""
    root = Path(textures.__file__).parents[2]
    command = [sys.executable, "-c", CHILD, str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=root, check=False)
    assert child.returncode == 0, child.stderr[-2000:]
    return child.stdout.splitlines()


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """A third are cut short, the others have a few bits flipped."""
    if random.random() < 1 / 3:
        return data[: random.integers(0, len(data))]
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    bits[random.integers(0, len(bits), random.integers(1, 9))] ^= 1
    return np.packbits(bits).tobytes()


def test_damaged_files_decode_or_are_refused(tmp_path: Path) -> None:
    random = np.random.default_rng(8)
    folder = tmp_path / "damaged"
    folder.mkdir()
    pixels = random_bytes(24, 24, 3)
    for ending in (".png", ".jpg", ".exr", ".hdr", ".webp", ".tif", ".tga", ".bmp"):
        whole = written(tmp_path, ending, pixels if ending not in (".exr", ".hdr") else pixels.astype(np.float32))
        for number in range(150):
            (folder / f"{number}{ending}").write_bytes(damaged(whole, random))
    found = outcomes(folder)
    assert len(found) == 8 * 150
    assert {line.split()[0] for line in found} == {"decoded", "refused"}


@pytest.mark.data
def test_files_that_broke_openexr_are_refused() -> None:
    folder = DATA / "broken" / "openexr"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    found = outcomes(folder)
    assert len(found) == len(list(folder.iterdir()))
    assert all(line.startswith("refused") for line in found)
