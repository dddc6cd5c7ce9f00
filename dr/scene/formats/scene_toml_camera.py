"""Translates a camera table of a .scene.toml. Knows lenses; sees nothing else of the scene."""

from __future__ import annotations

from dr.errors import BadInput
from dr.scene import matrix, trig
from dr.scene.formats import scene_toml_schema as schema
from dr.scene.model import F64, Camera

_SENSOR_WIDTH_MM = 36.0
_DEFAULT_FOV_DEGREES = 45.0
_UP = (0.0, 1.0, 0.0)


def camera(table: schema.CameraTable, place: str) -> Camera:
    """BadInput where the table says two things about one, or too little."""
    if table.focal_length is not None:
        if table.fov is not None or table.fov_axis is not None:
            raise BadInput(f"{place}: expected focal_length or fov, found both")
        fov, axis = 2.0 * trig.atan(0.5 * _SENSOR_WIDTH_MM / table.focal_length), "x"
    else:
        fov, axis = trig.radians(table.fov or _DEFAULT_FOV_DEGREES), table.fov_axis or "y"
    return Camera(
        name=table.name,
        transform=_transform(table, place),
        fov=fov,
        fov_axis="x" if axis == "x" else "y",
        orthographic_height=table.orthographic_height,
        aperture_radius=_aperture_radius(table, place),
        focus_distance=_focus_distance(table),
    )


def _transform(table: schema.CameraTable, place: str) -> F64:
    if table.matrix is not None:
        if table.position is not None or table.target is not None or table.up != _UP:
            raise BadInput(f"{place}: expected a matrix or position, target and up; found both")
        return _without_scale(matrix.from_rows(table.matrix), f"{place}.matrix")
    if table.position is None or table.target is None:
        raise BadInput(f"{place}: expected position and target, or matrix")
    try:
        return matrix.look_at(table.position, table.target, table.up)
    except ValueError as error:
        raise BadInput(f"{place}: expected a target away from the position and an up across the view") from error


def _without_scale(transform: F64, place: str) -> F64:
    try:
        return matrix.without_scale(transform)
    except ValueError as error:
        raise BadInput(f"{place}: expected a transform that a camera can have, found one of scale zero") from error


def _aperture_radius(table: schema.CameraTable, place: str) -> float:
    if table.f_stop is None:
        return table.aperture_radius or 0.0
    if table.aperture_radius is not None:
        raise BadInput(f"{place}: expected aperture_radius or f_stop, found both")
    if table.focal_length is None:
        raise BadInput(f"{place}.f_stop: expected a focal_length with it; without one say aperture_radius in metres")
    return table.focal_length / 1000.0 / (2.0 * table.f_stop)


def _focus_distance(table: schema.CameraTable) -> float:
    if table.focus_distance is not None:
        return table.focus_distance
    if table.position is not None and table.target is not None:
        return matrix.length(matrix.subtract(table.target, table.position))
    return 1.0
