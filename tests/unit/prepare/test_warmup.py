"""The compile cache: what names it, which CPU may use it, and how progress is counted."""

import os
import sys

import pytest

from dr.errors import Refused
from workers.prepare import warmup


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(warmup.CACHE_VARIABLE, str(tmp_path / "kernels"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "elsewhere")
    if "numba" in sys.modules:
        monkeypatch.setattr(sys.modules["numba"].config, "CACHE_DIR", "elsewhere")
    return tmp_path / "kernels"


def test_the_cache_is_named_by_the_sources_and_seen_by_numba(cache):
    folder = warmup.use_kernel_cache()
    assert folder == cache / warmup.kernel_digest()
    assert os.environ["NUMBA_CACHE_DIR"] == str(folder)


def test_every_kernel_source_counts(tmp_path, monkeypatch):
    import workers

    root = tmp_path / "workers"
    digests = set()
    for path, text in (("kernels/a.py", "1"), ("kernels/b/c.py", "1"), ("prepare/d.py", "1"), ("kernels/b/c.py", "2")):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
        monkeypatch.setattr(workers, "__path__", [str(root)])
        digests.add(warmup.kernel_digest.__wrapped__())
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("features", "missing"), [("+avx2,+fma,+bmi2", ""), ("+avx2,+bmi2,-fma", "fma"), ("+sse4.2", "avx2, fma, bmi2")]
)
def test_a_cpu_without_fused_multiply_add_is_refused_by_name(monkeypatch, features, missing):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setenv("NUMBA_CPU_FEATURES", features)
    if missing:
        with pytest.raises(Refused, match=f"without {missing}$"):
            warmup.check_cpu()
    else:
        warmup.check_cpu()


def test_an_arm_cpu_may_render_and_an_unknown_one_may_not(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    warmup.check_cpu()
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(Refused, match="found riscv64"):
        warmup.check_cpu()


def test_reachable_kernels_are_found_by_name_through_modules_and_closures():
    class Kernel:
        def __init__(self, function):
            self.py_func = function

    inner, other = Kernel(lambda: None), Kernel(lambda: None)
    door = Kernel(lambda: inner)
    assert warmup.reachable([door]) == [door, inner]
    assert other not in warmup.reachable([door])


def test_the_caches_used_last_are_kept(tmp_path):
    names = [f"{i:024x}" for i in range(8)]
    for age, name in enumerate(names):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (1000 + age, 1000 + age))
    (tmp_path / "something else").mkdir()
    warmup._prune(tmp_path, keep=tmp_path / names[0])
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {names[0], *names[-warmup.FOLDERS_KEPT :], "something else"}


@pytest.mark.slow
def test_the_rehearsal_takes_every_step():
    from workers.prepare.rehearsal import rehearse

    prepared = rehearse(threads=1)
    assert prepared.record["environment"]["width"] == 2
    assert prepared.record["n_lights"] == 4  # quad, point, an emissive triangle, the environment


@pytest.mark.slow
def test_what_a_killed_rehearsal_leaves_behind_goes_with_the_next(tmp_path, monkeypatch):
    from workers.prepare import rehearsal

    monkeypatch.setattr(rehearsal, "user_folder", lambda name: tmp_path)
    left_behind = tmp_path / "server-killed"
    left_behind.mkdir()
    (left_behind / "lock").touch()
    rehearsal.rehearse(threads=1)
    assert list(tmp_path.iterdir()) == []
