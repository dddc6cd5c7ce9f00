"""Translates a glTF document's primitives into meshes of triangles. Knows no node and no material."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dr.errors import BadInput
from dr.scene.formats import gltf_schema as schema
from dr.scene.formats.gltf_accessors import Accessors
from dr.scene.formats.gltf_document import Document
from dr.scene.formats.mesh import RawMesh, checked_mesh
from dr.scene.model import F32, Mesh

_TYPES = {
    "POSITION": ("VEC3",),
    "NORMAL": ("VEC3",),
    "TANGENT": ("VEC4",),
    "TEXCOORD_0": ("VEC2",),
    "TEXCOORD_1": ("VEC2",),
    "COLOR_0": ("VEC3", "VEC4"),
}
_MORPH_TYPES = {**_TYPES, "TANGENT": ("VEC3",)}
_TRIANGLES, _STRIP = 4, 5


class Meshes:
    """A mesh per primitive; primitives that differ in their material alone share one."""

    def __init__(self, document: Document) -> None:
        self.meshes: list[Mesh] = []
        self.notices: dict[str, None] = {}  # a set that keeps its order
        self._document = document
        self._accessors = Accessors(document)
        self._rows: dict[Any, int] = {}

    def row(self, mesh_index: int, primitive_index: int, node_weights: list[float] | None) -> int | None:
        """Where the primitive's mesh stands in `meshes`; None when it has no triangles.

        `node_weights` replace the mesh's own default weights of its morph targets.
        """
        mesh = self._document.root.meshes[mesh_index]
        primitive = mesh.primitives[primitive_index]
        place = self._document.place(f"meshes[{mesh_index}].primitives[{primitive_index}]")
        if primitive.mode < _TRIANGLES:
            self.notices[f"{self._document.label}: points and lines are not supported and were ignored"] = None
            return None
        if "POSITION" not in primitive.attributes:
            self.notices[f"{place}: has no POSITION and was ignored"] = None
            return None
        weights = _checked_weights(primitive, node_weights if node_weights is not None else mesh.weights, place)
        key = _key(primitive, weights)
        if key not in self._rows:
            translated = self._translate(primitive, weights, mesh.name, place)
            self._rows[key] = len(self.meshes)
            self.meshes.append(translated)
        return self._rows[key]

    def _translate(self, primitive: schema.Primitive, weights: list[float], name: str, place: str) -> Mesh:
        arrays = self._attributes(primitive.attributes, _TYPES, f"{place}.attributes")
        count = len(arrays["POSITION"])
        _check_counts(arrays, count, f"{place}.attributes")
        for number, (target, weight) in enumerate(zip(primitive.targets, weights, strict=True)):
            self._morph(arrays, target, weight, f"{place}.targets[{number}]")
        corners: npt.NDArray[np.integer] = np.arange(0)
        if primitive.indices is not None:
            corners = self._accessors.indices(primitive.indices, f"{place}.indices")
        self._document.budget.spend(36 * len(corners), place)
        if primitive.indices is None:
            corners = np.arange(count)
        raw = RawMesh(
            positions=arrays["POSITION"],
            triangles=_triangles(corners, primitive.mode),
            normals=arrays.get("NORMAL"),
            tangents=arrays.get("TANGENT"),
            uv0=arrays.get("TEXCOORD_0"),
            uv1=arrays.get("TEXCOORD_1"),
            colors=_with_alpha(arrays.get("COLOR_0")),
        )
        return checked_mesh(raw, name, place)

    def _attributes(self, indices: dict[str, int], types: dict[str, tuple[str, ...]], place: str) -> dict[str, F32]:
        return {
            attribute: self._accessors.floats(indices[attribute], allowed, f"{place}.{attribute}")
            for attribute, allowed in types.items()
            if attribute in indices
        }

    def _morph(self, arrays: dict[str, F32], target: dict[str, int], weight: float, place: str) -> None:
        """Adds `weight` times one morph target to the attributes that it has in common with the primitive."""
        if weight == 0.0:
            return
        offsets = self._attributes(target, _MORPH_TYPES, place)
        _check_counts(offsets, len(arrays["POSITION"]), place)
        for attribute, offset in offsets.items():
            base = arrays.get(attribute)
            if base is None:
                continue
            self._document.budget.spend(base.nbytes, place)
            width = min(base.shape[1], offset.shape[1])
            moved = base.copy()
            moved[:, :width] += np.float32(weight) * offset[:, :width]
            arrays[attribute] = moved


def _key(primitive: schema.Primitive, weights: list[float]) -> Any:
    targets = tuple(tuple(sorted(target.items())) for target in primitive.targets)
    attributes = tuple(sorted(primitive.attributes.items()))
    return attributes, primitive.indices, primitive.mode, targets, tuple(weights)


def _checked_weights(primitive: schema.Primitive, weights: list[float] | None, place: str) -> list[float]:
    targets = len(primitive.targets)
    if weights is None or not targets:
        return [0.0] * targets
    if len(weights) != targets:
        raise BadInput(f"{place}: expected a weight for each of {targets} morph targets, found {len(weights)} weights")
    return weights


def _check_counts(arrays: dict[str, F32], count: int, place: str) -> None:
    for attribute, values in arrays.items():
        if len(values) != count:
            raise BadInput(f"{place}.{attribute}: expected {count} values, one per vertex; found {len(values)}")


def _triangles(corners: npt.NDArray[np.integer], mode: int) -> npt.NDArray[np.integer]:
    """[triangle, 3] of a list, strip or fan of vertex indices, every other triangle of a strip turned over."""
    if mode == _TRIANGLES:
        return corners[: len(corners) // 3 * 3].reshape(-1, 3)
    first = np.arange(max(len(corners) - 2, 0))
    if mode == _STRIP:
        odd = first % 2
        return np.stack([corners[first], corners[first + 1 + odd], corners[first + 2 - odd]], axis=1)
    return np.stack([corners[first + 1], corners[first + 2], corners[np.zeros_like(first)]], axis=1)


def _with_alpha(colors: F32 | None) -> F32 | None:
    if colors is None or colors.shape[1] == 4:
        return colors
    return np.concatenate([colors, np.ones((len(colors), 1), np.float32)], axis=1)
