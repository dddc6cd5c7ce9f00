"""What servers say and what follows from it, message by message. Knows leases and epochs; begins and ends no render."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dr.broker import events as on
from dr.broker.commands import ReadAsset, Topic
from dr.broker.dispatch import Dispatch
from dr.broker.fleet import HEARING, Fleet, Phase, Server, Verdict
from dr.broker.joining import Joining
from dr.broker.links import Links
from dr.broker.outbox import Outbox
from dr.errors import ProtocolError
from dr.protocol import messages as say

MAX_READS = 16  # unanswered `get` of a server; it should stop at 4 for each of three frames, one just finished
FINAL_CODES = frozenset({"version", "kernels", "key", "refused"})  # of `error`: dialling again is no use

_Hearer: TypeAlias = Callable[[Server, Any, float], None]


class Hearing:
    """Hears every message of every server while a render runs."""

    def __init__(self, fleet: Fleet, outbox: Outbox, dispatch: Dispatch, links: Links, joining: Joining) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.dispatch = dispatch
        self.links = links
        self.dropped = 0  # messages of an unknown peer, an old lease or epoch, or about a finished bucket
        self.bad_scene = ""  # why every server would say that the scene is bad
        self._hearers: Mapping[type, _Hearer] = {
            say.Welcome: self._count(joining.hear_welcome),
            say.Grant: self._count(joining.hear_grant),
            say.Pong: self._hear_pong,
            say.NoLease: self._count(joining.hear_nolease),
            say.ErrorMessage: self._hear_error,
            say.Here: self._hear_here,
        }
        self._leased_hearers: Mapping[type, _Hearer] = {
            say.Get: self._hear_get,
            say.Progress: self._hear_progress,
            say.Ready: self._hear_ready,
            say.Failed: self._hear_failed,
            say.Beat: self._hear_beat,
            say.Drain: self._hear_drain,
        }

    def hear(self, event: on.MessageReceived, now: float) -> None:
        server, message = self.fleet.peers.get(event.peer), event.message
        if server is None and isinstance(message, say.Here):
            self.links.accept(event.peer, message, now)
        elif server is None:
            self.dropped += 1
        elif server.phase not in HEARING:
            self.links.punish(server, "spoke before it was greeted", now)
        else:
            server.heard = now
            self._hear_live(server, event, now)

    def hear_too_late(self, event: on.MessageReceived) -> None:
        """The render is over. A server that we waited for became free just now: let it go at once."""
        server = self.fleet.peers.get(event.peer)
        if server and isinstance(event.message, say.Grant):
            self.outbox.send(server, say.Bye(lease=event.message.lease))

    def hear_nonsense(self, event: on.PeerMisbehaved, now: float) -> None:
        if server := self.fleet.peers.get(event.peer):
            self.links.punish(server, event.reason, now)

    def send_chunk(self, event: on.AssetRead) -> None:
        """An asset was read: its bytes go to the server that asked for them."""
        server = self.fleet.peers.get(event.peer)
        if not server:
            return
        epoch = server.pop_read((event.digest, event.offset))
        if not server.lease or not self.dispatch.frames.find(epoch):
            return
        message = say.Chunk(
            lease=server.lease,
            epoch=epoch,
            digest=event.digest,
            offset=event.offset,
            missing=event.missing,
        )
        self.outbox.send(server, message, event.payload)

    def _hear_live(self, server: Server, event: on.MessageReceived, now: float) -> None:
        message = event.message
        if hearer := self._hearers.get(type(message)):
            hearer(server, message, now)
        elif not self._is_current(server, message):
            self.dropped += 1
        elif isinstance(message, say.Tile):
            self._hear_tile(server, event, now)
        else:
            self._leased_hearers[type(message)](server, message, now)

    def _is_current(self, server: Server, message: say.ServerMessage) -> bool:
        """Whether a message belongs to the lease that we have now, and to a live frame if it names one."""
        if not server.lease or getattr(message, "lease", b"") != server.lease:
            return False
        epoch: int | None = getattr(message, "epoch", None)
        return epoch is None or self.dispatch.frames.find(epoch) is not None

    def _count(self, hear: Callable[[Server, Any, float], bool]) -> _Hearer:
        """Those that it calls no news are counted."""

        def count(server: Server, message: Any, now: float) -> None:
            self.dropped += not hear(server, message, now)

        return count

    def _hear_pong(self, server: Server, message: say.Pong, now: float) -> None:
        server.measure_pong(message.n, now)

    def _hear_beat(self, server: Server, message: say.Beat, now: float) -> None:
        """A sign of life, which any message is."""

    def _hear_error(self, server: Server, message: say.ErrorMessage, now: float) -> None:
        if message.code in FINAL_CODES:
            self.links.retire(server, Verdict.REFUSED, message.text, now)
        else:
            self.links.drop(server, f"{message.code}: {message.text}", now, died=False)

    def _hear_here(self, server: Server, message: say.Here, now: float) -> None:
        self.links.punish(server, "said `here` on a connection that was greeted before", now)

    def _hear_get(self, server: Server, message: say.Get, now: float) -> None:
        live = self.dispatch.frames.find(message.epoch)
        size = live.frame.assets.get(message.digest) if live else None
        if size is None or message.offset + message.n > size:
            found = f"{message.n} bytes at {message.offset} of {message.digest.hex()[:12]} ({size or 'no'} bytes)"
            self.links.punish(server, f"expected `get` of an asset of this scene, found {found}", now)
        elif len(server.reads) >= MAX_READS:
            self.links.punish(server, f"expected at most {MAX_READS} unanswered `get`, found more", now)
        else:
            server.reads.append((message.digest, message.offset, message.epoch))
            self.outbox.add(ReadAsset(server.peer, message.digest, message.offset, message.n))

    def _hear_progress(self, server: Server, message: say.Progress, now: float) -> None:
        self.outbox.notify(Topic.PREPARING, message.text, server)

    def _hear_ready(self, server: Server, message: say.Ready, now: float) -> None:
        live = self.dispatch.frames.find(message.epoch)
        if live is None or server.boot in live.ready or server.phase not in {Phase.LEASED, Phase.READY}:
            self.dropped += 1
            return
        if not server.has_joined:
            self.outbox.notify(
                Topic.JOINED, f"renders with {server.threads} thread{'s' * (server.threads != 1)}", server
            )
        server.has_joined, server.is_reported, server.trouble = True, False, ""
        server.ready_since = min(server.ready_since, now)
        self.dispatch.add_ready(server, live, now)

    def _hear_drain(self, server: Server, message: say.Drain, now: float) -> None:
        if server.phase is Phase.DRAINING:
            return
        self.fleet.move(server, Phase.DRAINING)
        self.dispatch.drain(server, now)

    def _hear_tile(self, server: Server, event: on.MessageReceived, now: float) -> None:
        assert isinstance(event.message, say.Tile)
        try:
            counts = self.dispatch.take_tile(server, event.message, event.payload, now)
        except ProtocolError as error:
            self.links.punish(server, str(error), now)
        else:
            self.dropped += not counts

    def _hear_failed(self, server: Server, message: say.Failed, now: float) -> None:
        if message.bucket is None and message.fatal:
            self.bad_scene = message.error or "a server found the scene to be bad"
        elif message.bucket is None:
            self.links.retire(server, Verdict.UNFIT, message.error, now)
        elif server.holds(ticket := (message.epoch, message.bucket)):
            self.dispatch.take_failure(server, ticket, message.error, now)
        else:
            self.dropped += 1
