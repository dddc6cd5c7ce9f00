"""Loads a .scene.toml, our own description of a scene, and what it includes. docs/scene.md describes the format."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

from dr.errors import BadInput
from dr.scene import matrix, trig
from dr.scene.assets import Files, Role, resolve_name
from dr.scene.formats import scene_toml_schema as schema
from dr.scene.formats.assembly import Assembly
from dr.scene.formats.scene_toml_animation import last_key_s, posed
from dr.scene.formats.scene_toml_camera import camera
from dr.scene.formats.scene_toml_materials import NamedMaterials
from dr.scene.formats.shapes import box_mesh, quad_mesh
from dr.scene.formats.toml_tables import read_tables
from dr.scene.model import (
    F64,
    RGB,
    DirectionalLight,
    EnvironmentLight,
    Image,
    Light,
    Mesh,
    Point,
    PointLight,
    QuadLight,
    Scene,
    SpotLight,
)

LoadPart = Callable[[str, str], Scene | Mesh]  # (name, place) -> the contents of another scene file


def read_scene_toml(files: Files, name: str) -> schema.SceneTable:
    """What the file says, checked for names, types and ranges alone."""
    label = posixpath.basename(name)
    return read_tables(files.read(name, Role.SCENE, label), schema.SceneTable, label)


def load_scene_toml(files: Files, name: str, written: schema.SceneTable, time_s: float, load_part: LoadPart) -> Scene:
    """The scene `written` in the file `name`, as it stands at a moment, without what dr.scene.complete adds.

    `load_part` loads what it includes.
    """
    label = posixpath.basename(name)
    table = posed(written, time_s, label)
    assembly = Assembly()
    materials = NamedMaterials(assembly, files, name, label)
    materials.define(table.materials)
    for number, light in enumerate(table.lights):
        place = f"{label}: lights[{number}]"
        if isinstance(light, schema.EnvironmentTable):
            _set_environment(assembly, _environment(light, assembly, files, name, place), place)
        else:
            assembly.lights.append(_light(light, place))
    assembly.cameras.extend(camera(each, f"{label}: cameras[{number}]") for number, each in enumerate(table.cameras))
    for number, each in enumerate(table.objects):
        _add_object(each, assembly, materials, load_part, _Place(name, f"{label}: objects[{number}]"))
    materials.override(table.overrides)
    own_last_s = last_key_s(table)
    return Scene(
        name=table.name or name,
        meshes=tuple(assembly.meshes),
        instances=tuple(assembly.instances),
        materials=tuple(assembly.materials),
        images=tuple(assembly.images),
        lights=(*assembly.lights, *([assembly.environment] if assembly.environment else [])),
        cameras=tuple(assembly.cameras),
        settings=table.render,
        view=table.view,
        servers=tuple(table.servers),
        animated=assembly.animated or own_last_s is not None,
        last_s=max(assembly.last_s, own_last_s or 0.0),
        notices=tuple(assembly.notices),
    )


class _Place:
    """Where something stands: the file's name as others refer to it, and the words for error messages."""

    def __init__(self, file_name: str, text: str) -> None:
        self.file_name = file_name
        self.text = text


def _add_object(
    table: schema.ObjectTable, assembly: Assembly, materials: NamedMaterials, load_part: LoadPart, place: _Place
) -> None:
    if sum(value is not None for value in (table.file, table.quad, table.box)) != 1:
        raise BadInput(f"{place.text}: expected exactly one of file, quad and box")
    transform = _transform(table, place.text)
    material_place = f"{place.text}.material"
    if table.file is None:
        mesh = _shape(table, place.text)
        row = materials.row(table.material, material_place)
        assembly.add_object(mesh, place.text, row, transform, table.name)
        return
    part_name = resolve_name(table.file, place.file_name, f"{place.text}.file")
    part = load_part(part_name, f"{place.text}.file")
    if isinstance(part, Mesh):
        row = materials.row(table.material, material_place)
        assembly.add_object(part, part_name, row, transform, table.name or part.name)
        return
    replacement = None if table.material is None else materials.row(table.material, material_place)
    assembly.add_scene(part, part_name, transform, replacement, place.text)


def _shape(table: schema.ObjectTable, place: str) -> Mesh:
    if table.quad is not None:
        return quad_mesh(table.quad)
    assert table.box is not None
    return box_mesh(table.box, f"{place}.box")


