"""Opens a .gltf or .glb: its checked JSON and the bytes behind its buffers. Knows no geometry and no material."""

from __future__ import annotations

import base64
import binascii
import posixpath
import struct
from urllib.parse import unquote_to_bytes

import msgspec

from dr.errors import BadInput
from dr.scene.assets import Files, Role, resolve_name
from dr.scene.explain import explain, pick
from dr.scene.formats.budget import Budget
from dr.scene.formats.gltf_schema import Gltf, Head

SUPPORTED_EXTENSIONS = frozenset(
    {"KHR_lights_punctual", "KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_mesh_quantization"}
)
_GLB_MAGIC = b"glTF"
_JSON_CHUNK = 0x4E4F534A
_BINARY_CHUNK = 0x004E4942


class Document:
    """One file. `root` is its JSON; buffers are read when first needed, so unused ones cost nothing."""

    def __init__(self, files: Files, name: str, role: Role, budget: Budget) -> None:
        self.files = files
        self.name = name
        self.budget = budget
        self.label = posixpath.basename(name)
        data = files.read(name, role, self.label)
        budget.earn(len(data))
        text, self._chunk = _split(data, self.label)
        self.root = _decode(text, self.label)
        self._buffers: dict[int, memoryview] = {}

    def place(self, path: str) -> str:
        return f"{self.label}: {path}"

    def notices(self) -> list[str]:
        """One line per extension that is used and not supported. BadInput when such a one is required."""
        for extension in self.root.extensions_required:
            if extension not in SUPPORTED_EXTENSIONS:
                raise BadInput(f"{self.label}: extensionsRequired: {extension} is not supported")
        return [self.ignored(extension) for extension in sorted(set(self.root.extensions_used) - SUPPORTED_EXTENSIONS)]

    def ignored(self, extension: str) -> str:
        return f"{self.label}: extension {extension[:80]} is not supported and was ignored"

    def buffer_view(self, index: int, place: str) -> memoryview:
        """The bytes of a buffer view."""
        view = pick(self.root.buffer_views, index, "bufferViews", place)
        here = self.place(f"bufferViews[{index}]")
        buffer = self._buffer(view.buffer, f"{here}.buffer")
        end = view.byte_offset + view.byte_length
        if end > len(buffer):
            raise BadInput(f"{here}: expected at most {len(buffer)} bytes, the length of its buffer; found {end}")
        return buffer[view.byte_offset : end]

    def refer_to_all_buffers(self) -> None:
        """Makes every buffer one of the scene's files, read or not: another frame may need what this one does not."""
        for index, buffer in enumerate(self.root.buffers):
            if buffer.uri is not None and not is_data_uri(buffer.uri):
                place = self.place(f"buffers[{index}]")
                self.files.refer(resolve_name(buffer.uri, self.name, place), Role.BUFFER, place)

    def _buffer(self, index: int, place: str) -> memoryview:
        buffer = pick(self.root.buffers, index, "buffers", place)
        if index not in self._buffers:
            here = self.place(f"buffers[{index}]")
            data = self._buffer_bytes(index, buffer.uri, here)
            if len(data) < buffer.byte_length:
                raise BadInput(f"{here}: expected {buffer.byte_length} bytes, found {len(data)}; the file is cut short")
            self._buffers[index] = data[: buffer.byte_length]
        return self._buffers[index]

    def _buffer_bytes(self, index: int, uri: str | None, place: str) -> memoryview:
        if uri is None:
            if index != 0 or self._chunk is None:
                raise BadInput(f"{place}: expected a uri or, in a .glb's first buffer, a binary chunk; found neither")
            return self._chunk
        if is_data_uri(uri):
            return memoryview(data_uri_bytes(uri, place))
        data = self.files.read(resolve_name(uri, self.name, place), Role.BUFFER, place)
        self.budget.earn(len(data))
        return memoryview(data)


def is_data_uri(uri: str) -> bool:
    return uri[:5].lower() == "data:"


def data_uri_bytes(uri: str, place: str) -> bytes:
    """The payload of a `data:` URI (RFC 2397), base64 or percent-encoded."""
    header, comma, payload = uri.partition(",")
    if not comma:
        raise BadInput(f"{place}: expected data:[type][;base64],payload; found {uri[:40]!r}")
    if not header.lower().endswith(";base64"):
        return unquote_to_bytes(payload)
    try:
        return base64.b64decode(payload.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise BadInput(f"{place}: the data URI is not valid base64: {error}") from error


def _split(data: bytes, label: str) -> tuple[memoryview, memoryview | None]:
    """JSON and binary chunk of a .glb; a .gltf is all JSON."""
    if data[:4] != _GLB_MAGIC:
        return memoryview(data.removeprefix(b"\xef\xbb\xbf")), None
    if len(data) < 12:
        raise BadInput(f"{label}: expected a glb header of 12 bytes, found {len(data)}; the file is cut short")
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise BadInput(f"{label}: expected glb version 2, found {version}; save it as glTF 2.0")
    if not 12 <= length <= len(data):
        raise BadInput(f"{label}: expected {length} bytes as its header says, found {len(data)}; the file is cut short")
    chunks = _chunks(memoryview(data)[:length], label)
    if not chunks or chunks[0][0] != _JSON_CHUNK:
        raise BadInput(f"{label}: expected a JSON chunk first, found none")
    binary = chunks[1][1] if len(chunks) > 1 and chunks[1][0] == _BINARY_CHUNK else None
    return chunks[0][1], binary


def _chunks(data: memoryview, label: str) -> list[tuple[int, memoryview]]:
    """The first two chunks as (type, bytes); the specification gives no meaning to others."""
    chunks: list[tuple[int, memoryview]] = []
    offset = 12
    while len(chunks) < 2 and offset + 8 <= len(data):
        length, kind = struct.unpack_from("<II", data, offset)
        begin, end = offset + 8, offset + 8 + length
        if end > len(data):
            raise BadInput(f"{label}: chunk at byte {offset}: expected {length} bytes, found {len(data) - begin}")
        chunks.append((kind, data[begin:end]))
        offset = end
    return chunks


def _decode(text: memoryview, label: str) -> Gltf:
    try:
        asset = msgspec.json.decode(text, type=Head).asset
        for wanted in (asset.version, asset.min_version):
            if wanted.split(".")[0] != "2" or (wanted is asset.min_version and wanted != "2.0"):
                raise BadInput(f"{label}: asset.version: expected glTF 2.0, found {wanted[:20]!r}")
        return msgspec.json.decode(text, type=Gltf)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise explain(label, error) from error
