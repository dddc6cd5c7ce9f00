"""The picture's truth: against Mitsuba's converged references, by a per-pixel test whose error rate is stated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import OpenImageIO as oiio  # noqa: N813
import pytest
from scipy import stats

from dr.scene.model import PixelFilter, RenderSettings
from tests.support.rendering import prepared, render_film

F64 = npt.NDArray[np.float64]
ALPHA = 0.01  # chance that a correct picture fails in even one pixel (Sidak)
ACCEPTED = 0.9975
pytestmark = [pytest.mark.data, pytest.mark.slow]


def toml_list(values: Any) -> str:
    return "[" + ", ".join(repr(float(value)) for value in values) + "]"


def reference_camera(sensor: dict[str, Any]) -> str:
    """Mitsuba's camera looks along +Z with +X to the left; ours along -Z with +X to the right."""
    matrix = np.array(sensor["to_world"]) * np.array([-1.0, 1.0, -1.0, 1.0])
    rows = ", ".join(toml_list(row) for row in matrix)
    return f'[[cameras]]\nmatrix = [{rows}]\nfov = {sensor["fov"]}\nfov_axis = "x"\n'


def write_cornell(folder: Path, description: Path) -> Path:
    """The reference's json as a .scene.toml that includes its PLY files."""
    reference: dict[str, Any] = json.loads(description.read_text())
    text = [reference_camera(reference["sensor"])]
    for name, shape in reference.items():
        if not isinstance(shape, dict) or shape.get("type") != "ply":
            continue
        ply = os.path.relpath(description.parent / shape["filename"], folder)
        color = shape["bsdf"][next(key for key in shape["bsdf"] if key != "type")]["reflectance"]["value"]
        radiance = shape.get("emitter", {}).get("radiance", {}).get("value", [0.0, 0.0, 0.0])
        text.append(
            f'[[materials]]\nname = "{name}"\nbase_color = {toml_list(color)}\nmetallic = 0.0\nspecular = 0.0\n'
            f"double_sided = true\nemission = {toml_list(radiance)}\n"
            f'[[objects]]\nfile = "{Path(ply).as_posix()}"\nmaterial = "{name}"\n'
        )
    path = folder / "cornell.scene.toml"
    path.write_text("\n".join(text))
    return path


def sample_means(path: Path, settings: RenderSettings, seeds: int) -> F64:
    """The picture rendered with independent seeds, [seed, height, width, 3]."""
    pictures = []
    for seed in range(seeds):
        mine = RenderSettings(**{name: getattr(settings, name) for name in settings.__struct_fields__} | {"seed": seed})
        film = render_film(prepared(path, mine), mine)
        pictures.append(film[..., :3].astype(np.float64) / settings.samples)
    return np.array(pictures)


def p_values(pictures: F64, reference: F64, reference_error: F64) -> F64:
    """Welch's test per pixel and channel; the reference's error comes from 16 batches."""
    n = len(pictures)
    ours = pictures.var(axis=0, ddof=1) / n
    theirs = reference_error**2
    scale = np.sqrt(ours + theirs) + 1e-6 * np.abs(reference) + 1e-9
    freedom = (ours + theirs) ** 2 / np.maximum(ours**2 / (n - 1) + theirs**2 / 15, 1e-300)
    return 2 * stats.t.sf(np.abs(pictures.mean(axis=0) - reference) / scale, np.maximum(freedom, 1.0))


def keep_evidence(name: str, picture: F64, reference: F64) -> Path:
    """Picture, reference and difference, for a person to look at."""
    folder = Path(os.environ.get("DR_TEST_OUTPUT", "out")) / "failed"
    folder.mkdir(parents=True, exist_ok=True)
    for kind, pixels in (("picture", picture), ("reference", reference), ("difference", picture - reference)):
        out = oiio.ImageOutput.create(str(folder / f"{name}-{kind}.exr"))
        out.open(str(folder / f"{name}-{kind}.exr"), oiio.ImageSpec(picture.shape[1], picture.shape[0], 3, "float"))
        out.write_image(np.ascontiguousarray(pixels, np.float32))
        out.close()
    return folder


@pytest.mark.parametrize(("depth", "reference_samples"), [(2, 1024), (6, 4096)])
def test_the_cornell_box_passes_the_per_pixel_test(
    data: Path, tmp_path: Path, depth: int, reference_samples: int
) -> None:
    stem = data / "references" / "mitsuba-3.9" / f"cornell_256x256_d{depth}_{reference_samples}spp"
    reference = np.load(f"{stem}.npy").astype(np.float64)
    error = np.load(f"{stem}_stderr.npy").astype(np.float64)
    scene = write_cornell(tmp_path, stem.with_suffix(".json"))
    settings = RenderSettings(
        width=256, height=256, samples=32, max_depth=depth, rr_depth=100, pixel_filter=PixelFilter.BOX
    )
    pictures = sample_means(scene, settings, seeds=16)
    p = p_values(pictures, reference, error)
    threshold = 1 - (1 - ALPHA) ** (1 / p.size)
    accepted = float((p > threshold).mean())
    mean = pictures.mean(axis=0)
    if accepted < ACCEPTED:
        pytest.fail(f"{accepted:.4%} of pixels accepted; see {keep_evidence(stem.name, mean, reference)}")
    assert mean.mean() == pytest.approx(reference.mean(), rel=2e-3)


def test_sponza_agrees_in_its_mean(data: Path, tmp_path: Path) -> None:
    stem = data / "references" / "mitsuba-3.9" / "sponza_480x270_d6_512spp"
    reference = np.load(f"{stem}.npy").astype(np.float64)
    description = json.loads(stem.with_suffix(".json").read_text())
    sun, sky = description["sun"], description["env"]["radiance"]["value"]
    glb = Path(os.path.relpath(data / "scenes" / "sponza" / "sponza.glb", tmp_path)).as_posix()
    scene = tmp_path / "sponza.scene.toml"
    scene.write_text(
        reference_camera(description["sensor"])
        + f'[[objects]]\nfile = "{glb}"\n'
        + '[[overrides]]\nmatch = "*"\nmetallic = 0.0\nspecular = 0.0\ndouble_sided = true\n'
        + f'[[lights]]\nkind = "directional"\ndirection = {toml_list(sun["direction"])}\n'
        + f"irradiance = {toml_list([sun['irradiance']['value']] * 3)}\n"
        + f'[[lights]]\nkind = "environment"\nradiance = {toml_list([sky] * 3)}\n'
    )
    settings = RenderSettings(
        width=480, height=270, samples=64, max_depth=6, rr_depth=100, pixel_filter=PixelFilter.BOX
    )
    picture = sample_means(scene, settings, seeds=1)[0]
    for channel in range(3):
        assert picture[..., channel].mean() == pytest.approx(reference[..., channel].mean(), rel=0.01)
