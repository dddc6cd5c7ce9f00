"""The tables of a .scene.toml, field by field. Knows names, types and ranges; not their effects. See docs/scene.md."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from dr.scene.model import RenderSettings, ServerAddress, ViewSettings

Vec3 = tuple[float, float, float]
Row = tuple[float, float, float, float]
Matrix = tuple[Row, Row, Row, Row]
Unit = Annotated[float, Meta(ge=0, le=1)]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
UnitRGB = tuple[Unit, Unit, Unit]
PositiveRGB = tuple[NotNegative, NotNegative, NotNegative]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
HalfAngle = Annotated[float, Meta(ge=0, le=90)]
WrapWord: TypeAlias = Literal["repeat", "clamp", "mirror"]


class TextureTable(Struct, frozen=True, kw_only=True):
    file: Name
    uv_set: Literal[0, 1] = 0
    wrap: WrapWord | tuple[WrapWord, WrapWord] = "repeat"
    filter: Literal["bilinear", "nearest"] = "bilinear"


TextureValue = str | TextureTable | None  # a file's name, a table, or "" for none


class MaterialFields(Struct, frozen=True, kw_only=True):
    """What a material may say; what it does not say stays as it was."""

    base_color: UnitRGB | None = None
    alpha: Unit | None = None
    metallic: Unit | None = None
    roughness: Unit | None = None
    specular: Unit | None = None
    ior: Annotated[float, Meta(ge=1, le=100)] | None = None
    emission: PositiveRGB | None = None
    normal_scale: float | None = None
    alpha_mode: Literal["opaque", "mask", "blend"] | None = None
    alpha_cutoff: Unit | None = None
    double_sided: bool | None = None
    base_color_texture: TextureValue = None
    metallic_roughness_texture: TextureValue = None
    normal_texture: TextureValue = None
    emission_texture: TextureValue = None


class MaterialTable(MaterialFields, frozen=True, kw_only=True):
    name: Name


class OverrideTable(MaterialFields, frozen=True, kw_only=True):
    match: Name


class AxisAngle(Struct, frozen=True, kw_only=True):
    axis: Vec3
    angle: float  # degrees


class Quad(Struct, frozen=True, kw_only=True):
    corner: Vec3
    edge_u: Vec3
    edge_v: Vec3


class Box(Struct, frozen=True, kw_only=True):
    min: Vec3
    max: Vec3


class Motion(Struct, frozen=True, kw_only=True):
    """Base of all animations of a table. Each key that it moves has one value for each of `times` (seconds)."""

    times: Annotated[list[float], Meta(min_length=1)]
    interpolation: Literal["linear", "smooth", "step"] = "linear"


class Turn(Struct, frozen=True, kw_only=True):
    """AxisAngle in motion."""

    axis: Vec3
    angle: list[float]  # degrees


class ObjectMotion(Motion, frozen=True, kw_only=True):
    translate: list[Vec3] | None = None
    rotate: list[Vec3] | Turn | None = None
    scale: list[float | Vec3] | None = None


class CameraMotion(Motion, frozen=True, kw_only=True):
    position: list[Vec3] | None = None
    target: list[Vec3] | None = None
    up: list[Vec3] | None = None
    orbit: list[float] | None = None  # degrees
    fov: list[Annotated[float, Meta(gt=0, lt=180)]] | None = None
    focal_length: list[Positive] | None = None
    orthographic_height: list[Positive] | None = None
    aperture_radius: list[NotNegative] | None = None
    f_stop: list[Positive] | None = None
    focus_distance: list[Positive] | None = None


class QuadLightMotion(Motion, frozen=True, kw_only=True):
    corner: list[Vec3] | None = None
    edge_u: list[Vec3] | None = None
    edge_v: list[Vec3] | None = None
    radiance: list[PositiveRGB] | None = None


class PointLightMotion(Motion, frozen=True, kw_only=True):
    position: list[Vec3] | None = None
    intensity: list[PositiveRGB] | None = None


class SpotLightMotion(PointLightMotion, frozen=True, kw_only=True):
    direction: list[Vec3] | None = None
    target: list[Vec3] | None = None
    inner_angle: list[HalfAngle] | None = None
    outer_angle: list[HalfAngle] | None = None


class DirectionalLightMotion(Motion, frozen=True, kw_only=True):
    direction: list[Vec3] | None = None
    irradiance: list[PositiveRGB] | None = None


class EnvironmentMotion(Motion, frozen=True, kw_only=True):
    radiance: list[PositiveRGB] | None = None
    strength: list[NotNegative] | None = None
    rotation: list[float] | None = None


class ObjectTable(Struct, frozen=True, kw_only=True):
    """Exactly one of file, quad and box."""

    file: Name | None = None
    quad: Quad | None = None
    box: Box | None = None
    name: str = ""
    material: Name | None = None
    translate: Vec3 | None = None
    rotate: Vec3 | AxisAngle | None = None  # degrees
    scale: float | Vec3 | None = None
    matrix: Matrix | None = None
    animation: ObjectMotion | None = None


class QuadLightTable(Struct, frozen=True, kw_only=True, tag_field="kind", tag="quad"):
    corner: Vec3
    edge_u: Vec3
    edge_v: Vec3
    radiance: PositiveRGB
    two_sided: bool = False
    visible: bool = True
    name: str = ""
    animation: QuadLightMotion | None = None


class PointLightTable(Struct, frozen=True, kw_only=True, tag_field="kind", tag="point"):
    position: Vec3
    intensity: PositiveRGB
    animation: PointLightMotion | None = None


class SpotLightTable(Struct, frozen=True, kw_only=True, tag_field="kind", tag="spot"):
    position: Vec3
    intensity: PositiveRGB
    direction: Vec3 | None = None
    target: Vec3 | None = None
    inner_angle: HalfAngle = 0.0  # degrees, half angles
    outer_angle: HalfAngle = 45.0
    animation: SpotLightMotion | None = None


class DirectionalLightTable(Struct, frozen=True, kw_only=True, tag_field="kind", tag="directional"):
    direction: Vec3
    irradiance: PositiveRGB
    animation: DirectionalLightMotion | None = None


class EnvironmentTable(Struct, frozen=True, kw_only=True, tag_field="kind", tag="environment"):
    image: Name | None = None
    radiance: PositiveRGB = (1.0, 1.0, 1.0)
    strength: NotNegative = 1.0
    rotation: float = 0.0  # degrees about +Y
    animation: EnvironmentMotion | None = None


LightTable = QuadLightTable | PointLightTable | SpotLightTable | DirectionalLightTable | EnvironmentTable


class CameraTable(Struct, frozen=True, kw_only=True):
    name: str = ""
    position: Vec3 | None = None
    target: Vec3 | None = None
    up: Vec3 = (0.0, 1.0, 0.0)
    matrix: Matrix | None = None
    fov: Annotated[float, Meta(gt=0, lt=180)] | None = None  # degrees
    fov_axis: Literal["x", "y"] | None = None
    focal_length: Positive | None = None  # millimetres on a sensor 36 mm wide
    orthographic_height: Positive | None = None
    aperture_radius: NotNegative | None = None  # metres
    f_stop: Positive | None = None
    focus_distance: Positive | None = None
    animation: CameraMotion | None = None


class SceneTable(Struct, frozen=True, kw_only=True):
    """The whole file."""

    name: str = ""
    objects: list[ObjectTable] = []
    materials: list[MaterialTable] = []
    overrides: list[OverrideTable] = []
    lights: list[LightTable] = []
    cameras: list[CameraTable] = []
    render: RenderSettings = RenderSettings()
    view: ViewSettings = ViewSettings()
    servers: list[ServerAddress] = []
