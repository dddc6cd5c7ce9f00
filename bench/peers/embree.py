"""Embree's own single-ray queries over numpy arrays, through a small C loop compiled on the spot. Knows no timing.

Needs gcc and the pip package embreex, which brings Embree's shared library. Found where `import embreex` finds it.
"""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SOURCE = Path(__file__).with_suffix(".c")


class MissingError(Exception):
    """Embree cannot be measured here; the text says what to install."""


def load() -> ctypes.CDLL:
    """Compiles the loop against embreex's Embree and loads it."""
    spec = importlib.util.find_spec("embreex")
    if spec is None or spec.origin is None:
        raise MissingError("expected the package embreex, found none: pip install --no-deps embreex")
    folder = Path(spec.origin).parent.parent / "embreex.libs"
    libraries = sorted(folder.glob("libembree4*.so*"))
    if not libraries:
        raise MissingError(f"expected libembree4*.so in {folder}, found none: reinstall embreex from a wheel")
    target = Path(tempfile.mkdtemp()) / "libembree_loop.so"
    link = [str(libraries[0]), f"-Wl,-rpath,{folder}", "-Wl,--allow-shlib-undefined"]
    subprocess.run(["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-o", target, SOURCE, *link], check=True)
    library = ctypes.CDLL(str(target))
    library.new_scene.restype = ctypes.c_void_p
    return library


def _address(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class Scene:
    """Triangles f4[t, 3, 3] in a committed Embree scene with the ROBUST flag."""

    def __init__(self, library: ctypes.CDLL, positions: np.ndarray[Any, Any]) -> None:
        self.library = library
        self.count = len(positions)
        self.vertices = np.append(positions.reshape(-1), np.zeros(4)).astype(np.float32)
        self.indices = np.arange(3 * self.count, dtype=np.uint32)
        count = ctypes.c_size_t(self.count)
        self.scene = ctypes.c_void_p(library.new_scene(_address(self.vertices), _address(self.indices), count))

    def commit(self) -> None:
        """Builds the tree."""
        self.library.rtcCommitScene(self.scene)

    def closest(self, rays: tuple[Any, Any, Any], triangles: Any, distances: Any) -> None:
        o, d, tmax = map(_address, rays)
        count = ctypes.c_size_t(len(rays[0]))
        self.library.closest(self.scene, o, d, tmax, count, _address(triangles), _address(distances))

    def any(self, rays: tuple[Any, Any, Any], hits: Any) -> None:
        o, d, tmax = map(_address, rays)
        self.library.occluded(self.scene, o, d, tmax, ctypes.c_size_t(len(rays[0])), _address(hits))
