"""The part of a glTF 2.0 document that we read, field by field. Knows types and ranges, not what indices point at.

Names follow the specification (Khronos, glTF 2.0, 2021) in snake_case. What is not named here is not looked at.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

Index = Annotated[int, Meta(ge=0, lt=1 << 31)]
Bytes = Annotated[int, Meta(ge=0, lt=1 << 48)]
Count = Annotated[int, Meta(ge=1, lt=1 << 48)]
Unit = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Vec3 = tuple[float, float, float]
Vec4 = tuple[float, float, float, float]


class Part(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """Base of all parts of a document."""


class AssetInfo(Part, frozen=True, kw_only=True):
    version: str
    min_version: str = "2.0"


class Head(Part, frozen=True, kw_only=True):
    """What must be understood before anything else is: other versions have other types everywhere."""

    asset: AssetInfo


class Buffer(Part, frozen=True, kw_only=True):
    byte_length: Count
    uri: str | None = None


class BufferView(Part, frozen=True, kw_only=True):
    buffer: Index
    byte_length: Count
    byte_offset: Bytes = 0
    byte_stride: Annotated[int, Meta(ge=4, le=252)] | None = None


class SparseIndices(Part, frozen=True, kw_only=True):
    buffer_view: Index
    component_type: int
    byte_offset: Bytes = 0


class SparseValues(Part, frozen=True, kw_only=True):
    buffer_view: Index
    byte_offset: Bytes = 0


class Sparse(Part, frozen=True, kw_only=True):
    count: Count
    indices: SparseIndices
    values: SparseValues


class Accessor(Part, frozen=True, kw_only=True):
    component_type: int
    count: Count
    type: str
    buffer_view: Index | None = None
    byte_offset: Bytes = 0
    normalized: bool = False
    sparse: Sparse | None = None


class Image(Part, frozen=True, kw_only=True):
    uri: str | None = None
    buffer_view: Index | None = None
    name: str = ""


class Sampler(Part, frozen=True, kw_only=True):
    mag_filter: Literal[9728, 9729] | None = None
    wrap_s: Literal[33071, 33648, 10497] = 10497
    wrap_t: Literal[33071, 33648, 10497] = 10497


class Texture(Part, frozen=True, kw_only=True):
    source: Index | None = None
    sampler: Index | None = None


class TextureInfo(Part, frozen=True, kw_only=True):
    index: Index
    tex_coord: Index = 0


class NormalTextureInfo(TextureInfo, frozen=True, kw_only=True):
    scale: float = 1.0


class MetallicRoughness(Part, frozen=True, kw_only=True):
    base_color_factor: tuple[Unit, Unit, Unit, Unit] = (1.0, 1.0, 1.0, 1.0)
    metallic_factor: Unit = 1.0
    roughness_factor: Unit = 1.0
    base_color_texture: TextureInfo | None = None
    metallic_roughness_texture: TextureInfo | None = None


class EmissiveStrength(Part, frozen=True, kw_only=True):
    emissive_strength: NotNegative = 1.0


class Ior(Part, frozen=True, kw_only=True):
    ior: NotNegative = 1.5


class MaterialExtensions(Struct, frozen=True, kw_only=True):
    emissive_strength: EmissiveStrength = field(name="KHR_materials_emissive_strength", default=EmissiveStrength())
    ior: Ior = field(name="KHR_materials_ior", default=Ior())


class Material(Part, frozen=True, kw_only=True):
    name: str = ""
    pbr_metallic_roughness: MetallicRoughness = MetallicRoughness()
    normal_texture: NormalTextureInfo | None = None
    occlusion_texture: TextureInfo | None = None
    emissive_texture: TextureInfo | None = None
    emissive_factor: tuple[NotNegative, NotNegative, NotNegative] = (0.0, 0.0, 0.0)
    alpha_mode: Literal["OPAQUE", "MASK", "BLEND"] = "OPAQUE"
    alpha_cutoff: NotNegative = 0.5
    double_sided: bool = False
    extensions: MaterialExtensions = MaterialExtensions()


class Primitive(Part, frozen=True, kw_only=True):
    attributes: dict[str, Index]
    indices: Index | None = None
    material: Index | None = None
    mode: Annotated[int, Meta(ge=0, le=6)] = 4
    targets: list[dict[str, Index]] = []


class Mesh(Part, frozen=True, kw_only=True):
    primitives: Annotated[list[Primitive], Meta(min_length=1)]
    weights: list[float] | None = None
    name: str = ""


class Perspective(Part, frozen=True, kw_only=True):
    yfov: Annotated[float, Meta(gt=0, lt=3.141592653589793)]


class Orthographic(Part, frozen=True, kw_only=True):
    ymag: float


class Camera(Part, frozen=True, kw_only=True):
    type: Literal["perspective", "orthographic"]
    perspective: Perspective | None = None
    orthographic: Orthographic | None = None
    name: str = ""


class Spot(Part, frozen=True, kw_only=True):
    inner_cone_angle: Annotated[float, Meta(ge=0, le=1.5707963267948966)] = 0.0
    outer_cone_angle: Annotated[float, Meta(gt=0, le=1.5707963267948968)] = 0.7853981633974483


class PunctualLight(Part, frozen=True, kw_only=True):
    type: Literal["point", "spot", "directional"]
    color: tuple[NotNegative, NotNegative, NotNegative] = (1.0, 1.0, 1.0)
    intensity: NotNegative = 1.0
    spot: Spot | None = None
    name: str = ""


class PunctualLights(Part, frozen=True, kw_only=True):
    lights: list[PunctualLight] = []


class RootExtensions(Struct, frozen=True, kw_only=True):
    punctual: PunctualLights = field(name="KHR_lights_punctual", default=PunctualLights())


class LightReference(Part, frozen=True, kw_only=True):
    light: Index


class NodeExtensions(Struct, frozen=True, kw_only=True):
    punctual: LightReference | None = field(name="KHR_lights_punctual", default=None)


class Node(Part, frozen=True, kw_only=True):
    name: str = ""
    children: list[Index] = []
    camera: Index | None = None
    mesh: Index | None = None
    skin: Index | None = None
    weights: list[float] | None = None
    matrix: Annotated[list[float], Meta(min_length=16, max_length=16)] | None = None
    translation: Vec3 | None = None
    rotation: Vec4 | None = None
    scale: Vec3 | None = None
    extensions: NodeExtensions = NodeExtensions()


class AnimationTarget(Part, frozen=True, kw_only=True):
    """`pointer` is KHR_animation_pointer's; a target without a node is no part of this document's nodes."""

    path: Literal["translation", "rotation", "scale", "weights", "pointer"]
    node: Index | None = None


class AnimationChannel(Part, frozen=True, kw_only=True):
    sampler: Index
    target: AnimationTarget


class AnimationSampler(Part, frozen=True, kw_only=True):
    input: Index
    output: Index
    interpolation: Literal["STEP", "LINEAR", "CUBICSPLINE"] = "LINEAR"


class Animation(Part, frozen=True, kw_only=True):
    channels: list[AnimationChannel]
    samplers: list[AnimationSampler]
    name: str = ""


class SceneNodes(Part, frozen=True, kw_only=True):
    nodes: list[Index] = []
    name: str = ""


class Gltf(Part, frozen=True, kw_only=True):
    """The root of a document."""

    extensions_used: list[str] = []
    extensions_required: list[str] = []
    accessors: list[Accessor] = []
    buffers: list[Buffer] = []
    buffer_views: list[BufferView] = []
    images: list[Image] = []
    samplers: list[Sampler] = []
    textures: list[Texture] = []
    materials: list[Material] = []
    meshes: list[Mesh] = []
    nodes: list[Node] = []
    animations: list[Animation] = []
    scenes: list[SceneNodes] = []
    cameras: list[Camera] = []
    scene: Index | None = None
    extensions: RootExtensions = RootExtensions()
