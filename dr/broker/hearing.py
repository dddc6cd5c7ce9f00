"""What servers say and what follows from it, message by message. Knows leases and epochs; begins and ends no render."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from dr.broker import events as on
from dr.broker.commands import ReadAsset, Topic
from dr.broker.dispatch import Dispatch
from dr.broker.fleet import HEARING, Fleet, Phase, Server, Verdict
from dr.broker.links import Links
from dr.broker.outbox import Outbox
from dr.errors import ProtocolError
from dr.protocol import messages as say

MAX_READS = 8  # assets that a server may have asked for at a time; it should stop at 4
FINAL_CODES = frozenset({"version", "kernels", "key", "refused"})  # of `error`: dialling again is no use

_Hearer: TypeAlias = Callable[[Server, Any, float], None]


class Hearing:
    """Hears every message of every server while a render runs."""

    def __init__(self, fleet: Fleet, outbox: Outbox, dispatch: Dispatch, links: Links) -> None:
        self.fleet = fleet
        self.outbox = outbox
        self.dispatch = dispatch
        self.links = links
        self.dropped = 0  # messages of an unknown peer, an old lease or epoch, or about a finished bucket
        self.bad_scene = ""  # why every server would say that the scene is bad
        self._hearers: Mapping[type, _Hearer] = {
            say.Welcome: self._hear_welcome,
            say.Grant: self._hear_grant,
            say.Pong: self._hear_pong,
            say.NoLease: self._hear_nolease,
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
        server.reads -= 1
        if not server.lease:
            return
        message = say.Chunk(
            lease=server.lease,
            epoch=self.dispatch.epoch,
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
        """Whether a message belongs to the lease and the frame that we have now."""
        lease, epoch = getattr(message, "lease", b""), getattr(message, "epoch", self.dispatch.epoch)
        return bool(server.lease) and lease == server.lease and epoch == self.dispatch.epoch

    def _hear_welcome(self, server: Server, message: say.Welcome, now: float) -> None:
        if server.phase not in {Phase.UP, Phase.WAITING}:
            self.dropped += 1
            return
        if server.dials_in and server.boot != message.boot:
            self.links.punish(server, "said `here` with another boot id than `welcome`", now)
            return
        if refusal := self.links.compare(message.version, message.kernels):
            self.links.retire(server, Verdict.REFUSED, refusal, now)
            return
        twin = self.fleet.find_twin(server, message.boot)
        if server.whole_host and not (twin and twin.whole_host):
            self.links.dial_siblings(server, message.siblings, now)
        if twin:
            self.links.retire(server, Verdict.REMOVED, f"is the same server as {twin.endpoint}", now)
            return
        server.name, server.boot = message.name, message.boot
        if server.phase is Phase.UP:
            self.fleet.move(server, Phase.WAITING)
        if message.busy:
            text = f"busy with {message.holder or 'another client'}; joins when it is free"
            self.outbox.notify(Topic.WAITING, text, server)

    def _hear_grant(self, server: Server, message: say.Grant, now: float) -> None:
        if server.phase is not Phase.WAITING:
            self.dropped += 1
            return
        self.fleet.grant(server, message.lease, message.threads)
        self.dispatch.send_setup(server)

    def _hear_pong(self, server: Server, message: say.Pong, now: float) -> None:
        server.measure_pong(message.n, now)

    def _hear_beat(self, server: Server, message: say.Beat, now: float) -> None:
        """A sign of life, which any message is."""

    def _hear_nolease(self, server: Server, message: say.NoLease, now: float) -> None:
        if not server.lease:
            self.dropped += 1
            return
        self.dispatch.take_back(server, "", now, died=False)
        self.links.greet(server, now)
        self.dispatch.serve_all(now)

    def _hear_error(self, server: Server, message: say.ErrorMessage, now: float) -> None:
        if message.code in FINAL_CODES:
            self.links.retire(server, Verdict.REFUSED, message.text, now)
        else:
            self.links.drop(server, f"{message.code}: {message.text}", now, died=False)

    def _hear_here(self, server: Server, message: say.Here, now: float) -> None:
        self.links.punish(server, "said `here` on a connection that was greeted before", now)

    def _hear_get(self, server: Server, message: say.Get, now: float) -> None:
        frame = self.dispatch.frame
        size = frame.assets.get(message.digest) if frame else None
        if size is None or message.offset + message.n > size:
            found = f"{message.n} bytes at {message.offset} of {message.digest.hex()[:12]} ({size or 'no'} bytes)"
            self.links.punish(server, f"expected `get` of an asset of this scene, found {found}", now)
        elif server.reads >= MAX_READS:
            self.links.punish(server, f"expected at most {MAX_READS} unanswered `get`, found more", now)
        else:
            server.reads += 1
            self.outbox.add(ReadAsset(server.peer, message.digest, message.offset, message.n))

    def _hear_progress(self, server: Server, message: say.Progress, now: float) -> None:
        self.outbox.notify(Topic.PREPARING, message.text, server)

    def _hear_ready(self, server: Server, message: say.Ready, now: float) -> None:
        if server.phase is not Phase.LEASED:
            self.dropped += 1
            return
        self.fleet.move(server, Phase.READY)
        server.has_joined, server.is_reported = True, False
        self.outbox.notify(Topic.JOINED, f"renders with {server.threads} threads", server)
        self.dispatch.serve(server, now)

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
        elif server.holds(message.bucket):
            self.dispatch.take_failure(server, message.bucket, message.error, now)
        else:
            self.dropped += 1
