"""Loads a Stanford PLY file (ASCII or binary, either byte order) as one mesh. Knows no material and no transform.

Polygons become fans of triangles. Texture coordinates (s, t or u, v) have their origin at the bottom left, as the
programs that write PLY agree. Integer colours are sRGB, floating-point ones linear.
"""

from __future__ import annotations

import posixpath
import struct
import warnings
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from dr.errors import BadInput
from dr.scene.assets import Files, Role
from dr.scene.formats.mesh import RawMesh, checked_mesh
from dr.scene.model import F32, Mesh

_TYPES = {
    "i1": ("char", "int8"),
    "u1": ("uchar", "uint8"),
    "i2": ("short", "int16"),
    "u2": ("ushort", "uint16"),
    "i4": ("int", "int32"),
    "u4": ("uint", "uint32"),
    "f4": ("float", "float32"),
    "f8": ("double", "float64"),
}
_CODES = {word: code for code, words in _TYPES.items() for word in words}
_ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}
_UV_NAMES = (("s", "t"), ("u", "v"), ("texture_u", "texture_v"))
_MAX_HEADER = 1 << 16


class Property(Struct, frozen=True):
    name: str
    code: str  # numpy's, such as f4
    count_code: str | None = None  # of a list's length; None: not a list


class Element(Struct, frozen=True):
    name: str
    count: int
    properties: list[Property]


class Header(Struct, frozen=True):
    format: str
    elements: list[Element]
    end: int  # where the data begins


class ListColumn(Struct, frozen=True):
    """A list per record: the lists one after another, and how long each is."""

    values: npt.NDArray[Any]
    counts: npt.NDArray[np.int64]


Column: TypeAlias = npt.NDArray[Any] | ListColumn


def load_ply(files: Files, name: str, role: Role) -> Mesh:
    """The file's `vertex` and `face` elements as a mesh. BadInput names the file and what is wrong in it."""
    label = posixpath.basename(name)
    data = files.read(name, role, label)
    header = parse_header(data, label)
    # ASCII numbers are read as doubles and then treated like a binary file whose every number is one
    body = _ascii_body(data[header.end :], label) if header.format == "ascii" else memoryview(data)[header.end :]
    reader = _Reader(body, _ORDERS[header.format], header.format == "ascii", label)
    columns = {element.name: reader.read(element) for element in header.elements}
    if "vertex" not in columns or "face" not in columns:
        raise BadInput(f"{label}: expected elements `vertex` and `face`, found {', '.join(columns) or 'none'}")
    vertex, faces = columns["vertex"], _polygons(columns["face"], label)
    raw = RawMesh(
        positions=_required(vertex, ("x", "y", "z"), label),
        triangles=fan(faces),
        normals=_stacked(vertex, ("nx", "ny", "nz")),
        uv0=_texture_coordinates(vertex),
        colors=_colors(vertex, _has_integer_colors(header)),
    )
    return checked_mesh(raw, label, label)


def parse_header(data: bytes, label: str) -> Header:
    """Everything up to and including the line `end_header`."""
    lines, end = _header_lines(data, label)
    file_format = ""
    elements: list[Element] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        place = f"{label}: line {number}"
        if words[:1] == ["format"]:
            file_format = words[1] if len(words) == 3 else ""
        elif words[:1] == ["element"]:
            elements.append(_element(words, {element.name for element in elements}, place))
        elif words[:1] == ["property"]:
            if not elements:
                raise BadInput(f"{place}: expected an element before its properties")
            elements[-1].properties.append(_property(words, elements[-1], place))
        elif words and words[0] not in ("ply", "comment", "obj_info"):
            raise BadInput(f"{place}: expected format, element, property or comment; found {words[0][:40]!r}")
    if file_format not in _ORDERS:
        raise BadInput(f"{label}: expected a line `format {'|'.join(_ORDERS)} 1.0`, found {file_format[:40]!r}")
    return Header(file_format, elements, end)


def fan(polygons: ListColumn) -> npt.NDArray[np.integer]:
    """[triangle, 3]: the polygon a b c d becomes abc, acd. Polygons of fewer than three corners vanish."""
    triangles = np.maximum(polygons.counts - 2, 0)
    first = np.repeat(np.cumsum(polygons.counts) - polygons.counts, triangles)
    step = np.arange(len(first)) - np.repeat(np.cumsum(triangles) - triangles, triangles)
    corners = polygons.values
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)


