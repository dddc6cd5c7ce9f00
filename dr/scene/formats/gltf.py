"""Loads a glTF 2.0 file (.gltf, .glb) into the model. Knows how its parts come together; the parts know their details.

Follows the Khronos specification, version 2.0.1 (ISO/IEC 12113:2022). Vertex order of a mirrored instance stays as it
is stored: `Instance` keeps the negative determinant.
"""

from __future__ import annotations

import msgspec

from dr.scene.assets import Files, Role
from dr.scene.explain import pick
from dr.scene.formats import gltf_nodes
from dr.scene.formats.budget import Budget
from dr.scene.formats.gltf_animation import Motion
from dr.scene.formats.gltf_document import Document
from dr.scene.formats.gltf_materials import Materials
from dr.scene.formats.gltf_meshes import Meshes
from dr.scene.model import F64, Camera, Instance, Light, Scene


def load_gltf(files: Files, name: str, role: Role, budget: Budget, time_s: float) -> Scene:
    """The file's scene at a moment of its animations, without what dr.scene.complete adds.

    BadInput names file and JSON path.
    """
    document = Document(files, name, role, budget)
    motion = Motion(document, time_s)
    notices = list(dict.fromkeys([*document.notices(), *motion.notices]))
    if motion.animated:
        document.root = msgspec.structs.replace(document.root, nodes=motion.nodes())
        document.refer_to_all_buffers()
    world = _World(document)
    for index, transform in gltf_nodes.walk(document):
        world.add(index, transform)
    if any(node.skin is not None for node in document.root.nodes):
        notices.append(f"{document.label}: skins are not supported; skinned meshes are shown as stored")
    return Scene(
        name=name,
        meshes=tuple(world.meshes.meshes),
        instances=tuple(world.instances),
        materials=tuple(world.materials.materials),
        images=tuple(world.materials.images),
        lights=tuple(world.lights),
        cameras=tuple(world.cameras),
        animated=motion.animated,
        last_s=motion.last_s,
        notices=(*notices, *world.meshes.notices, *world.materials.notices),
    )


class _World:
    """What the nodes visited so far have put into the scene."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.meshes = Meshes(document)
        self.materials = Materials(document)
        self.instances: list[Instance] = []
        self.cameras: list[Camera] = []
        self.lights: list[Light] = []
        self.objects = 0

    def add(self, index: int, transform: F64) -> None:
        node = self.document.root.nodes[index]
        place = self.document.place(f"nodes[{index}]")
        if node.camera is not None:
            self.cameras.append(gltf_nodes.camera(self.document, node, transform, place))
        if node.extensions.punctual is not None:
            self.lights.append(gltf_nodes.light(self.document, node, transform, place))
        if node.mesh is not None:
            self._add_mesh(node.mesh, index, transform)

    def _add_mesh(self, mesh_index: int, node_index: int, transform: F64) -> None:
        node = self.document.root.nodes[node_index]
        mesh = pick(self.document.root.meshes, mesh_index, "meshes", self.document.place(f"nodes[{node_index}].mesh"))
        self.objects += 1
        for number, primitive in enumerate(mesh.primitives):
            row = self.meshes.row(mesh_index, number, node.weights)
            if row is None:
                continue
            place = self.document.place(f"meshes[{mesh_index}].primitives[{number}].material")
            self.instances.append(
                Instance(
                    mesh=row,
                    material=self.materials.row(primitive.material, place),
                    transform=transform,
                    object_id=self.objects,
                    name=node.name or mesh.name,
                )
            )
