"""Promises of the house that a change could break without anybody noticing: bits, sizes, numbers known in two rooms."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from dr.broker.buckets import MAX_SIZE, Order
from dr.broker.fleet import Timers
from dr.protocol import messages, version
from dr.scene import model
from dr.scene.formats import ply
from dr.settings import BUCKET_ORDERS, Settings
from workers.kernels import bucket, records
from workers.kernels.bsdf import material
from workers.kernels.textures import lookup
from workers.kernels.textures.srgb import srgb_table
from workers.prepare.scene_file import PIXEL_FILTERS
from workers.server.work import Limits

ROOT = Path(__file__).resolve().parents[2]
DECIDES_PIXELS = [
    path for folder in ("dr/scene", "workers/prepare", "workers/kernels") for path in (ROOT / folder).rglob("*.py")
]
SOURCES = [*(ROOT / "dr").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_FUNCTION, LONGEST_KERNEL = 50, 90  # lines, without signature and docstring

# Rounded as the platform's libm, BLAS or SIMD width likes. math.sqrt, fmod, floor, copysign and np.sqrt are exact.
UNSTEADY = {
    "math": "sin cos tan asin acos atan atan2 sinh cosh tanh exp exp2 expm1 log log2 log10 log1p "
    "pow hypot cbrt dist fsum",
    "np": "sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh exp exp2 expm1 log log2 log10 log1p "
    "power float_power hypot cbrt sum mean average prod std var trapezoid interp convolve random "
    "dot vdot inner matmul einsum tensordot linalg",
}
DICE = {"random", "secrets", "uuid", "datetime", "locale"}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def unsteady_places(tree: ast.AST, in_kernel: bool) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in UNSTEADY.get(node.value.id, "").split():
                yield f"line {node.lineno}: {node.value.id}.{node.attr}"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            yield f"line {node.lineno}: @"
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            whole = isinstance(node.left, ast.Constant | ast.UnaryOp)  # 2.0**-24 and (-1.0)**k are exact
            square = isinstance(node.right, ast.Constant) and node.right.value == 2 and in_kernel  # numba multiplies
            if not (whole or square):
                yield f"line {node.lineno}: **"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: import {module}" for module in modules if module in DICE)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "hash":
            yield f"line {node.lineno}: hash(), which differs from process to process"


@pytest.mark.parametrize("path", DECIDES_PIXELS, ids=name)
def test_what_decides_pixels_rounds_the_same_everywhere(path: Path) -> None:
    assert list(unsteady_places(ast.parse(path.read_text()), "kernels" in path.parts)) == []


@pytest.mark.parametrize(
    "line", ["math.sin(x)", "a @ b", "np.linalg.inv(m)", "(x + 1.0) ** 2", "import random", "hash(x)"]
)
def test_the_check_of_rounding_sees(line: str) -> None:
    assert list(unsteady_places(ast.parse(line), in_kernel=False))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_a_function_is_short(path: Path) -> None:
    limit = LONGEST_KERNEL if "kernels" in path.parts else LONGEST_FUNCTION
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            begins = node.body[ast.get_docstring(node) is not None :] or node.body
            lines = (node.end_lineno or 0) - begins[0].lineno + 1
            assert lines <= limit, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", TESTS, ids=name)
def test_no_test_sleeps(path: Path) -> None:
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    assert not [call for call in calls if ast.unparse(call).split(".")[-1] == "sleep"]


def test_kernels_and_wire_agree_on_what_a_chunk_of_samples_is() -> None:
    assert records.SAMPLE_CHUNK == version.SAMPLE_CHUNK


def test_kernels_and_model_agree_on_their_kinds() -> None:
    assert tuple(model.Wrap) == (lookup.REPEAT, lookup.CLAMP, lookup.MIRROR)
    assert tuple(model.TexelFilter) == (lookup.BILINEAR, lookup.NEAREST)
    assert (material.OPAQUE, material.MASK) == (model.AlphaMode.OPAQUE, model.AlphaMode.MASK)
    assert PIXEL_FILTERS.keys() == set(model.PixelFilter)
    assert PIXEL_FILTERS[model.PixelFilter.BOX] == bucket.BOX


def test_vertex_colours_and_textures_agree_on_srgb() -> None:
    codes = (np.arange(256) / 255).astype(np.float32)
    # a code is rounded to float32, which the power 2.4 makes 2.4 times as much; then the result is rounded
    np.testing.assert_array_max_ulp(ply._srgb_to_linear(codes), srgb_table(256), maxulp=3)


@pytest.mark.parametrize("part", [Limits, Timers])
def test_a_part_and_the_settings_agree_on_their_defaults(part: type) -> None:
    own, settings = part(), Settings()
    for field in set(part.__struct_fields__) & set(Settings.__struct_fields__):
        assert getattr(own, field) == getattr(settings, field), field


def test_settings_and_broker_agree_on_buckets() -> None:
    assert set(BUCKET_ORDERS) == set(Order)
    assert messages.BucketWork(0, 0, 0, MAX_SIZE, MAX_SIZE, 0, 1).width == MAX_SIZE


@pytest.mark.parametrize("setting", Settings.__struct_fields__)
def test_every_setting_does_something(setting: str) -> None:
    if setting in {*Limits.__struct_fields__, *Timers.__struct_fields__, "kernel_cache"}:
        return  # a part takes it by its name; workers.prepare.warmup reads DR_KERNEL_CACHE
    others = (path for path in SOURCES if path.name != "settings.py")
    assert any(re.search(rf"\.{setting}\b", path.read_text()) for path in others)