class _Reader:
    """Reads elements in file order. An element is a table of records; a record may hold lists of any length."""

    def __init__(self, body: memoryview, order: str, all_doubles: bool, label: str) -> None:
        self._body = body
        self._order = order
        self._all_doubles = all_doubles
        self._label = label
        self._offset = 0

    def read(self, element: Element) -> dict[str, Column]:
        smallest = sum(self._dtype(p.count_code or p.code).itemsize for p in element.properties)
        if element.count * smallest > len(self._body) - self._offset:
            raise self._cut_short(element)
        if not element.properties or not element.count:
            return {p.name: self._empty(p) for p in element.properties}
        # Lists mostly have one length throughout: then the records are a plain table
        table = self._table(element)
        if table is not None:
            self._offset += table.nbytes
            return {p.name: _from_table(table[str(i)], p) for i, p in enumerate(element.properties)}
        return self._read_ragged(element)

    def _table(self, element: Element) -> npt.NDArray[Any] | None:
        """All records, if each is as long as the first."""
        _, lengths, end = self._walk(element, 1)
        fields: list[Any] = []
        per_property = zip(element.properties, self._per_property(element, lengths), strict=True)
        for number, (p, length) in enumerate(per_property):
            if p.count_code is not None:
                fields.append((f"#{number}", self._dtype(p.count_code)))
            fields.append((str(number), self._dtype(p.code), tuple(length)))
        if (end - self._offset) * element.count > len(self._body) - self._offset:
            return None
        table = np.frombuffer(self._body, np.dtype(fields), element.count, self._offset)
        lists = [number for number, p in enumerate(element.properties) if p.count_code is not None]
        regular = all((table[f"#{number}"] == table[str(number)].shape[1]).all() for number in lists)
        return table if regular else None

    def _read_ragged(self, element: Element) -> dict[str, Column]:
        """Records that differ in length, property by property."""
        offset, lengths, self._offset = self._walk(element, element.count)
        columns: dict[str, Column] = {}
        for p, counts in zip(element.properties, self._per_property(element, lengths), strict=True):
            dtype = self._dtype(p.code)
            if p.count_code is None:
                columns[p.name] = self._gather(offset, dtype)
                offset = offset + dtype.itemsize
                continue
            offset = offset + self._dtype(p.count_code).itemsize
            step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
            columns[p.name] = ListColumn(self._gather(np.repeat(offset, counts) + step * dtype.itemsize, dtype), counts)
            offset = offset + counts * dtype.itemsize
        return columns

    def _walk(self, element: Element, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], int]:
        """Where the next `count` records begin, the lengths of their lists [record, list], and where they end."""
        steps = [self._step(p) for p in element.properties]
        begins: list[int] = []
        lengths: list[int] = []
        offset = self._offset
        try:
            for _ in range(count):
                begins.append(offset)
                for number, is_list, item_bytes in steps:
                    if is_list:
                        lengths.append(int(number.unpack_from(self._body, offset)[0]))
                        offset += lengths[-1] * item_bytes
                    offset += number.size
        except (struct.error, ValueError, OverflowError) as error:
            raise self._cut_short(element) from error
        if offset > len(self._body) or any(length < 0 for length in lengths):
            raise self._cut_short(element)
        lists = sum(is_list for _, is_list, _ in steps)
        return np.array(begins, np.int64), np.array(lengths, np.int64).reshape(count, lists), offset

    def _step(self, p: Property) -> tuple[struct.Struct, bool, int]:
        """How to read the first number of a property, whether it is a list's length, and the bytes per list entry."""
        first = self._dtype(p.count_code or p.code)
        return struct.Struct(self._order + first.char), p.count_code is not None, self._dtype(p.code).itemsize

    def _per_property(self, element: Element, lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """The column of `lengths` of each property; an empty one for a property that is no list."""
        columns = iter(lengths.T)
        return [np.zeros(0, np.int64) if p.count_code is None else next(columns) for p in element.properties]

    def _empty(self, p: Property) -> Column:
        values = np.zeros(0, self._dtype(p.code))
        return values if p.count_code is None else ListColumn(values, np.zeros(0, np.int64))

    def _gather(self, offsets: npt.NDArray[np.int64], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        raw = np.frombuffer(self._body, np.uint8)
        values: npt.NDArray[Any] = raw[offsets[:, None] + np.arange(dtype.itemsize)].view(dtype).reshape(-1)
        return values

    def _dtype(self, code: str) -> np.dtype[Any]:
        return np.dtype(self._order + ("f8" if self._all_doubles else code))

    def _cut_short(self, element: Element) -> BadInput:
        return BadInput(
            f"{self._label}: element {element.name}: expected {element.count} records, found fewer; "
            "the file is cut short or its counts are wrong"
        )


def _from_table(values: npt.NDArray[Any], p: Property) -> Column:
    if p.count_code is None:
        return values
    return ListColumn(values.reshape(-1), np.full(len(values), values.shape[1], np.int64))


def _header_lines(data: bytes, label: str) -> tuple[list[str], int]:
    if not data.startswith((b"ply\n", b"ply\r")):
        raise BadInput(f"{label}: expected a PLY file, which begins with the line `ply`; found {data[:8]!r}")
    found = data.find(b"end_header", 0, _MAX_HEADER)
    end = data.find(b"\n", found, found + 12) + 1
    if found < 0 or end == 0:
        raise BadInput(f"{label}: expected a line `end_header` within {_MAX_HEADER} bytes, found none")
    return data[:found].decode("latin-1").splitlines(), end


def _element(words: list[str], earlier: set[str], place: str) -> Element:
    if words[1:2] and words[1] in earlier:
        raise BadInput(f"{place}: expected each element once, found a second {words[1][:40]!r}")
    if len(words) != 3 or not words[2].isdecimal() or len(words[2]) > 12:  # isdigit() is true of superscripts
        raise BadInput(f"{place}: expected `element NAME COUNT`, found {' '.join(words)[:80]!r}")
    return Element(words[1], int(words[2]), [])


def _property(words: list[str], element: Element, place: str) -> Property:
    if words[-1] in {p.name for p in element.properties}:
        raise BadInput(f"{place}: expected each property once, found a second {words[-1][:40]!r}")
    if len(words) == 3 and words[1] in _CODES:
        return Property(words[2], _CODES[words[1]])
    if len(words) == 5 and words[1] == "list" and words[2] in _CODES and words[3] in _CODES:
        return Property(words[4], _CODES[words[3]], _CODES[words[2]])
    raise BadInput(f"{place}: expected `property [list COUNT_TYPE] TYPE NAME`, found {' '.join(words)[:80]!r}")


def _ascii_body(text: bytes, label: str) -> memoryview:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # numpy warns where it stops at a word that is no number
        try:
            numbers = np.fromstring(text.decode("latin-1"), dtype="<f8", sep=" ")
        except (DeprecationWarning, ValueError) as error:
            raise BadInput(f"{label}: expected numbers after end_header, found something else") from error
    return memoryview(numbers.tobytes())


def _polygons(face: dict[str, Column], label: str) -> ListColumn:
    column = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(column, ListColumn):
        raise BadInput(f"{label}: expected a property `list vertex_indices` in element face, found none")
    if column.values.dtype.kind != "f":
        return column
    with np.errstate(invalid="ignore"):
        whole = column.values.astype(np.int64)
    if (whole != column.values).any():
        raise BadInput(f"{label}: expected whole numbers in vertex_indices")
    return ListColumn(whole, column.counts)


def _stacked(vertex: dict[str, Column], names: tuple[str, ...]) -> F32 | None:
    """f4[vertex, len(names)], or None when one of them is missing."""
    columns = [vertex.get(name) for name in names]
    if not all(isinstance(column, np.ndarray) for column in columns):
        return None
    with np.errstate(over="ignore"):
        return np.stack(columns, axis=1).astype(np.float32)  # type: ignore[arg-type]


def _required(vertex: dict[str, Column], names: tuple[str, ...], label: str) -> F32:
    values = _stacked(vertex, names)
    if values is None:
        raise BadInput(f"{label}: expected properties {', '.join(names)} in element vertex, found {', '.join(vertex)}")
    return values


def _texture_coordinates(vertex: dict[str, Column]) -> F32 | None:
    for names in _UV_NAMES:
        uv = _stacked(vertex, names)
        if uv is not None:
            uv[:, 1] = np.float32(1) - uv[:, 1]
            return uv
    return None


def _colors(vertex: dict[str, Column], integers: bool) -> F32 | None:
    rgb = _stacked(vertex, ("red", "green", "blue"))
    if rgb is None:
        return None
    alpha = _stacked(vertex, ("alpha",))
    if alpha is None:
        alpha = np.full((len(rgb), 1), 255 if integers else 1, np.float32)
    if integers:
        rgb, alpha = _srgb_to_linear(rgb / np.float32(255)), alpha / np.float32(255)
    return np.concatenate([rgb, alpha], axis=1)


def _has_integer_colors(header: Header) -> bool:
    vertex = next(element for element in header.elements if element.name == "vertex")
    return any(p.name == "red" and p.code[0] != "f" for p in vertex.properties)


def _srgb_to_linear(srgb: F32) -> F32:
    """IEC 61966-2-1, with the power 2.4 as x^2 times the fifth root of x^2, found by Newton's method: no libm."""
    x = (np.clip(srgb, 0, 1).astype(np.float64) + 0.055) / 1.055
    square = x * x
    root = np.ones_like(square)
    for _ in range(24):
        root = (4.0 * root + square / (root * root * root * root)) / 5.0
    return np.where(srgb <= 0.04045, srgb / np.float32(12.92), square * root).astype(np.float32)
