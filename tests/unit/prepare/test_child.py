"""The preparing process from its server's side: answers, errors, crashes. Little scripts stand in for it."""

import subprocess
import sys

import msgspec
import psutil
import pytest

from dr.errors import BadInput, DrError
from dr.scene.model import RenderSettings
from tests.support.server_process import PATIENCE_S
from workers.prepare.__main__ import Job
from workers.prepare.child import PrepareProcess
from workers.prepare.shared import SharedScene

JOB = Job(files={"a": "/a"}, main="a", settings=RenderSettings(), folder="/f", key="k", threads=1)
TRIANGLE = """\
ply
format ascii 1.0
element vertex 3
property float x
property float y
property float z
element face 1
property list uchar int vertex_indices
end_header
0 0 0
1 0 0
0 1 0
3 0 1 2
"""


@pytest.fixture
def start():
    children = []

    def start(script):
        children.append(PrepareProcess((sys.executable, "-c", "import sys, os, signal, json\n" + script)))
        return children[-1]

    yield start
    for child in children:
        child.close()
        assert not child.alive


def test_the_job_arrives_and_progress_comes_back_before_done(start):
    child = start("job = sys.stdin.readline()\nprint(json.dumps({'progress': job}))\nprint('{\"done\": true}')")
    said = []
    child.run(JOB, said.append)
    assert [msgspec.json.decode(text, type=Job) for text in said] == [JOB]


@pytest.mark.parametrize(("fatal", "kind"), [("true", BadInput), ("false", DrError)])
def test_an_error_keeps_its_kind(start, fatal, kind):
    child = start(f'print(\'{{"error": "a.gltf: no", "fatal": {fatal}}}\')')
    with pytest.raises(kind, match=r"a\.gltf: no") as raised:
        child.run(JOB, print)
    assert type(raised.value) is kind


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "killed by SIGSEGV"),
        ("sys.stdin.readline(); sys.exit(7)", "ended with status 7"),
        ('sys.stdin.readline(); print(\'{"progress": "x"}\')', "ended with status 0"),
    ],
)
def test_a_crash_is_an_error_that_says_how(start, script, words):
    with pytest.raises(DrError, match=words):
        start(script).run(JOB, lambda text: None)


def test_a_hang_ends_by_kill_from_another_thread(start):
    child = start('print(\'{"progress": "x"}\', flush=True)\nsys.stdin.read()')
    with pytest.raises(DrError, match="killed by SIGKILL"):
        child.run(JOB, lambda text: child.kill())


def test_a_hang_ends_by_time_limit(start, monkeypatch):
    monkeypatch.setattr("workers.prepare.child.PREPARE_S", 0.05)
    with pytest.raises(DrError, match=r"not done after 0\.05 s"):
        start("sys.stdin.read()").run(JOB, print)


@pytest.mark.slow
def test_the_real_process_prepares_one_file_and_keeps_it_until_it_is_let_go(tmp_path):
    asset = tmp_path / "asset"
    asset.write_text(TRIANGLE)
    folder = tmp_path / "scenes"
    folder.mkdir()
    settings = RenderSettings(width=8, height=8)
    job = Job(files={"t.ply": str(asset)}, main="t.ply", settings=settings, folder=str(folder), key="k", threads=1)
    child = PrepareProcess()
    said = []
    child.run(job, said.append)
    assert "reading the scene" in said
    shared = SharedScene(folder, "k")
    child.close()
    assert shared.path.read_bytes().startswith(b"DRSCENE1")
    shared.close()
    assert list(folder.iterdir()) == []


def test_the_real_process_dies_with_its_parent():
    script = (
        "import os, sys\n"
        "from workers.prepare.child import PrepareProcess\n"
        "print(PrepareProcess().process.pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
        _, alive = psutil.wait_procs([child], timeout=PATIENCE_S)
        assert not alive
