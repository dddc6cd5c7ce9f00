"""Poses the tables of a .scene.toml as their `animation` has them at a moment. Knows keys; not what a table becomes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import numpy as np

from dr.errors import BadInput
from dr.scene import matrix, trig
from dr.scene.animation import Curve, Interpolation, value_at
from dr.scene.formats import scene_toml_schema as schema

_BASE = frozenset(schema.Motion.__struct_fields__)
AnimatedTable = schema.ObjectTable | schema.CameraTable | schema.LightTable
T = TypeVar("T", schema.ObjectTable, schema.CameraTable, schema.LightTable)


def posed(table: schema.SceneTable, time_s: float, label: str) -> schema.SceneTable:
    """The file as if it had been written for that moment. BadInput names the animation that makes no sense."""
    return msgspec.structs.replace(
        table,
        objects=_all_posed(table.objects, time_s, f"{label}: objects"),
        cameras=_all_posed(table.cameras, time_s, f"{label}: cameras"),
        lights=_all_posed(table.lights, time_s, f"{label}: lights"),
    )


def last_key_s(table: schema.SceneTable) -> float | None:
    """The time of the file's own last key; None when nothing of its own moves."""
    motions: Iterator[schema.Motion | None] = (
        each.animation for group in (table.objects, table.cameras, table.lights) for each in group
    )
    return max((motion.times[-1] for motion in motions if motion is not None), default=None)


def _all_posed(tables: Sequence[T], time_s: float, place: str) -> list[T]:
    return [_posed(table, time_s, f"{place}[{number}].animation") for number, table in enumerate(tables)]


def _posed(table: T, time_s: float, place: str) -> T:
    motion = table.animation
    if motion is None:
        return table
    _check_times(motion.times, place)
    moving = {key: getattr(motion, key) for key in motion.__struct_fields__ if key not in _BASE}
    changes = {
        key: _value(motion, values, time_s, f"{place}.{key}") for key, values in moving.items() if values is not None
    }
    if not changes:
        raise BadInput(f"{place}: expected values of {', '.join(moving)}; found times alone")
    orbit = changes.pop("orbit", None)
    changed = msgspec.structs.replace(table, **changes)
    if orbit is not None and isinstance(changed, schema.CameraTable):
        return _orbited(changed, orbit, f"{place}.orbit")
    return changed


def _check_times(times: list[float], place: str) -> None:
    for before, after in pairwise(times):
        if not after > before:
            raise BadInput(
                f"{place}.times: expected times that increase from key to key, found {after:g} after {before:g}"
            )


def _value(motion: schema.Motion, values: Any, time_s: float, place: str) -> Any:
    """What stands in the table at that moment: a number, a vector, or a turn about an axis."""
    if isinstance(values, schema.Turn):
        return schema.AxisAngle(axis=values.axis, angle=_value(motion, values.angle, time_s, f"{place}.angle"))
    if len(values) != len(motion.times):
        raise BadInput(f"{place}: expected {len(motion.times)} values, one for each of times; found {len(values)}")
    rows = [row if isinstance(row, tuple) else (row,) for row in values]
    width = max(map(len, rows))
    rows = [row if len(row) == width else row * width for row in rows]  # one factor of scale means three
    curve = Curve(
        times=np.array(motion.times, np.float64),
        values=np.array(rows, np.float64),
        interpolation=Interpolation(motion.interpolation),
    )
    value = value_at(curve, time_s)
    return value if width > 1 else value[0]


def _orbited(table: schema.CameraTable, degrees: float, place: str) -> schema.CameraTable:
    """The camera's position turned about the axis through its target along `up`."""
    if table.position is None or table.target is None:
        raise BadInput(f"{place}: expected a camera with position and target, found one without")
    if not any(table.up):
        raise BadInput(f"{place}: expected an up to turn about, found zero")
    turn = matrix.rotation(table.up, trig.radians(degrees))
    x, y, z = matrix.transform_vector(turn, matrix.subtract(table.position, table.target))
    centre = table.target
    return msgspec.structs.replace(table, position=(centre[0] + x, centre[1] + y, centre[2] + z))
