"""What is to be rendered, as data. Knows no file format, no wire and no kernel.

Units: metres, radians, linear Rec. 709 radiance (W / sr / m^2 per channel). Right-handed, +Y up (glTF).
Matrices are row-major 4x4 float64 arrays that act on column vectors: `world = matrix @ [x, y, z, 1]`.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Annotated, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Meta, Struct

from dr.settings import ServerAddress as ServerAddress

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]
I32: TypeAlias = npt.NDArray[np.int32]
RGB: TypeAlias = tuple[float, float, float]
Point: TypeAlias = tuple[float, float, float]

Pixels = Annotated[int, Meta(ge=1, le=65536)]

MAX_INSTANCES = 1 << 20
MAX_LIGHTS = 1 << 16
MAX_EXTENT = 1e15  # metres from the origin; areas and volumes of what lies within fit a float32


class Image(Struct, frozen=True, kw_only=True, eq=False):
    """An undecoded picture: a file that the scene references by name, or bytes that were embedded in another file.

    Exactly one of `asset` and `data` is set. `place` says where the reference stands, for error messages
    (`"chair.gltf: images[2]"`).
    """

    asset: str | None = None
    data: bytes | None = None
    place: str = ""


class Wrap(IntEnum):
    REPEAT = 0
    CLAMP = 1
    MIRROR = 2


class TexelFilter(IntEnum):
    BILINEAR = 0
    NEAREST = 1


class Texture(Struct, frozen=True, kw_only=True):
    """An image as a material slot sees it."""

    image: int  # index into Scene.images
    uv_set: int = 0  # 0 or 1
    wrap_u: Wrap = Wrap.REPEAT
    wrap_v: Wrap = Wrap.REPEAT
    filter: TexelFilter = TexelFilter.BILINEAR


class AlphaMode(IntEnum):
    OPAQUE = 0
    MASK = 1
    BLEND = 2


class Material(Struct, frozen=True, kw_only=True):
    """The glTF 2.0 metallic-roughness model. A texture multiplies the factor of the same name.

    `specular` is the weight of the dielectric's mirror reflection (0 makes a pure diffuse), `emission` is radiance
    with the emissive strength already multiplied in. The occlusion texture is kept but not rendered: a path tracer
    computes occlusion itself.
    """

    name: str = ""
    base_color: RGB = (1.0, 1.0, 1.0)
    alpha: float = 1.0
    metallic: float = 1.0
    roughness: float = 1.0
    specular: float = 1.0
    ior: float = 1.5
    emission: RGB = (0.0, 0.0, 0.0)
    normal_scale: float = 1.0
    alpha_mode: AlphaMode = AlphaMode.OPAQUE
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    base_color_texture: Texture | None = None  # sRGB, alpha in A
    metallic_roughness_texture: Texture | None = None  # linear: G roughness, B metallic
    normal_texture: Texture | None = None  # linear, tangent space, +Y up
    occlusion_texture: Texture | None = None
    emission_texture: Texture | None = None  # sRGB


class Mesh(Struct, frozen=True, kw_only=True, eq=False):
    """Triangles in object space. Counter-clockwise is the front."""

    name: str = ""
    positions: F32  # [vertex, 3]
    triangles: I32  # [triangle, 3], indices into the vertex arrays
    normals: F32 | None = None  # [vertex, 3], unit; None means flat shading
    tangents: F32 | None = None  # [vertex, 4], xyz unit, w handedness +1 or -1
    uv0: F32 | None = None  # [vertex, 2], (0, 0) is the image's top left corner
    uv1: F32 | None = None  # [vertex, 2]
    colors: F32 | None = None  # [vertex, 4], linear, multiplies base colour and alpha


class Instance(Struct, frozen=True, kw_only=True, eq=False):
    """A mesh placed in the world. A negative determinant turns the mesh inside out; its front stays its front."""

    mesh: int  # index into Scene.meshes
    material: int  # index into Scene.materials
    transform: F64  # [4, 4] object to world
    object_id: int  # 1 and up, one per named object (glTF node); what the id channel shows
    name: str = ""


class PointLight(Struct, frozen=True, kw_only=True, tag="point"):
    position: Point
    intensity: RGB  # radiant intensity, W / sr


class SpotLight(Struct, frozen=True, kw_only=True, tag="spot"):
    """Intensity falls smoothly from `inner_angle` to `outer_angle` (KHR_lights_punctual's formula)."""

    position: Point
    direction: Point  # unit, the way the light travels
    intensity: RGB  # W / sr on the axis
    inner_angle: float = 0.0  # half angle, radians
    outer_angle: float = 0.7853981633974483


class DirectionalLight(Struct, frozen=True, kw_only=True, tag="directional"):
    direction: Point  # unit, the way the light travels
    irradiance: RGB  # W / m^2 on a surface that faces the light


class QuadLight(Struct, frozen=True, kw_only=True, tag="quad"):
    """A parallelogram `corner + s * edge_u + t * edge_v`, s and t in 0..1; emits to the side of edge_u x edge_v."""

    corner: Point
    edge_u: Point
    edge_v: Point
    radiance: RGB
    two_sided: bool = False
    visible: bool = True  # False: lights the scene but no ray hits it
    name: str = ""


class EnvironmentLight(Struct, frozen=True, kw_only=True, tag="environment"):
    """Light from all around: a constant, or a latitude-longitude image times `radiance`.

    For a direction d in the environment's own frame: u = atan2(d.z, d.x) / 2 pi + 0.5 and, from the top,
    v = 0.5 - asin(d.y) / pi. `rotation` turns the environment about +Y (radians, right hand).
    """

    radiance: RGB = (1.0, 1.0, 1.0)
    image: int | None = None  # index into Scene.images
    rotation: float = 0.0


Light: TypeAlias = PointLight | SpotLight | DirectionalLight | QuadLight | EnvironmentLight


class Camera(Struct, frozen=True, kw_only=True, eq=False):
    """Looks along its own -Z with +Y up. `fov` belongs to `fov_axis` of the picture, whatever its aspect ratio.

    `orthographic_height` instead of None makes it orthographic: the visible height in metres (`fov` is not used).
    `aperture_radius` 0 is a pinhole.
    """

    name: str = ""
    transform: F64  # [4, 4] camera to world, no scale
    fov: float = 0.7853981633974483
    fov_axis: Literal["x", "y"] = "y"
    orthographic_height: float | None = None
    aperture_radius: float = 0.0
    focus_distance: float = 1.0


class PixelFilter(StrEnum):
    BOX = "box"
    BLACKMAN_HARRIS = "blackman-harris"


class Region(Struct, frozen=True, array_like=True):
    """A rectangle of the full frame, in pixels from the top left."""

    x: Annotated[int, Meta(ge=0, le=65536)]
    y: Annotated[int, Meta(ge=0, le=65536)]
    width: Pixels
    height: Pixels


class RenderSettings(Struct, frozen=True, kw_only=True):
    """Everything besides the scene that decides a pixel. Travels inline in `setup`."""

    width: Pixels = 960
    height: Pixels = 540
    samples: Annotated[int, Meta(ge=1, le=1 << 20)] = 64
    max_depth: Annotated[int, Meta(ge=1, le=1024)] = 8  # the camera ray counts as 1
    rr_depth: Annotated[int, Meta(ge=1, le=1024)] = 5  # Russian roulette from this depth on
    seed: Annotated[int, Meta(ge=0, le=(1 << 32) - 1)] = 0
    frame: Annotated[int, Meta(ge=0, le=(1 << 31) - 1)] = 0
    fps: Annotated[float, Meta(gt=0, le=100000)] = 24.0  # frame / fps is the time of animations, seconds
    pixel_filter: PixelFilter = PixelFilter.BLACKMAN_HARRIS
    filter_radius: Annotated[float, Meta(gt=0, le=8)] = 1.5  # pixels; a box's radius is always 0.5
    region: Region | None = None
    camera: str | None = None  # name, or index as text; None: the first
    default_light: bool = True  # a scene without lights gets a neutral environment

    @property
    def time_s(self) -> float:
        """The moment of all animations that the frame shows."""
        return self.frame / self.fps


class ViewSettings(Struct, frozen=True, kw_only=True):
    """How the linear picture is shown in .png and .jpg. Decides no pixel of the .exr."""

    view_transform: str = "Standard"  # Standard, ACES 2.0 or Raw
    exposure: float = 0.0  # stops


class Scene(Struct, frozen=True, kw_only=True, eq=False):
    """A complete scene: after loading it has at least one camera, and lights unless the user refused them."""

    name: str = ""
    meshes: tuple[Mesh, ...] = ()
    instances: tuple[Instance, ...] = ()
    materials: tuple[Material, ...] = ()
    images: tuple[Image, ...] = ()
    lights: tuple[Light, ...] = ()
    cameras: tuple[Camera, ...] = ()
    settings: RenderSettings = RenderSettings()
    view: ViewSettings = ViewSettings()
    servers: tuple[ServerAddress, ...] = ()
    animated: bool = False  # whether another frame may look different
    last_s: float = 0.0  # time of the last key of its animations
    notices: tuple[str, ...] = ()  # one line each, for the user: what was added, ignored or replaced
