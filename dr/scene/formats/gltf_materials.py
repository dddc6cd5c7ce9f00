"""Translates a glTF document's materials, textures, samplers and images. Knows no pixel: images stay undecoded."""

from __future__ import annotations

from dr.errors import BadInput
from dr.scene.assets import Role, resolve_name
from dr.scene.explain import pick
from dr.scene.formats import gltf_schema as schema
from dr.scene.formats.gltf_document import Document, data_uri_bytes, is_data_uri
from dr.scene.model import AlphaMode, Image, Material, TexelFilter, Texture, Wrap

_WRAPS = {10497: Wrap.REPEAT, 33071: Wrap.CLAMP, 33648: Wrap.MIRROR}
_NEAREST = 9728


class Materials:
    """Materials in the order of their first use; images only as far as these materials show them."""

    def __init__(self, document: Document) -> None:
        self.materials: list[Material] = []
        self.images: list[Image] = []
        self.notices: dict[str, None] = {}  # a set that keeps its order
        self._document = document
        self._rows: dict[int | None, int] = {}
        self._image_rows: dict[int, int] = {}

    def row(self, index: int | None, place: str) -> int:
        """Where material `index` stands in `materials`; None is the specification's default material."""
        if index not in self._rows:
            material = Material() if index is None else self._translate(index, place)
            self._rows[index] = len(self.materials)
            self.materials.append(material)
        return self._rows[index]

    def _translate(self, index: int, place: str) -> Material:
        source = pick(self._document.root.materials, index, "materials", place)
        here = self._document.place(f"materials[{index}]")
        surface = source.pbr_metallic_roughness
        red, green, blue, alpha = surface.base_color_factor
        strength = source.extensions.emissive_strength.emissive_strength
        emissive = source.emissive_factor
        normal = source.normal_texture
        return Material(
            name=source.name,
            base_color=(red, green, blue),
            alpha=alpha,
            metallic=surface.metallic_factor,
            roughness=surface.roughness_factor,
            ior=source.extensions.ior.ior,
            emission=(emissive[0] * strength, emissive[1] * strength, emissive[2] * strength),
            normal_scale=normal.scale if normal else 1.0,
            alpha_mode=AlphaMode[source.alpha_mode],
            alpha_cutoff=source.alpha_cutoff,
            double_sided=source.double_sided,
            base_color_texture=self._texture(surface.base_color_texture, f"{here}.baseColorTexture"),
            metallic_roughness_texture=self._texture(
                surface.metallic_roughness_texture, f"{here}.metallicRoughnessTexture"
            ),
            normal_texture=self._texture(normal, f"{here}.normalTexture"),
            occlusion_texture=self._texture(source.occlusion_texture, f"{here}.occlusionTexture"),
            emission_texture=self._texture(source.emissive_texture, f"{here}.emissiveTexture"),
        )

    def _texture(self, info: schema.TextureInfo | None, place: str) -> Texture | None:
        if info is None:
            return None
        root = self._document.root
        texture = pick(root.textures, info.index, "textures", f"{place}.index")
        here = self._document.place(f"textures[{info.index}]")
        if texture.source is None:
            self.notices[f"{here}: has no image of a supported kind and was ignored"] = None
            return None
        if info.tex_coord > 1:
            self.notices[f"{place}: texCoord {info.tex_coord} is not supported; the texture was ignored"] = None
            return None
        sampler = schema.Sampler()
        if texture.sampler is not None:
            sampler = pick(root.samplers, texture.sampler, "samplers", f"{here}.sampler")
        return Texture(
            image=self._image_row(texture.source, f"{here}.source"),
            uv_set=info.tex_coord,
            wrap_u=_WRAPS[sampler.wrap_s],
            wrap_v=_WRAPS[sampler.wrap_t],
            filter=TexelFilter.NEAREST if sampler.mag_filter == _NEAREST else TexelFilter.BILINEAR,
        )

    def _image_row(self, index: int, place: str) -> int:
        source = pick(self._document.root.images, index, "images", place)
        if index not in self._image_rows:
            image = self._image(source, self._document.place(f"images[{index}]"))
            self._image_rows[index] = len(self.images)
            self.images.append(image)
        return self._image_rows[index]

    def _image(self, source: schema.Image, place: str) -> Image:
        if source.buffer_view is not None:
            data = self._document.buffer_view(source.buffer_view, f"{place}.bufferView")
            self._document.budget.spend(len(data), place)
            return Image(data=bytes(data), place=place)
        if source.uri is None:
            raise BadInput(f"{place}: expected a uri or a bufferView, found neither")
        if is_data_uri(source.uri):
            return Image(data=data_uri_bytes(source.uri, place), place=place)
        name = resolve_name(source.uri, self._document.name, place)
        self._document.files.refer(name, Role.TEXTURE, place)
        return Image(asset=name, place=place)
