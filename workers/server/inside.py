"""The wire between the server loop and its own threads: DEALERs on inproc. Knows frames; knows not what events mean.

One thread per socket, always: the loop owns `Inside`, each thread its own `Line`. What crosses is an event or a command
as msgpack, followed by payload frames, which are passed on without a copy.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec
import zmq
from msgspec import Struct

from dr.protocol.envelope import Payload
from dr.scene.model import RenderSettings
from workers.server.commands import RenderBucket
from workers.server.events import InsideEvent, TileRendered


class PrepareJob(Struct, frozen=True, tag=True, kw_only=True):
    """All that preparing a scene needs; `files` maps the manifest's names to where their bytes lie."""

    epoch: int
    ticket: int = 0  # of this preparation, see Shelf
    key: str  # of the prepared file, shared with other servers of this host
    main: str
    files: dict[str, str]
    settings: RenderSettings


class Leave(Struct, frozen=True, tag=True):
    """The thread shall end."""


Order: TypeAlias = RenderBucket | PrepareJob | Leave

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(InsideEvent)
_orders = msgspec.msgpack.Decoder(Order)


class Inside:
    """The loop's end."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.context = context
        self.address = f"inproc://inside-{id(self):x}"
        self.socket = context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.router_mandatory = 1
        self.socket.sndhwm = self.socket.rcvhwm = 0  # each thread has one thing under way: nothing piles up
        self.socket.bind(self.address)

    def line(self, name: str) -> Line:
        """A new thread's end; the thread that gets it is the only one to use it from then on."""
        return Line(self.context, self.address, name)

    def send(self, name: str, order: Order) -> None:
        self.socket.send_multipart([name.encode(), _encoder.encode(order)])

    def receive(self) -> InsideEvent | None:
        """The next event, or None when there is none now."""
        try:
            _, header, *frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        event: InsideEvent = _events.decode(header.buffer)
        if isinstance(event, TileRendered):
            return msgspec.structs.replace(event, payload=tuple(frame.buffer for frame in frames))
        return event

    def close(self) -> None:
        self.socket.close()


class Line:
    """A thread's end."""

    def __init__(self, context: zmq.Context[Any], address: str, name: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndhwm = self.socket.rcvhwm = 0
        self.socket.routing_id = name.encode()
        self.socket.connect(address)

    def send(self, event: InsideEvent, payload: Payload = ()) -> None:
        self.socket.send_multipart([_encoder.encode(event), *payload], copy=not payload)

    def receive(self) -> Order:
        order: Order = _orders.decode(self.socket.recv())
        return order

    def close(self) -> None:
        self.socket.close()
