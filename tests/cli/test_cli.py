"""The command line: help, every error in one line, every exit status, reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dr.cli import BUG, main
from dr.errors import BadInput, Impossible, PeerLost, Refused

SCENE = """
[[objects]]
quad = { corner = [-1, 0, 1], edge_u = [2, 0, 0], edge_v = [0, 0, -2] }

[[cameras]]
name = "front"
position = [0, 1, 3]
target = [0, 0, 0]
"""


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without settings, whose logs are thrown away."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def scene(tmp_path: Path) -> str:
    path = tmp_path / "quad.scene.toml"
    path.write_text(SCENE)
    return str(path)


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--help"], ["render", "serve", "warmup", "settings"]),
        (["render", "--help"], ["--samples", "--bucket-order", "Examples", "dr render chair.glb --check"]),
        (["serve", "-h"], ["--port", "dr serve -port=30000"]),
        (["warmup", "--help"], ["once per machine"]),
        (["settings", "--help"], ["where"]),
    ],
)
def test_help_shows_options_and_examples(
    words: list[str], shown: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 0
    text = capsys.readouterr().out
    assert [word for word in shown if word not in text] == []


def test_the_help_of_a_flag_shows_no_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "--help"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "<bool>" in line]
    assert [line for line in lines if "--help" not in line] == []


def test_the_version_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "dr 0.1.0\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--nonsense"], "No such option"),
        (["--samples", "0"], "--samples"),
        (["--samples", "many"], "--samples"),
        (["--size", "big"], "--size: expected WIDTHxHEIGHT in pixels such as 1920x1080, found 'big'"),
        (["--region", "1,2,3"], "--region: expected X,Y,WIDTH,HEIGHT"),
        (["--region", "0,0,5000,10"], "region: expected a rectangle"),
        (["--camera", "back"], "back"),
        (["--bucket-size", "0"], "--bucket-size: expected auto or a number of pixels from 1 to 1024, found '0'"),
        (["--size", "1000000x10"], "width: expected `int` <= 65536, found 1000000"),
        (["--bucket-order", "spirl"], "--bucket-order: expected spiral, hilbert, rows"),
        (["--bucket-order", "spirl"], "found 'spirl' (did you mean 'spiral'?)"),
        (["--channels", "beauty,smell"], "channels: expected names among beauty, "),
        (["--channels", "beuty"], "found 'beuty' (did you mean 'beauty'?)"),
        (["--exposure", "nan"], "exposure: expected stops from -64 to 64, found nan"),
        (["--exposure", "1e9"], "exposure: expected stops from -64 to 64, found 1000000000.0"),
        (["--view-transform", "Filmic"], "view transform: expected one of Standard, ACES 2.0, Raw, found 'Filmic'"),
        (["--pixel-filter", "round"], "--pixel-filter"),
        (["--local-servers", "0"], "--local-servers"),
        (["--threads", "-1"], "--threads"),
        (["-o", "a.gif"], "a.gif: expected a name that ends in .exr"),
        (["-o", "no/such/folder/a.exr"], "does not exist"),
        (["--bucket-log", "no/such/folder/log"], "--bucket-log: no/such/folder/log: the folder "),
        (["--settings", "none.toml"], "settings: cannot read none.toml"),
        (["--no-local"], "no server renders: --no-local needs --server or --listen HOST:PORT"),
        (["--server", "127.0.0.1:99999"], "expected a port from 1 to 65535, found '99999'"),
    ],
)
def test_bad_input_is_one_clear_line_and_status_2(
    scene: str, options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    local = [] if "--no-local" in options else ["--no-local", "--server", "127.0.0.1:1"]
    assert main(["render", scene, *(options if "--server" in options else [*local, *options])]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("dr: ")
    assert words in err


def test_a_scene_that_is_not_there_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "none.glb", "--check"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "none.glb" in err


def test_a_scene_with_almost_that_name_is_suggested(scene: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "quads.scene.toml"]) == 2
    expected = "dr: quads.scene.toml: there is no such file (did you mean 'quad.scene.toml'?)\n"
    assert capsys.readouterr().err == expected


def test_a_folder_is_no_scene(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"dr: {tmp_path}: expected a scene file, found a folder\n"


def test_a_view_transform_that_the_scene_misspells_is_told_before_the_render(
    scene: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(scene).write_text(SCENE + '\n[view]\nview_transform = "Filmic"\n')
    assert main(["render", scene, "-o", "a.png", "--no-local", "--server", "127.0.0.1:1"]) == 2
    expected = "dr: view transform: expected one of Standard, ACES 2.0, Raw, found 'Filmic'\n"
    assert capsys.readouterr().err == expected


def test_a_frame_beyond_all_memory_is_bad_input(
    scene: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: object) -> None:
        raise MemoryError

    monkeypatch.setattr("numpy.zeros", fail)
    assert main(["render", scene, "--size", "65536x65536", "--no-local", "--server", "127.0.0.1:1"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "a picture of 65536x65536 with 12 planes needs 206 GB of memory" in err


def test_a_missing_argument_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert err.startswith("dr: Missing argument 'SCENE'")


def test_an_unknown_command_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rendre"]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "rendre" in err


def test_ctrl_c_before_the_render_is_one_line_and_status_1(
    scene: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dr.cli.render.make_request", interrupt)
    assert main(["render", scene]) == 1
    assert capsys.readouterr().err == "dr: interrupted\n"


def test_ctrl_c_while_the_program_loads_is_one_line_and_status_1() -> None:
    program = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "dr.cli.app":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from dr.cli import main
sys.exit(main(["--version"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "dr: interrupted\n")


def test_a_server_on_another_machine_is_refused_with_status_3(scene: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", scene, "--no-local", "--server", "10.0.0.1"]) == 3
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "keys" in err


@pytest.mark.parametrize(
    ("error", "status"), [(BadInput("x"), 2), (Refused("x"), 3), (PeerLost("x"), 1), (KeyboardInterrupt(), 1)]
)
def test_each_error_has_its_status(
    error: BaseException, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: object) -> int:
        raise error

    monkeypatch.setattr("dr.cli.app.run", fail)
    assert main(["render", "a.glb"]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("error", [Impossible("two owners"), ZeroDivisionError("division by zero")])
def test_our_own_bug_is_one_line_with_the_story_elsewhere(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(words: object) -> int:
        raise error

    monkeypatch.setattr("dr.cli.app.run", fail)
    assert main(["render", "a.glb"]) == BUG
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert f"internal error, please report it: {type(error).__name__}: {error}" in err
    assert main(["render", "a.glb", "-v"]) == BUG
    assert "Traceback" in capsys.readouterr().err


def test_a_check_reports_and_renders_nothing(scene: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", scene, "--check", "--local-servers", "2"]) == 0
    text = capsys.readouterr().out
    for words in ("960 x 540", "2 triangles", "front", "MB", "quad.scene.toml", "local-1", "local-2"):
        assert words in text
    assert list(tmp_path.glob("*.exr")) == []


def test_a_check_can_be_read_by_programs(scene: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", scene, "--check", "--json", "--samples", "7"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts) == {"settings", "servers", "survey"}
    assert facts["settings"]["samples"] == 7
    assert facts["survey"]["cameras"] == ["front"]


def test_settings_tell_value_and_origin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DR_THREADS", "3")
    assert main(["settings", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["threads"]["value"], rows["threads"]["origin"]) == (3, "DR_THREADS")
    assert rows["port"]["origin"] == "default"
    assert main(["settings"]) == 0
    assert "DR_THREADS" in capsys.readouterr().out


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = "import sys, dr; print(sorted({'numpy', 'numba', 'zmq', 'OpenImageIO', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_the_package_takes_no_time() -> None:
    program = "import time; t = time.process_time(); import dr; print(time.process_time() - t)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.1


def test_a_bug_in_a_render_names_the_log_with_its_traceback(
    scene: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("dr.cli.run.render_request", fail)
    assert main(["render", scene]) == BUG
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    path = Path(err.rpartition(" ")[2].strip())
    assert tmp_path in path.parents
    assert "ZeroDivisionError: division by zero" in path.read_text()
