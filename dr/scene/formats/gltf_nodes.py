"""Walks a glTF document's nodes and gives each its place in the world. Knows cameras and lights; no mesh."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dr.errors import BadInput
from dr.scene import matrix
from dr.scene.explain import pick
from dr.scene.formats import gltf_schema as schema
from dr.scene.formats.gltf_document import Document
from dr.scene.model import F64, RGB, Camera, DirectionalLight, Light, PointLight, SpotLight

FORWARD = (0.0, 0.0, -1.0)  # where cameras, spots and suns look in their own frame


def walk(document: Document) -> Iterator[tuple[int, F64]]:
    """Each node of the scene with its transform to the world, parents before children, in the order of the file."""
    parents = _parents(document)
    # Roots have no parent and nobody has two, so what is reached from the roots is a forest and the walk ends
    waiting = [(root, matrix.identity()) for root in reversed(_roots(document, parents))]
    while waiting:
        index, above = waiting.pop()
        node = document.root.nodes[index]
        world = matrix.multiply(above, _local_transform(node, document.place(f"nodes[{index}]")))
        yield index, world
        waiting.extend((child, world) for child in reversed(node.children))


def camera(document: Document, node: schema.Node, world: F64, place: str) -> Camera:
    assert node.camera is not None
    source = pick(document.root.cameras, node.camera, "cameras", f"{place}.camera")
    here = document.place(f"cameras[{node.camera}]")
    name = source.name or node.name
    try:
        transform = matrix.without_scale(world)
    except ValueError as error:
        raise BadInput(f"{place}: expected a transform that a camera can have, found one of scale zero") from error
    if source.type == "perspective":
        if source.perspective is None:
            raise BadInput(f"{here}: expected an object `perspective`, found none")
        return Camera(name=name, transform=transform, fov=source.perspective.yfov, fov_axis="y")
    if source.orthographic is None or source.orthographic.ymag == 0.0:
        raise BadInput(f"{here}: expected an object `orthographic` with a ymag other than 0, found none")
    return Camera(name=name, transform=transform, orthographic_height=2.0 * abs(source.orthographic.ymag))


def light(document: Document, node: schema.Node, world: F64, place: str) -> Light:
    """KHR_lights_punctual; candela and lux are taken as W / sr and W / m^2 per channel."""
    assert node.extensions.punctual is not None
    lights = document.root.extensions.punctual.lights
    source = pick(lights, node.extensions.punctual.light, "KHR_lights_punctual.lights", place)
    power: RGB = tuple(channel * source.intensity for channel in source.color)  # type: ignore[assignment]
    position = matrix.transform_point(world, (0.0, 0.0, 0.0))
    if source.type == "point":
        return PointLight(position=position, intensity=power)
    try:
        direction = matrix.normalize(matrix.transform_vector(world, FORWARD))
    except ValueError as error:
        raise BadInput(f"{place}: expected a transform that leaves the light a direction, found scale zero") from error
    if source.type == "directional":
        return DirectionalLight(direction=direction, irradiance=power)
    spot = source.spot or schema.Spot()
    if spot.inner_cone_angle >= spot.outer_cone_angle:
        raise BadInput(f"{place}: expected innerConeAngle below outerConeAngle {spot.outer_cone_angle}")
    return SpotLight(
        position=position,
        direction=direction,
        intensity=power,
        inner_angle=spot.inner_cone_angle,
        outer_angle=spot.outer_cone_angle,
    )


def _parents(document: Document) -> dict[int, int]:
    parents: dict[int, int] = {}
    for index, node in enumerate(document.root.nodes):
        place = document.place(f"nodes[{index}].children")
        for child in node.children:
            pick(document.root.nodes, child, "nodes", place)
            if child in parents:
                raise BadInput(
                    f"{place}: expected one parent per node; node {child} is a child of node {parents[child]} too"
                )
            parents[child] = index
    return parents


def _roots(document: Document, parents: dict[int, int]) -> list[int]:
    root = document.root
    if not root.scenes:
        return [index for index in range(len(root.nodes)) if index not in parents]
    number = root.scene or 0
    roots = pick(root.scenes, number, "scenes", document.place("scene")).nodes
    place = document.place(f"scenes[{number}].nodes")
    for index in roots:
        pick(root.nodes, index, "nodes", place)
        if index in parents:
            raise BadInput(f"{place}: expected root nodes, found node {index}, a child of node {parents[index]}")
    if len(set(roots)) < len(roots):
        raise BadInput(f"{place}: expected each root node once, found one repeated")
    return roots


def _local_transform(node: schema.Node, place: str) -> F64:
    if node.matrix is not None:
        return np.array(node.matrix, np.float64).reshape(4, 4).T
    transform = matrix.identity()
    if node.scale is not None:
        transform = matrix.scaling(node.scale)
    if node.rotation is not None:
        transform = matrix.multiply(_rotation(node.rotation, f"{place}.rotation"), transform)
    if node.translation is not None:
        transform[:3, 3] = node.translation
    return transform


def _rotation(quaternion: schema.Vec4, place: str) -> F64:
    x, y, z, w = quaternion
    if not x * x + y * y + z * z + w * w > 0.0:
        raise BadInput(f"{place}: expected a unit quaternion, found zero")
    return matrix.from_quaternion(quaternion)
