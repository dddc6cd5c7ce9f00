"""Reads the accessors of a glTF document as arrays, with every bound checked. Knows no mesh."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dr.errors import BadInput
from dr.scene.explain import pick
from dr.scene.formats.gltf_document import Document
from dr.scene.formats.gltf_schema import Accessor, Sparse
from dr.scene.model import F32

_COMPONENTS: dict[int, np.dtype[Any]] = {
    5120: np.dtype("<i1"),
    5121: np.dtype("<u1"),
    5122: np.dtype("<i2"),
    5123: np.dtype("<u2"),
    5125: np.dtype("<u4"),
    5126: np.dtype("<f4"),
}
_UNSIGNED = (5121, 5123, 5125)
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class Accessors:
    """Arrays by accessor index; each is decoded once and shared. Nobody may write into them."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._floats: dict[int, F32] = {}
        self._indices: dict[int, npt.NDArray[np.integer]] = {}

    def floats(self, index: int, types: tuple[str, ...], place: str) -> F32:
        """f4[count, width]; integers that are `normalized` become -1..1 or 0..1."""
        accessor = self._pick(index, types, place)
        if index not in self._floats:
            self._floats[index] = _as_floats(self._read(index), accessor)
        return self._floats[index]

    def indices(self, index: int, place: str) -> npt.NDArray[np.integer]:
        """Unsigned integers [count]."""
        accessor = self._pick(index, ("SCALAR",), place)
        if accessor.component_type not in _UNSIGNED:
            raise BadInput(f"{place}: expected indices of type 5121, 5123 or 5125, found {accessor.component_type}")
        if index not in self._indices:
            self._indices[index] = self._read(index)[:, 0]
        return self._indices[index]

    def _pick(self, index: int, types: tuple[str, ...], place: str) -> Accessor:
        accessor = pick(self._document.root.accessors, index, "accessors", place)
        if accessor.type not in types:
            raise BadInput(f"{place}: expected an accessor of type {' or '.join(types)}, found {accessor.type[:20]!r}")
        return accessor

    def _read(self, index: int) -> npt.NDArray[Any]:
        """The stored numbers, [count, width], with sparse changes applied."""
        accessor = self._document.root.accessors[index]
        place = self._document.place(f"accessors[{index}]")
        dtype = self._dtype(accessor.component_type, place)
        width = _WIDTHS[accessor.type]
        shape = (accessor.count, width)
        if accessor.buffer_view is not None:
            values = self._view(accessor.buffer_view, accessor.byte_offset, dtype, shape, place)
        self._document.budget.spend(accessor.count * width * 4, place)
        if accessor.buffer_view is None:
            values = np.zeros(shape, dtype)
        if accessor.sparse is None:
            return values
        return self._with_sparse(values, accessor.sparse, f"{place}.sparse")

    def _with_sparse(self, values: npt.NDArray[Any], sparse: Sparse, place: str) -> npt.NDArray[Any]:
        rows, width = values.shape
        if sparse.count > rows:
            raise BadInput(f"{place}.count: expected at most {rows}, found {sparse.count}")
        if sparse.indices.component_type not in _UNSIGNED:
            found = sparse.indices.component_type
            raise BadInput(f"{place}.indices: expected component type 5121, 5123 or 5125, found {found}")
        where = self._view(
            sparse.indices.buffer_view,
            sparse.indices.byte_offset,
            _COMPONENTS[sparse.indices.component_type],
            (sparse.count, 1),
            f"{place}.indices",
        )[:, 0]
        if where.max() >= rows:
            raise BadInput(f"{place}.indices: expected indices below {rows}, found {where.max()}")
        changed = values.copy()
        changed[where] = self._view(
            sparse.values.buffer_view,
            sparse.values.byte_offset,
            values.dtype,
            (sparse.count, width),
            f"{place}.values",
        )
        return changed

    def _view(
        self, view_index: int, offset: int, dtype: np.dtype[Any], shape: tuple[int, int], place: str
    ) -> npt.NDArray[Any]:
        data = self._document.buffer_view(view_index, f"{place}.bufferView")
        row = shape[1] * dtype.itemsize
        stride = self._document.root.buffer_views[view_index].byte_stride or row
        if stride < row:
            raise BadInput(f"{place}: expected a byteStride of at least {row}, found {stride}")
        end = offset + (shape[0] - 1) * stride + row
        if end > len(data):
            raise BadInput(f"{place}: needs {end} bytes of bufferViews[{view_index}], which has {len(data)}")
        return np.ndarray(shape, dtype, data, offset, (stride, dtype.itemsize))

    def _dtype(self, component_type: int, place: str) -> np.dtype[Any]:
        if component_type not in _COMPONENTS:
            raise BadInput(f"{place}.componentType: expected 5120 to 5126, found {component_type}")
        return _COMPONENTS[component_type]


def _as_floats(values: npt.NDArray[Any], accessor: Accessor) -> F32:
    floats = np.ascontiguousarray(values, np.float32)
    if accessor.normalized and values.dtype.kind in "iu":
        largest = np.float32(np.iinfo(values.dtype).max)
        floats = np.maximum(floats / largest, np.float32(-1))
    return floats
