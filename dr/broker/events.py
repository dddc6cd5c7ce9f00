"""What may happen to the broker: past facts that its loop reports. Knows no socket and decides nothing.

The loop owns the ROUTER. It feeds each fact into `Broker.handle(event, now)`, where `now` is a monotonic clock in
seconds, and carries out the commands that come back, in order. Connections are named by `endpoint` (what the monitor
knows) and messages by `peer` (the routing id that the broker chose in `Dial`). A fact about a connection that the
broker has given up already is ignored, so that late monitor events do no harm.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from dr.broker.job import Frame
from dr.protocol.envelope import Payload
from dr.protocol.messages import ServerMessage


class ServerExpected(Struct, frozen=True):
    """A server of our own is starting: it will be added when it listens, or it dies. While it may come, we wait."""

    endpoint: str
    name: str = ""


class ServerAdded(Struct, frozen=True):
    """This server shall take part and may be dialled; `endpoint` is what ZeroMQ connects to."""

    endpoint: str
    name: str = ""  # shown until the server says its own
    whole_host: bool = False  # so shall the servers that it names beside itself


class ServerRemoved(Struct, frozen=True):
    """The user does not want this server any more. Its buckets go to others."""

    endpoint: str
    reason: str


class ServerAnnounced(Struct, frozen=True):
    """A spawner says that the server at `endpoint` is free. If it is awaited, it need not wait for its next dial."""

    endpoint: str
    boot: bytes


class ServerDied(Struct, frozen=True):
    """A server's own process is known to be gone for good. Its buckets go to others; those that ran are suspects.

    When the last server that could come is gone, the render ends incomplete and names the reasons.
    """

    endpoint: str
    reason: str


class FrameRequested(Struct, frozen=True):
    """A frame is known: servers that are held already prepare it now.

    At most MAX_LIVE_FRAMES may be unfinished, in the order of `Frame.index`, as many in all as the broker was told.
    """

    frame: Frame


class ListeningBegan(Struct, frozen=True):
    """Servers may dial in at `place` from now on. However many others are lost, the render waits for them."""

    place: str


class DialSucceeded(Struct, frozen=True):
    """The monitor saw the handshake succeed: the peer can be addressed."""

    endpoint: str


class DialRefused(Struct, frozen=True):
    """The connection can never work (a refused key). Final for this server."""

    endpoint: str
    reason: str


class ConnectionLost(Struct, frozen=True):
    """The monitor saw the connection close or its handshake fail. The broker forgets the peer and dials again."""

    endpoint: str
    reason: str


class SendFailed(Struct, frozen=True):
    """A peer cannot be reached (EHOSTUNREACH). A full queue (EAGAIN) is the loop's to retry, not this."""

    peer: bytes
    reason: str


class MessageReceived(Struct, frozen=True):
    """A message that codec and envelope have accepted, with its payload frames, which the broker only passes on.

    A peer that we did not dial and that says `here` is a server that has dialled in.
    """

    peer: bytes
    message: ServerMessage
    payload: Payload = ()


class PeerMisbehaved(Struct, frozen=True):
    """A peer sent frames that are no message: the ProtocolError's text. Costs the peer its connection."""

    peer: bytes
    reason: str


class AssetRead(Struct, frozen=True):
    """The answer to `ReadAsset`: the bytes, or in `missing` why they cannot be had."""

    peer: bytes
    digest: bytes
    offset: int
    payload: Payload = ()
    missing: str = ""


class CancelRequested(Struct, frozen=True):
    """The user (Ctrl-C, a time limit) or the client (no server can come any more) ends the render incomplete."""

    reason: str


Event: TypeAlias = (
    ServerExpected
    | ServerAdded
    | ServerRemoved
    | ServerAnnounced
    | ServerDied
    | FrameRequested
    | ListeningBegan
    | DialSucceeded
    | DialRefused
    | ConnectionLost
    | SendFailed
    | MessageReceived
    | PeerMisbehaved
    | AssetRead
    | CancelRequested
)


def title(event: Event) -> str:
    """An event in a few words."""
    match event:
        case MessageReceived(peer, message):
            return f"{type(message).__name__} from {peer.hex()}"
        case PeerMisbehaved(peer) | SendFailed(peer) | AssetRead(peer):
            return f"{type(event).__name__} {peer.hex()}"
        case FrameRequested() | ListeningBegan() | CancelRequested():
            return type(event).__name__
        case _:
            return f"{type(event).__name__} {event.endpoint}"
