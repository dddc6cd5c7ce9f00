"""Translates the material tables of a .scene.toml and applies its overrides. Knows no object."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import msgspec

from dr.errors import BadInput
from dr.scene.assets import Files, Role, resolve_name
from dr.scene.explain import suggest
from dr.scene.formats.assembly import Assembly
from dr.scene.formats.scene_toml_schema import MaterialFields, MaterialTable, OverrideTable, TextureTable
from dr.scene.model import AlphaMode, Image, Material, TexelFilter, Texture, Wrap

NEUTRAL = Material(name="default", base_color=(0.8, 0.8, 0.8), metallic=0.0, roughness=0.5)


class NamedMaterials:
    """The materials that one file defines; each enters the assembly when it is first asked for."""

    def __init__(self, assembly: Assembly, files: Files, file_name: str, label: str) -> None:
        self._assembly = assembly
        self._files = files
        self._file_name = file_name
        self._label = label
        self._tables: dict[str, tuple[MaterialTable, str]] = {}
        self._rows: dict[str | None, int] = {}

    def define(self, tables: list[MaterialTable]) -> None:
        for number, table in enumerate(tables):
            place = f"{self._label}: materials[{number}]"
            if table.name in self._tables:
                raise BadInput(f"{place}.name: expected each name once, found a second {table.name!r}")
            self._tables[table.name] = table, place

    def row(self, name: str | None, place: str) -> int:
        """Where the material stands in the assembly; None is the neutral default."""
        if name not in self._rows:
            material = NEUTRAL if name is None else self._translate(name, place)
            self._rows[name] = self._assembly.add_material(material)
        return self._rows[name]

    def override(self, tables: list[OverrideTable]) -> None:
        """Changes the fields that a table names in every material, imported or own, whose name matches."""
        materials = self._assembly.materials
        for number, table in enumerate(tables):
            place = f"{self._label}: overrides[{number}]"
            fields = self._fields(table, place)
            matching = [row for row, material in enumerate(materials) if fnmatchcase(material.name, table.match)]
            if not matching:
                self._assembly.notices[f"{place}: no material has a name like {table.match!r}"] = None
            for row in matching:
                materials[row] = msgspec.structs.replace(materials[row], **fields)

    def _translate(self, name: str, place: str) -> Material:
        if name not in self._tables:
            raise BadInput(f"{place}: no material is named {name!r}; {suggest(name, self._tables)}")
        table, table_place = self._tables[name]
        fields = self._fields(table, table_place)
        if fields.get("base_color_texture") is not None:
            fields.setdefault("base_color", (1.0, 1.0, 1.0))
        if fields.get("emission_texture") is not None:
            fields.setdefault("emission", (1.0, 1.0, 1.0))
        return msgspec.structs.replace(NEUTRAL, name=name, **fields)

    def _fields(self, table: MaterialFields, place: str) -> dict[str, Any]:
        """The model's values of the fields that the table sets."""
        fields: dict[str, Any] = {}
        for field in MaterialFields.__struct_fields__:
            value = getattr(table, field)
            if value is None:
                continue
            if field.endswith("_texture"):
                value = self._texture(value, f"{place}.{field}")
            elif field == "alpha_mode":
                value = AlphaMode[value.upper()]
            fields[field] = value
        return fields

    def _texture(self, value: str | TextureTable, place: str) -> Texture | None:
        if value == "":
            return None
        table = TextureTable(file=value) if isinstance(value, str) else value
        name = resolve_name(table.file, self._file_name, place)
        self._files.refer(name, Role.TEXTURE, place)
        wraps = (table.wrap, table.wrap) if isinstance(table.wrap, str) else table.wrap
        return Texture(
            image=self._assembly.image_row(Image(asset=name, place=place)),
            uv_set=table.uv_set,
            wrap_u=Wrap[wraps[0].upper()],
            wrap_v=Wrap[wraps[1].upper()],
            filter=TexelFilter[table.filter.upper()],
        )
