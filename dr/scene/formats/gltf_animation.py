"""Poses a glTF document's nodes as its animations have them at a moment. Knows keys and channels; no transform.

All animations of a file play together, from time 0 on. Where several move the same property of a node, the first one
in the file does. What no channel moves stays as the node has it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import numpy as np

from dr.errors import BadInput
from dr.scene.animation import Curve, Interpolation, rotation_at, value_at
from dr.scene.explain import pick
from dr.scene.formats import gltf_schema as schema
from dr.scene.formats.gltf_accessors import Accessors
from dr.scene.formats.gltf_document import Document
from dr.scene.model import F32

_INTERPOLATIONS = {
    "STEP": Interpolation.STEP,
    "LINEAR": Interpolation.LINEAR,
    "CUBICSPLINE": Interpolation.SPLINE,
}
_TYPES = {"translation": "VEC3", "rotation": "VEC4", "scale": "VEC3", "weights": "SCALAR"}
_FLOAT = 5126
_VALUE_BYTES = 32  # of a posed number
_NORMALIZED = (5120, 5121, 5122, 5123)  # integers that a rotation or weight may be stored as

Changes: TypeAlias = dict[int, dict[str, Any]]  # node -> its fields of schema.Node that move


class Motion:
    """The channels read so far, and what they make of the nodes at `time_s`."""

    def __init__(self, document: Document, time_s: float) -> None:
        self.animated = False
        self.last_s = 0.0  # time of the last key
        self.notices: dict[str, None] = {}  # a set that keeps its order
        self._document = document
        self._time_s = time_s
        self._keys = _Keys(document)
        self._changes: Changes = {}
        for number, animation in enumerate(document.root.animations):
            self._play(animation, document.place(f"animations[{number}]"))

    def nodes(self) -> list[schema.Node]:
        """All nodes of the document, posed."""
        posed = list(self._document.root.nodes)
        for index, fields in self._changes.items():
            posed[index] = msgspec.structs.replace(posed[index], **fields)
        return posed

    def _play(self, animation: schema.Animation, path: str) -> None:
        for number, channel in enumerate(animation.channels):
            target, place = channel.target, f"{path}.channels[{number}]"
            sampler = pick(animation.samplers, channel.sampler, "samplers", f"{place}.sampler")
            if target.path == "pointer":
                self.notices[self._document.ignored("KHR_animation_pointer")] = None
            elif target.node is not None:
                width = self._width(target.node, target.path, f"{place}.target.node")
                curve = self._keys.curve(sampler, target.path, width, f"{path}.samplers[{channel.sampler}]")
                self._move(target.node, target.path, curve, f"{path}.samplers[{channel.sampler}].output")

    def _move(self, index: int, path: str, curve: Curve, place: str) -> None:
        self.animated = True
        self.last_s = max(self.last_s, float(curve.times[-1]))
        fields = self._changes.setdefault(index, {})
        if path in fields:
            label = self._document.label
            self.notices[f"{label}: several animations move the same nodes; the first one in the file wins"] = None
        else:
            self._document.budget.spend(_VALUE_BYTES * curve.values.shape[-1], place)
            fields[path] = self._value(curve, path, place)

    def _value(self, curve: Curve, path: str, place: str) -> Any:
        if path == "weights":
            return list(value_at(curve, self._time_s))
        if path != "rotation":
            return value_at(curve, self._time_s)
        try:
            return rotation_at(curve, self._time_s)
        except ValueError as error:
            raise BadInput(f"{place}: expected unit quaternions, found zero around {self._time_s:g} s") from error

    def _width(self, index: int, path: str, place: str) -> int:
        """How many numbers a key of this property has."""
        node = pick(self._document.root.nodes, index, "nodes", place)
        if path != "weights":
            if node.matrix is not None:
                raise BadInput(f"{place}: expected a node without a matrix, found node {index}, which has one")
            return 4 if path == "rotation" else 3
        if node.mesh is None:
            raise BadInput(f"{place}: expected a node with a mesh, whose weights move; found node {index} without")
        mesh = pick(self._document.root.meshes, node.mesh, "meshes", self._document.place(f"nodes[{index}].mesh"))
        if not mesh.primitives[0].targets:
            raise BadInput(f"{place}: expected a mesh with morph targets, found mesh {node.mesh} without")
        return len(mesh.primitives[0].targets)


class _Keys:
    """Curves out of samplers. Each accessor is read and checked once, however many channels use it."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._accessors = Accessors(document)
        self._checked: dict[tuple[int, str], F32] = {}

    def curve(self, sampler: schema.AnimationSampler, path: str, width: int, place: str) -> Curve:
        """`place` is the sampler's; `width` numbers make one key. BadInput names what does not fit."""
        times = self._read(sampler.input, "time", f"{place}.input")[:, 0]
        values = self._read(sampler.output, path, f"{place}.output")
        kind = _INTERPOLATIONS[sampler.interpolation]
        shape = (len(times), 3, width) if kind is Interpolation.SPLINE else (len(times), width)
        expected = len(times) * width * (3 if kind is Interpolation.SPLINE else 1)
        if values.size != expected:
            keys = f"{len(times)} {sampler.interpolation} keys of {width} numbers"
            raise BadInput(f"{place}.output: expected {expected} numbers for {keys}, found {values.size}")
        return Curve(times=times, values=values.reshape(shape), interpolation=kind)

    def _read(self, index: int, use: str, place: str) -> F32:
        """An accessor's numbers, [count, components]."""
        if (index, use) not in self._checked:
            values = self._accessors.floats(index, (_TYPES.get(use, "SCALAR"),), place)
            self._check_component(index, use)
            self._check_values(values, index, use)
            self._checked[index, use] = values
        return self._checked[index, use]

    def _check_component(self, index: int, use: str) -> None:
        accessor, place = self._document.root.accessors[index], self._document.place(f"accessors[{index}]")
        if accessor.component_type == _FLOAT:
            return
        if use not in ("rotation", "weights"):
            raise BadInput(
                f"{place}.componentType: expected {_FLOAT} (float) for {use}s, found {accessor.component_type}"
            )
        if not accessor.normalized or accessor.component_type not in _NORMALIZED:
            raise BadInput(f"{place}: expected floats or normalized integers of 8 or 16 bits for {use}")

    def _check_values(self, values: F32, index: int, use: str) -> None:
        place = self._document.place(f"accessors[{index}]")
        if not np.isfinite(values).all():
            raise BadInput(f"{place}: expected finite numbers for an animation, found others")
        if use == "time" and not (values[1:] > values[:-1]).all():
            row = int(np.flatnonzero(~(values[1:, 0] > values[:-1, 0]))[0])
            found = f"{values[row, 0]:g} before {values[row + 1, 0]:g}"
            raise BadInput(f"{place}: expected times that increase from key to key, found {found} at key {row}")
