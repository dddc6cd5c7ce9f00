"""The engine's preparing process, held up by a named pipe that nobody writes into."""

import os
import threading

import pytest

from dr.errors import DrError
from dr.scene.model import RenderSettings
from workers.server.inside import PrepareJob
from workers.server.kernel_engine import KernelEngine

pytestmark = pytest.mark.slow


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    engine = KernelEngine(folder, threads=1)
    engine.start()
    yield engine
    engine.close()


@pytest.fixture
def stuck_job(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    settings = RenderSettings(width=8, height=8)
    files = {"a.ply": str(tmp_path / "pipe")}
    return PrepareJob(epoch=1, ticket=7, key="k", main="a.ply", files=files, settings=settings)


def test_an_abandoned_preparation_ends_and_leaves_nothing(engine, stuck_job):
    def abandon(text):
        engine.abandon(6)
        assert engine._busy.alive, "that was another job's ticket"
        engine.abandon(7)

    with pytest.raises(DrError, match="killed by SIGKILL"):
        engine.prepare(stuck_job, abandon)
    assert not list(engine.scenes.glob("*.scene"))


def test_a_closed_engine_ends_its_preparation_and_takes_no_more(engine, stuck_job):
    begun, errors = threading.Event(), []

    def prepare():
        try:
            engine.prepare(stuck_job, lambda text: begun.set())
        except DrError as error:
            errors.append(str(error))

    thread = threading.Thread(target=prepare)
    thread.start()
    assert begun.wait(60)
    engine.close()
    thread.join(20)
    assert "killed by SIGKILL" in errors[0]
    with pytest.raises(DrError, match="stopping"):
        engine.prepare(stuck_job, print)


def test_a_preparing_process_that_died_while_it_waited_is_replaced(engine, stuck_job):
    engine._waiting.kill()
    engine._waiting.process.wait()
    said = []

    def say(text):
        said.append(text)
        engine.abandon(7)

    with pytest.raises(DrError, match="killed by SIGKILL"):
        engine.prepare(stuck_job, say)
    assert said == ["reading the scene"]


def test_a_host_without_room_for_a_process_costs_the_preparation_and_not_the_server(tmp_path, stuck_job, monkeypatch):
    def no_room():
        raise BlockingIOError("fork")

    monkeypatch.setattr("workers.server.kernel_engine.PrepareProcess", no_room)
    engine = KernelEngine(tmp_path, threads=1)
    engine.start()
    with pytest.raises(BlockingIOError):
        engine.prepare(stuck_job, print)
    engine.close()
