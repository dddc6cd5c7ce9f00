"""A simulated farm in which everything takes its time: messages their latency, buckets their seconds of a thread."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from dr.broker import events
from dr.broker.job import Frame
from dr.protocol.messages import BucketWork, ClientMessage
from tests.support.simulated_farm import Held, Said, SimulatedFarm, SimulatedServer

LIMIT_S = 10_000.0


class TimedFarm(SimulatedFarm):
    """`bucket_s(endpoint, work)` is how long a thread of that server takes; `latency_s` one way of the wire."""

    def __init__(
        self, bucket_s: Callable[[str, BucketWork], float], latency_s: float = 0.0001, frames: int = 1
    ) -> None:
        super().__init__(frames=frames)
        self.bucket_s = bucket_s
        self.latency_s = latency_s
        self.silence_every_s = 0.25
        self.silent: set[str] = set()  # endpoints of machines that are cut off
        self.rendered_s = 0.0  # of all threads, wasted work included
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._begun: set[tuple[bytes, Held]] = set()

    def render(self, frame: Frame, servers: list[SimulatedServer]) -> float:
        """Seconds from the moment when all servers are ready to the last tile."""
        for server in servers:
            self.add(server)
        return self._time(frame, len(servers))

    def render_host(self, frame: Frame, servers: list[SimulatedServer]) -> float:
        """The same with the servers of one host, of which the user names the host alone."""
        self.add_host(servers)
        return self._time(frame, len(servers))

    def _time(self, frame: Frame, count: int) -> float:
        self._run_until(lambda: len(self.broker.fleet.holders) == count)
        self.tell(events.FrameRequested(frame))
        self._run_until(lambda: len(self.broker.fleet.ready()) == count)
        began = self.now
        self._run_until(lambda: self.finished is not None)
        return self.now - began

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (self.now + seconds, next(self._order), action))

    def cut_off(self, endpoint: str) -> None:
        self.silent.add(endpoint)

    def kill(self, endpoint: str) -> None:
        """The process dies; its host says so at once."""
        self.silent.add(endpoint)
        self.tell(events.ConnectionLost(endpoint, "connection closed"))

    def _run_until(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached() and self.now < LIMIT_S:
            when = self._agenda[0][0] if self._agenda else LIMIT_S
            if self.broker.next_deadline() < when:
                self.pass_time(max(self.now, self.broker.next_deadline()))
                self._dial_all()
                continue
            self.pass_time(when)
            heapq.heappop(self._agenda)[2]()
            self._dial_all()
        assert self.now < LIMIT_S

    def _dial_all(self) -> None:
        while self.fresh_links:
            dialled, self.fresh_links = self.fresh_links, []
            for link in dialled:
                if link.phase == "dialing" and link.endpoint not in self.silent:
                    self.connect(link)

    def add(self, server: SimulatedServer, whole_host: bool = False) -> None:
        super().add(server, whole_host)
        self._dial_all()

    def _carry(self, peer: bytes, message: ClientMessage) -> None:
        self.after(self.latency_s, lambda: self._arrive(peer, message))

    def _arrive(self, peer: bytes, message: ClientMessage) -> None:
        server = self.servers[self.links[peer].endpoint]
        if server.endpoint in self.silent:
            return
        for reply in server.hear(peer, message, self.now):
            self._return(peer, Said(reply))
        self._begin_all(server, peer)

    def _return(self, peer: bytes, said: Said) -> None:
        def arrive() -> None:
            self.tell(events.MessageReceived(peer, said.message, said.payload))
            while self.reads:
                self.answer_read()

        self.after(self.latency_s, arrive)

    def _begin_all(self, server: SimulatedServer, peer: bytes) -> None:
        for held in server.running():
            if (server.lease + server.boot, held) not in self._begun:
                self._begun.add((server.lease + server.boot, held))
                self._begin(server, peer, held)

    def _begin(self, server: SimulatedServer, peer: bytes, held: Held) -> None:
        self._end_later(server, peer, held, self.bucket_s(server.endpoint, held.work))

    def _end_later(
        self, server: SimulatedServer, peer: bytes, held: Held, seconds: float, said_s: float | None = None
    ) -> None:
        """The tile leaves after so many seconds; `said_s` is what the server says instead."""

        def end() -> None:
            if held not in server.works or server.endpoint in self.silent:
                return
            self.rendered_s += seconds
            self._return(peer, server.finish(held, seconds if said_s is None else said_s))
            self._begin_all(server, peer)

        self.after(seconds, end)
