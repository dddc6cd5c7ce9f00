"""Makes a loaded scene renderable: a camera, light, and limits kept. Knows no file format and opens no file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from dr.errors import BadInput
from dr.scene import matrix, trig
from dr.scene.explain import suggest
from dr.scene.model import F64, MAX_EXTENT, Camera, EnvironmentLight, Material, Mesh, Point, Scene
from dr.scene.studio import studio_image

_VIEW = (0.5, 0.4, 1.0)  # from the scene towards the default camera: in front, to the right, above
_FOV_DEGREES = 45.0
_MARGIN = 1.05
_MIN_VOLUME = 1.0 / (MAX_EXTENT * MAX_EXTENT * MAX_EXTENT)  # of a unit cube after an instance's transform
_MAX_NUMBER = 1e30  # of a light or a colour; its products still fit a float32


def complete(scene: Scene, label: str, framed: Scene | None = None) -> Scene:
    """`scene` with what it lacks; a line of `notices` for each addition. BadInput when it cannot be rendered.

    A camera that is added shows all of the scene, or all of `framed`, which is how the scene stands at another moment.
    """
    notices = list(scene.notices)
    emits = _emits(scene)  # a lamp of scale zero is off, and no reason to light a frame in another way
    scene = _without_flat_instances(scene, label, notices)
    low, high = _bounds(scene, label)
    if not scene.instances:
        notices.append(f"{label}: nothing to see: no triangles")
    cameras = scene.cameras
    if not cameras:
        if framed is not None:
            low, high = _bounds(_without_flat_instances(framed, label, []), label)
        cameras = (_framing_camera(low, high, scene.settings.width >= scene.settings.height),)
        notices.append(f"{label}: no camera: added one that shows everything")
    _check_settings(scene, cameras, label)
    _check_numbers(scene, label)
    if not scene.lights and scene.settings.default_light and not emits:
        scene = _with_studio(scene)
        notices.append(f"{label}: no light: added a neutral environment (--no-default-light renders without)")
    return msgspec.structs.replace(scene, cameras=cameras, notices=tuple(notices))


def camera_index(names: Sequence[str], wanted: str | None, label: str) -> int:
    """Which of the cameras with these names RenderSettings.camera means: a name, or an index as text, or the first."""
    if wanted is None:
        return 0
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and wanted.isascii() and len(wanted) < 10 and int(wanted) < len(names):
        return int(wanted)
    known = [*filter(None, names), *map(str, range(len(names)))][:20]
    raise BadInput(f"{label}: there is no camera {wanted[:80]!r}; {suggest(wanted[:80], known)}")


def _check_settings(scene: Scene, cameras: tuple[Camera, ...], label: str) -> None:
    settings = scene.settings
    camera_index([camera.name for camera in cameras], settings.camera, label)
    region = settings.region
    if region and (region.x + region.width > settings.width or region.y + region.height > settings.height):
        raise BadInput(
            f"{label}: region: expected a rectangle within {settings.width}x{settings.height}, found "
            f"{region.width}x{region.height} at {region.x},{region.y}"
        )


def _check_numbers(scene: Scene, label: str) -> None:
    """Infinities and what becomes one in single precision stop here."""
    for number, light in enumerate(scene.lights):
        _check_size(msgspec.structs.astuple(light), f"{label}: light {number}")
    for material in scene.materials:
        _check_size(material.emission, f"{label}: emission of material {material.name[:80]!r}")
    for camera in scene.cameras:
        _check_size(camera.transform.reshape(-1).tolist(), f"{label}: transform of camera {camera.name[:80]!r}")


def _check_size(value: Any, place: str) -> None:
    if isinstance(value, tuple | list):
        for each in value:
            _check_size(each, place)
    elif isinstance(value, float) and not abs(value) < _MAX_NUMBER:
        raise BadInput(f"{place}: expected numbers below {_MAX_NUMBER:g}, found {value:g}")


def _with_studio(scene: Scene) -> Scene:
    light = EnvironmentLight(image=len(scene.images))
    return msgspec.structs.replace(scene, images=(*scene.images, studio_image()), lights=(light,))


def _emits(scene: Scene) -> bool:
    """Whether some object is a lamp. A glow map is decoration: nobody can tell how much light it gives."""
    return any(_is_lamp(scene.materials[row]) for row in {instance.material for instance in scene.instances})


def _is_lamp(material: Material) -> bool:
    return max(material.emission) > 0.0 and material.emission_texture is None


def _without_flat_instances(scene: Scene, label: str, notices: list[str]) -> Scene:
    """Drops instances without triangles and those squashed to nothing, which have no inverse transform."""
    seen = [instance for instance in scene.instances if len(scene.meshes[instance.mesh].triangles)]
    kept = [instance for instance in seen if not abs(matrix.determinant(instance.transform)) < _MIN_VOLUME]
    if len(kept) < len(seen):
        notices.append(f"{label}: objects with a scale of zero were left out: {len(seen) - len(kept)}")
    return scene if len(kept) == len(scene.instances) else msgspec.structs.replace(scene, instances=tuple(kept))


def _bounds(scene: Scene, label: str) -> tuple[Point, Point]:
    """Corners of a box around all instances; a unit cube when there are none."""
    if not scene.instances:
        return (-0.5, -0.5, -0.5), (0.5, 0.5, 0.5)
    boxes = np.array([_mesh_bounds(mesh) for mesh in scene.meshes])  # [mesh, 2, 3]
    transforms = np.array([instance.transform for instance in scene.instances])
    corners = boxes[[instance.mesh for instance in scene.instances]]
    with np.errstate(over="ignore", invalid="ignore"):
        low, high = _transformed_boxes(transforms, corners)
    far = np.flatnonzero(~((np.abs(low) < MAX_EXTENT) & (np.abs(high) < MAX_EXTENT)).all(axis=1))
    if far.size:
        name = scene.instances[far[0]].name[:80]
        raise BadInput(f"{label}: object {name!r}: expected it within {MAX_EXTENT:g} metres of the origin, found more")
    return _point(low.min(axis=0)), _point(high.max(axis=0))


def _mesh_bounds(mesh: Mesh) -> tuple[F64, F64]:
    if not len(mesh.triangles):
        return np.zeros(3), np.zeros(3)
    return mesh.positions.min(axis=0).astype(np.float64), mesh.positions.max(axis=0).astype(np.float64)


def _transformed_boxes(transforms: F64, boxes: F64) -> tuple[F64, F64]:
    """Low and high corners [n, 3] of axis-aligned boxes around transformed ones."""
    low = transforms[:, :3, 3].copy()
    high = low.copy()
    for axis in range(3):
        a = transforms[:, :3, axis] * boxes[:, 0, axis, None]
        b = transforms[:, :3, axis] * boxes[:, 1, axis, None]
        low += np.minimum(a, b)
        high += np.maximum(a, b)
    return low, high


def _framing_camera(low: Point, high: Point, landscape: bool) -> Camera:
    """A three-quarter view from which a sphere around the box fits the shorter side of the picture."""
    centre: Point = tuple(0.5 * (a + b) for a, b in zip(low, high, strict=True))  # type: ignore[assignment]
    radius = 0.5 * matrix.length(matrix.subtract(high, low)) or 1.0
    fov = trig.radians(_FOV_DEGREES)
    distance = _MARGIN * radius / trig.sin(0.5 * fov)
    x, y, z = matrix.normalize(_VIEW)
    position = (centre[0] + x * distance, centre[1] + y * distance, centre[2] + z * distance)
    return Camera(
        name="default",
        transform=matrix.look_at(position, centre, (0.0, 1.0, 0.0)),
        fov=fov,
        fov_axis="y" if landscape else "x",
        focus_distance=distance,
    )


def _point(values: F64) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
