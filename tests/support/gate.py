"""A gate of our own in a thread, with keys or without, for what a real server would not say at that moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from dr.errors import ProtocolError
from dr.keys.ring import KeyRing
from dr.keys.sockets import secure_server
from dr.keys.zap import Zap
from dr.protocol.envelope import join, split_client
from dr.protocol.messages import ClientMessage, ServerMessage

POLL_MS = 20
PATIENCE_S = 30.0

Answer = Callable[[ClientMessage], Sequence[ServerMessage]]


class Gate:
    """Listens on a port of its own; with a ring it asks for keys."""

    def __init__(self, ring: KeyRing | None, answer: Answer, kind: int = zmq.ROUTER) -> None:
        self.answer = answer
        self.heard: list[ClientMessage] = []
        self.context: zmq.Context[Any] = zmq.Context()
        self.zap = Zap(self.context, ring.admit_client) if ring else None
        self.socket = self.context.socket(kind)
        self.socket.linger = 0
        if ring:
            secure_server(self.socket, ring)
        self.port = self.socket.bind_to_random_port("tcp://127.0.0.1")
        self.place = f"127.0.0.1:{self.port}"
        self.endpoint = f"tcp://{self.place}"
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def __enter__(self) -> Gate:
        self.thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.done.set()
        self.thread.join(PATIENCE_S)
        assert not self.thread.is_alive()

    def _run(self) -> None:
        poller = zmq.Poller()
        for socket in (self.socket, self.zap and self.zap.socket):
            if socket:
                poller.register(socket, zmq.POLLIN)
        while not self.done.is_set():
            poller.poll(POLL_MS)
            if self.zap:
                self.zap.answer(0.0)
            self._turn()
        self.socket.close()
        if self.zap:
            self.zap.close()
        self.context.term()

    def _turn(self) -> None:
        while self.socket.poll(0):
            peer, *frames = self.socket.recv_multipart()
            try:
                message, _ = split_client(frames)
            except ProtocolError:
                continue
            self.heard.append(message)
            for answer in self.answer(message):
                self.socket.send_multipart([peer, *join(answer)])


class Announcer(Gate):
    """Publishes the same frames again and again."""

    def __init__(self, ring: KeyRing | None, *announced: Sequence[bytes | memoryview]) -> None:
        super().__init__(ring, lambda message: [], kind=zmq.PUB)
        self.announced = announced

    def _turn(self) -> None:
        for frames in self.announced:
            self.socket.send_multipart(frames)
