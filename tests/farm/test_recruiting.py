"""Recruiting from real spawners on this machine: who comes late is announced, and a settings file is followed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from signal import SIGKILL
from time import monotonic
from typing import Any

import pytest
import zmq

from dr.broker.events import ServerAdded, ServerAnnounced, ServerRemoved
from dr.client.recruiter import Recruiter
from dr.client.settings_watch import SettingsWatch
from dr.keys.security import Security
from dr.settings import load_settings
from tests.support.spawner import DEADLINE_S, SpawnerProcess, free_ports

HERE = "127.0.0.1"


class Follower:
    """What the render loop does with a recruiter, on the real clock. `events` are in the order in which they came."""

    def __init__(self, settings: Path, announce_port: int) -> None:
        self.settings = settings
        self.context: zmq.Context[Any] = zmq.Context()
        watch = SettingsWatch(settings, lambda: load_settings(settings, {}).values.servers, monotonic())
        wanted = load_settings(settings, {}).values.servers
        self.recruiter = Recruiter(self.context, Security(), wanted, watch, announce_port)
        self.recruiter.begin()
        self.events: list[Any] = []

    def close(self) -> None:
        self.recruiter.close()
        self.context.term()

    def wait(self, wanted: Callable[[Any], bool]) -> Any:
        """The next event that is wanted; those before it are forgotten."""
        poller = zmq.Poller()
        for source in self.recruiter.descriptors():
            poller.register(source, zmq.POLLIN)
        deadline = monotonic() + DEADLINE_S
        while monotonic() < deadline:
            while self.events:
                event = self.events.pop(0)
                if wanted(event):
                    return event
            wait_s = min(deadline, self.recruiter.next_deadline()) - monotonic()
            poller.poll(max(0, ceil(wait_s * 1000)))
            self.events += self.recruiter.news(monotonic())
        raise AssertionError(self.recruiter.notices())


@pytest.fixture
def follow(tmp_path: Path) -> Iterator[Callable[[str, int], Follower]]:
    made: list[Follower] = []

    def follow(text: str, announce_port: int) -> Follower:
        path = tmp_path / "dr.toml"
        path.write_text(text)
        made.append(Follower(path, announce_port))
        return made[-1]

    yield follow
    for each in made:
        each.close()


def entry(host: str, port: int | None = None) -> str:
    return f'[[servers]]\nhost = "{host}"\n' + ("" if port is None else f"port = {port}\n")


def test_servers_that_start_late_are_announced_and_so_is_one_that_starts_again(tmp_path: Path, follow) -> None:
    ports = free_ports(2)
    spawner = SpawnerProcess(tmp_path, ports)
    follower = follow(entry(HERE), spawner.wanted_announce)
    assert follower.wait(bool) == ServerAdded(f"tcp://{HERE}:20204", whole_host=True)
    with spawner:
        first = follower.wait(lambda each: each.endpoint == f"tcp://{HERE}:{ports[0]}")
        spawner.wait_ready()
        spawner.server(ports[0]).send_signal(SIGKILL)
        again = follower.wait(lambda each: each.endpoint == f"tcp://{HERE}:{ports[0]}" and each.boot != first.boot)
    assert isinstance(first, ServerAnnounced)
    assert isinstance(again, ServerAnnounced)


def test_a_server_that_is_added_to_the_settings_is_listed_and_then_announced(tmp_path: Path, follow) -> None:
    ports = free_ports(2)
    with SpawnerProcess(tmp_path, ports) as spawner:
        spawner.wait_ready()
        follower = follow("", spawner.wanted_announce)
        follower.settings.write_text(entry(HERE, ports[1]))
        assert follower.wait(bool) == ServerAdded(f"tcp://{HERE}:{ports[1]}")
        announced = follower.wait(bool)
        assert isinstance(announced, ServerAnnounced)
        assert announced.endpoint == f"tcp://{HERE}:{ports[1]}"
        follower.settings.unlink()
        follower.settings.write_text("")
        gone = follower.wait(lambda each: not isinstance(each, ServerAnnounced))
        assert gone == ServerRemoved(f"tcp://{HERE}:{ports[1]}", "removed from dr.toml")
        assert follower.recruiter.notices() == [
            f"dr.toml changed: {HERE}:{ports[1]} added",
            f"dr.toml changed: {HERE}:{ports[1]} removed",
        ]
