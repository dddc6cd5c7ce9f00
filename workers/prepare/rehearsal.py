"""A scene as small as can be that takes every step of preparation once, so that its kernels are compiled and loaded."""

from __future__ import annotations

import struct

import numpy as np

from dr.errors import BadInput
from dr.scene.assets import Role
from dr.scene.model import (
    Camera,
    EnvironmentLight,
    Image,
    Instance,
    Material,
    Mesh,
    PointLight,
    QuadLight,
    RenderSettings,
    Scene,
    Texture,
)
from workers.prepare.folders import PrivateFolder, user_folder
from workers.prepare.prepare import write_prepared
from workers.prepare.scene_file import Prepared, open_scene


class NoFiles:
    """A scene that carries all its bytes itself."""

    def read(self, name: str, role: Role, place: str) -> bytes:
        raise BadInput(f"{place}: the rehearsal has no file {name}")

    def refer(self, name: str, role: Role, place: str) -> None:
        self.read(name, role, place)


def rehearse(threads: int) -> Prepared:
    """Prepares and opens the little scene."""
    folder = PrivateFolder(user_folder("servers"))
    try:
        path = folder.path / "rehearsal.scene"
        write_prepared(rehearsal_scene(), NoFiles(), path, threads, lambda text: None)
        return open_scene(path, RenderSettings(width=1, height=1, samples=1))
    finally:
        folder.close()


def rehearsal_scene() -> Scene:
    """Two triangles, textures, a normal map, and a light of each kind that has kernels."""
    texture = Texture(image=0)
    plain = Material(base_color_texture=texture, normal_texture=texture)
    glowing = Material(emission=(1.0, 1.0, 1.0), emission_texture=texture)
    far = np.eye(4)
    far[2, 3] = -2.0
    instances = (
        Instance(mesh=0, material=0, transform=np.eye(4), object_id=1),
        Instance(mesh=0, material=1, transform=far, object_id=2),
    )
    quad = QuadLight(corner=(0.0, 3.0, 0.0), edge_u=(1.0, 0.0, 0.0), edge_v=(0.0, 0.0, 1.0), radiance=(1.0, 1.0, 1.0))
    point = PointLight(position=(0.0, 2.0, 0.0), intensity=(1.0, 1.0, 1.0))
    return Scene(
        meshes=(triangle(),),
        instances=instances,
        materials=(plain, glowing),
        images=(Image(data=bmp_pixel(), place="rehearsal"), Image(data=hdr_pixels(), place="rehearsal")),
        lights=(quad, point, EnvironmentLight(image=1)),
        cameras=(Camera(transform=np.eye(4)),),
    )


def triangle() -> Mesh:
    return Mesh(
        positions=np.array([[-1, -1, 0], [1, -1, 0], [0, 1, 0]], np.float32),
        triangles=np.array([[0, 1, 2]], np.int32),
        normals=np.array([[0, 0, 1]] * 3, np.float32),
        uv0=np.array([[0, 1], [1, 1], [0, 0]], np.float32),
    )


def bmp_pixel() -> bytes:
    """A Windows bitmap of one grey pixel, 24 bits, its row padded to 4 bytes."""
    header = struct.pack("<2sIHHI", b"BM", 58, 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + b"\x80\x80\x80\0"


def hdr_pixels() -> bytes:
    """A Radiance picture of two pixels of radiance 1, 8 bits and an exponent each."""
    return b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 2\n" + b"\x80\x80\x80\x81" * 2
