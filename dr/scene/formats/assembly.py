"""Puts scenes together: parts placed by a transform, shared data kept once. Knows no file format."""

from __future__ import annotations

import msgspec
import numpy as np

from dr.errors import BadInput
from dr.scene import matrix
from dr.scene.model import (
    F64,
    MAX_INSTANCES,
    MAX_LIGHTS,
    Camera,
    DirectionalLight,
    EnvironmentLight,
    Image,
    Instance,
    Light,
    Material,
    Mesh,
    PointLight,
    QuadLight,
    Scene,
    SpotLight,
    Texture,
)

TEXTURE_SLOTS = (
    "base_color_texture",
    "metallic_roughness_texture",
    "normal_texture",
    "occlusion_texture",
    "emission_texture",
)


class Assembly:
    """A scene under construction."""

    def __init__(self) -> None:
        self.meshes: list[Mesh] = []
        self.materials: list[Material] = []
        self.images: list[Image] = []
        self.instances: list[Instance] = []
        self.lights: list[Light] = []
        self.cameras: list[Camera] = []
        self.notices: dict[str, None] = {}  # a set that keeps its order
        self.environment: EnvironmentLight | None = None
        self.animated = False
        self.last_s = 0.0  # time of the last key of the parts' animations
        self._objects = 0
        self._rows: dict[str, tuple[int, list[int]]] = {}  # part -> its first mesh, its materials
        self._image_rows: dict[str, int] = {}

    def image_row(self, image: Image) -> int:
        """Where `image` stands in `images`; a file that several parts name stands there once."""
        if image.asset is not None and image.asset in self._image_rows:
            return self._image_rows[image.asset]
        self.images.append(image)
        row = len(self.images) - 1
        if image.asset is not None:
            self._image_rows[image.asset] = row
        return row

    def add_material(self, material: Material) -> int:
        self.materials.append(material)
        return len(self.materials) - 1

    def add_object(self, mesh: Mesh, key: str, material: int, transform: F64, name: str) -> None:
        """One mesh as one object. The same `key` means the same mesh."""
        if key not in self._rows:
            self._rows[key] = len(self.meshes), []
            self.meshes.append(mesh)
        self._check_limits(1, 0, key)
        self._objects += 1
        self.instances.append(
            Instance(
                mesh=self._rows[key][0], material=material, transform=transform, object_id=self._objects, name=name
            )
        )

    def add_scene(self, part: Scene, key: str, transform: F64, material: int | None, place: str) -> None:
        """All of `part`, moved by `transform`; `material` replaces its own. The same `key` means the same part."""
        self._check_limits(len(part.instances), len(part.lights), place)
        first_mesh, materials = self._share(part, key)
        own = np.array([instance.transform for instance in part.instances]).reshape(-1, 4, 4)
        self.instances.extend(
            Instance(
                mesh=first_mesh + instance.mesh,
                material=materials[instance.material] if material is None else material,
                transform=moved,
                object_id=self._objects + instance.object_id,
                name=instance.name,
            )
            for instance, moved in zip(part.instances, matrix.multiply(transform, own), strict=True)
        )
        self._objects += max((instance.object_id for instance in part.instances), default=0)
        self.cameras.extend(_moved_camera(camera, transform, place) for camera in part.cameras)
        for light in part.lights:
            if isinstance(light, EnvironmentLight):
                self._add_environment(light, part, place)
            else:
                self.lights.append(moved_light(light, transform, place))
        self.notices.update(dict.fromkeys(part.notices))
        self.animated = self.animated or part.animated
        self.last_s = max(self.last_s, part.last_s)

    def _share(self, part: Scene, key: str) -> tuple[int, list[int]]:
        """Adds the meshes, materials and images of a part on its first use."""
        if key not in self._rows:
            images = [self.image_row(image) for image in part.images]
            materials = [self.add_material(_with_images(material, images)) for material in part.materials]
            self._rows[key] = len(self.meshes), materials
            self.meshes.extend(part.meshes)
        return self._rows[key]

    def _add_environment(self, light: EnvironmentLight, part: Scene, place: str) -> None:
        """There is one environment; the first one stays. A part's transform does not turn it."""
        if self.environment is not None:
            self.notices[f"{place}: its environment was ignored; there is one already"] = None
            return
        image = None if light.image is None else self.image_row(part.images[light.image])
        self.environment = msgspec.structs.replace(light, image=image)

    def _check_limits(self, instances: int, lights: int, place: str) -> None:
        if len(self.instances) + instances > MAX_INSTANCES:
            raise BadInput(f"{place}: expected at most {MAX_INSTANCES} instances in a scene, found more")
        if len(self.lights) + lights > MAX_LIGHTS:
            raise BadInput(f"{place}: expected at most {MAX_LIGHTS} lights in a scene, found more")


def moved_light(light: Light, transform: F64, place: str) -> Light:
    """A light carried along by a transform. Its intensity or radiance stays."""
    try:
        if isinstance(light, PointLight):
            return msgspec.structs.replace(light, position=matrix.transform_point(transform, light.position))
        if isinstance(light, SpotLight):
            direction = matrix.normalize(matrix.transform_vector(transform, light.direction))
            position = matrix.transform_point(transform, light.position)
            return msgspec.structs.replace(light, position=position, direction=direction)
        if isinstance(light, DirectionalLight):
            direction = matrix.normalize(matrix.transform_vector(transform, light.direction))
            return msgspec.structs.replace(light, direction=direction)
    except ValueError as error:
        raise BadInput(f"{place}: expected a transform that leaves its lights a direction, found scale zero") from error
    return _moved_quad(light, transform) if isinstance(light, QuadLight) else light


def _moved_quad(light: QuadLight, transform: F64) -> QuadLight:
    edges = [matrix.transform_vector(transform, edge) for edge in (light.edge_u, light.edge_v)]
    if matrix.determinant(transform) < 0.0:
        edges.reverse()  # a mirror would turn its front to the back
    corner = matrix.transform_point(transform, light.corner)
    return msgspec.structs.replace(light, corner=corner, edge_u=edges[0], edge_v=edges[1])


def _moved_camera(camera: Camera, transform: F64, place: str) -> Camera:
    try:
        moved = matrix.without_scale(matrix.multiply(transform, camera.transform))
    except ValueError as error:
        raise BadInput(f"{place}: expected a transform that a camera can have, found one of scale zero") from error
    return msgspec.structs.replace(camera, transform=moved)


def _with_images(material: Material, rows: list[int]) -> Material:
    moved = {}
    for slot in TEXTURE_SLOTS:
        texture: Texture | None = getattr(material, slot)
        if texture is not None:
            moved[slot] = msgspec.structs.replace(texture, image=rows[texture.image])
    return msgspec.structs.replace(material, **moved)
