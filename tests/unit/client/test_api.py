"""The public face of the package, and the page that describes it."""

from __future__ import annotations

from pathlib import Path

import pytest

import dr
from dr.client.api import Options

PAGE = Path(__file__).parents[3] / "docs" / "api.md"


def test_every_public_name_is_where_the_package_says() -> None:
    for name in dir(dr):
        assert getattr(dr, name) is not None


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'dr' has no attribute 'rendr'"):
        dr.rendr  # noqa: B018


def test_every_option_is_documented() -> None:
    page = PAGE.read_text()
    assert [name for name in Options.__annotations__ if f"`{name}`" not in page] == []


def test_a_scene_loads(tmp_path: Path) -> None:
    path = tmp_path / "quad.scene.toml"
    path.write_text("[[objects]]\nquad = { corner = [-1, 0, 1], edge_u = [2, 0, 0], edge_v = [0, 0, -2] }\n")
    scene = dr.load_scene(path)
    assert (len(scene.meshes), len(scene.cameras)) == (1, 1)


def test_bad_options_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(dr.BadInput, match="unknown option 'sample'"):
        dr.render(tmp_path / "none.glb", sample=4)  # type: ignore[call-arg]