def _transform(table: schema.ObjectTable, place: str) -> F64:
    """Scale, then rotate, then translate; or the matrix."""
    if table.matrix is not None:
        if (table.translate, table.rotate, table.scale) != (None, None, None):
            raise BadInput(f"{place}: expected a matrix or translate, rotate and scale; found both")
        return _affine(table.matrix, f"{place}.matrix")
    transform = matrix.identity()
    if table.scale is not None:
        factors = (table.scale,) * 3 if isinstance(table.scale, float | int) else table.scale
        transform = matrix.scaling(factors)
    if table.rotate is not None:
        transform = matrix.multiply(_rotation(table.rotate, f"{place}.rotate"), transform)
    if table.translate is not None:
        transform = matrix.multiply(matrix.translation(table.translate), transform)
    return transform


def _affine(rows: schema.Matrix, place: str) -> F64:
    if tuple(rows[3]) != (0.0, 0.0, 0.0, 1.0):
        raise BadInput(f"{place}: expected [0, 0, 0, 1] as the last row, found {list(rows[3])}")
    return matrix.from_rows(rows)


def _rotation(rotate: schema.Vec3 | schema.AxisAngle, place: str) -> F64:
    """Angles about x, y and z, applied in this order about the fixed axes; or one angle about any axis."""
    if isinstance(rotate, schema.AxisAngle):
        if not any(rotate.axis):
            raise BadInput(f"{place}.axis: expected a direction, found zero")
        return matrix.rotation(rotate.axis, trig.radians(rotate.angle))
    total = matrix.identity()
    for axis, degrees in zip(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), rotate, strict=True):
        total = matrix.multiply(matrix.rotation(axis, trig.radians(degrees)), total)
    return total


def _light(table: schema.LightTable, place: str) -> Light:
    if isinstance(table, schema.QuadLightTable):
        if matrix.length(matrix.cross(table.edge_u, table.edge_v)) == 0.0:
            raise BadInput(f"{place}: expected edges that span an area, found parallel or zero ones")
        fields = set(QuadLight.__struct_fields__)
        return QuadLight(**{field: getattr(table, field) for field in table.__struct_fields__ if field in fields})
    if isinstance(table, schema.PointLightTable):
        return PointLight(position=table.position, intensity=table.intensity)
    if isinstance(table, schema.SpotLightTable):
        return _spot(table, place)
    assert isinstance(table, schema.DirectionalLightTable)
    return DirectionalLight(direction=_unit(table.direction, f"{place}.direction"), irradiance=table.irradiance)


def _spot(table: schema.SpotLightTable, place: str) -> SpotLight:
    if (table.direction is None) == (table.target is None):
        raise BadInput(f"{place}: expected exactly one of direction and target")
    if table.inner_angle >= table.outer_angle:
        raise BadInput(f"{place}: expected an inner_angle below the outer_angle of {table.outer_angle} degrees")
    towards = table.direction or matrix.subtract(table.target or table.position, table.position)
    return SpotLight(
        position=table.position,
        direction=_unit(towards, f"{place}.direction"),
        intensity=table.intensity,
        inner_angle=trig.radians(table.inner_angle),
        outer_angle=trig.radians(table.outer_angle),
    )


def _environment(
    table: schema.EnvironmentTable, assembly: Assembly, files: Files, file_name: str, place: str
) -> EnvironmentLight:
    image = None
    if table.image is not None:
        asset = resolve_name(table.image, file_name, f"{place}.image")
        files.refer(asset, Role.ENVIRONMENT, f"{place}.image")
        image = assembly.image_row(Image(asset=asset, place=f"{place}.image"))
    red, green, blue = table.radiance
    radiance: RGB = (red * table.strength, green * table.strength, blue * table.strength)
    return EnvironmentLight(radiance=radiance, image=image, rotation=trig.radians(table.rotation))


def _set_environment(assembly: Assembly, light: EnvironmentLight, place: str) -> None:
    if assembly.environment is not None:
        raise BadInput(f"{place}: expected one environment, found a second")
    assembly.environment = light


def _unit(direction: Point, place: str) -> Point:
    try:
        return matrix.normalize(direction)
    except ValueError as error:
        raise BadInput(f"{place}: expected a direction, found zero") from error
