"""The ledger of one frame: which bucket is where. Knows no server's state, no clock and no wire.

A bucket is in exactly one state. It is TODO until a server takes it, ASSIGNED to one server or (a race) to several, and
DONE with the first tile; one that waits may be SPLIT into others, which take its place. When its last server is lost or
fails it goes back: to the front of the queue, or, when it may itself be the cause, to the SUSPECT ones, which are tried
alone and last. One that failed often enough is POISONED. Servers are named by their boot id: one process, one name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from dr.errors import Impossible
from dr.protocol.messages import BucketWork, Channel
from dr.scene.model import RenderSettings

MAX_HOLDERS = 8  # of one bucket: two that race, more only where all others hang
MAX_FAILURES = 3


class Frame(Struct, frozen=True, kw_only=True):
    """What is to be rendered. Bucket ids count from 0 in the order of the list, which is the order of rendering."""

    settings: RenderSettings
    channels: tuple[Channel, ...]  # in the order of Channel
    buckets: tuple[BucketWork, ...]
    manifest: bytes  # digest
    assets: Mapping[bytes, int]  # digest to size in bytes, the manifest's own included
    index: int = 0  # frames of a render count from 0
    adaptive: bool = False  # buckets may be split at any time, so that they take the time that is aimed at
    samples_done: int = 0  # pixels times samples that are not in `buckets`, because they were done before


class State(StrEnum):
    TODO = "todo"
    ASSIGNED = "assigned"
    SUSPECT = "suspect"
    DONE = "done"
    POISONED = "poisoned"
    SPLIT = "split"  # others are rendered in its place


# A tile may come from a server that was told to drop the bucket: hence the moves from TODO and SUSPECT to DONE.
LEGAL_MOVES: Mapping[State, frozenset[State]] = {
    State.TODO: frozenset({State.ASSIGNED, State.DONE, State.SPLIT}),
    State.ASSIGNED: frozenset({State.ASSIGNED, State.TODO, State.SUSPECT, State.DONE, State.POISONED}),
    State.SUSPECT: frozenset({State.ASSIGNED, State.DONE}),
    State.DONE: frozenset(),
    State.POISONED: frozenset(),
    State.SPLIT: frozenset(),
}
_OVER = frozenset({State.DONE, State.POISONED, State.SPLIT})


class Entry(Struct, kw_only=True):
    """One bucket's line in the ledger."""

    work: BucketWork
    samples: int
    state: State = State.TODO
    servers: tuple[bytes, ...] = ()  # that hold it now
    attempts: int = 0  # assignments so far
    failures: tuple[bytes, ...] = ()  # servers that it failed on, one item per failure
    suspect: bool = False  # was running when a server died, or failed
    error: str = ""


class Job:
    """The ledger. Every method that is handed an unknown bucket id or asked for an illegal move raises Impossible."""

    def __init__(self, buckets: Iterable[BucketWork]) -> None:
        self.entries = [Entry(work=work, samples=count_samples(work)) for work in buckets]
        if any(entry.work.id != index for index, entry in enumerate(self.entries)):
            raise Impossible("expected bucket ids that count from 0 in order")
        self.todo = deque(range(len(self.entries)))
        self.suspects: deque[int] = deque()
        self.queues = {State.TODO: self.todo, State.SUSPECT: self.suspects}
        self.samples = self.samples_todo = sum(entry.samples for entry in self.entries)
        self.samples_done = 0
        self.counts = dict.fromkeys(State, 0)
        self.counts[State.TODO] = self._left = len(self.entries)

    @property
    def is_over(self) -> bool:
        """Whether every bucket is done or poisoned."""
        return not self._left

    @property
    def buckets(self) -> int:
        """How many there are, those that were split not counted."""
        return len(self.entries) - self.counts[State.SPLIT]

    def was_assigned(self, work: BucketWork) -> bool:
        """Whether this very bucket was ever given to a server."""
        if not 0 <= work.id < len(self.entries):
            return False
        entry = self.entries[work.id]
        return entry.work == work and entry.attempts > 0

    def poisoned(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.state is State.POISONED)

    def next_suspect(self, server: bytes, ready: Set[bytes]) -> int | None:
        """The first suspect for this server: one that has not failed here, or that has failed on all `ready` ones."""
        for bucket in self.suspects:
            failures = self.entries[bucket].failures
            if server not in failures or ready <= set(failures):
                return bucket
        return None

    def assign(self, bucket: int, server: bytes) -> None:
        """Gives the server a bucket: the next one, a suspect, or one to race."""
        entry = self.entries[bucket]
        if server in entry.servers or len(entry.servers) == MAX_HOLDERS:
            raise Impossible(f"bucket {bucket}: assigned to {server.hex()}, held by {len(entry.servers)} servers")
        self._unqueue(entry)
        self._move(entry, State.ASSIGNED)
        entry.servers += (server,)
        entry.attempts += 1

    def split(self, bucket: int, parts: Sequence[BucketWork]) -> None:
        """A bucket that waits is rendered in `parts`, which get ids of their own and its place at the front."""
        entry = self.entries[bucket]
        samples = [count_samples(part) for part in parts]
        if sum(samples) != entry.samples:
            raise Impossible(f"bucket {bucket}: the parts have other pixels than the whole")
        self._unqueue(entry)
        self._move(entry, State.SPLIT)
        ids = range(len(self.entries), len(self.entries) + len(parts))
        works = [replace(part, id=each) for each, part in zip(ids, parts, strict=True)]
        self.entries += [Entry(work=work, samples=each) for work, each in zip(works, samples, strict=True)]
        self.todo.extendleft(reversed(ids))
        self.counts[State.TODO] += len(parts)
        self._left += len(parts)
        self.samples_todo += entry.samples

    def finish(self, bucket: int) -> tuple[bytes, ...] | None:
        """A tile came: returns the servers that held the bucket, or None when the tile comes too late to count."""
        entry = self.entries[bucket]
        if State.DONE not in LEGAL_MOVES[entry.state]:
            return None
        self._unqueue(entry)
        self._move(entry, State.DONE)
        self.samples_done += entry.samples
        servers, entry.servers = entry.servers, ()
        return servers

    def release(self, bucket: int, server: bytes, *, suspect: bool = False) -> None:
        """The server will not render it. Without another holder it goes to the front of the queue, or is a suspect."""
        entry = self._drop(bucket, server)
        entry.suspect = entry.suspect or suspect
        if entry.servers:
            return
        if entry.suspect:
            self._move(entry, State.SUSPECT)
            self.suspects.append(bucket)
        else:
            self._move(entry, State.TODO)
            self.todo.appendleft(bucket)

    def fail(self, bucket: int, server: bytes, error: str, servers_seen: int) -> bool:
        """It failed on this server. Returns whether the bucket is poisoned by that, and nobody shall hold it any more.

        While another server renders it it is not. But one that failed is only raced where all who hold it seem to hang:
        after MAX_FAILURES nobody waits for those.
        """
        entry = self.entries[bucket]
        entry.failures += (server,)
        entry.error = error
        is_elsewhere = len(entry.servers) > 1 and len(entry.failures) < MAX_FAILURES
        if is_elsewhere or not self._is_poison(entry, servers_seen):
            self.release(bucket, server, suspect=True)
            return False
        self._drop(bucket, server)
        entry.servers = ()
        self._move(entry, State.POISONED)
        return True

    def check(self, live: Mapping[bytes, Iterable[int]]) -> None:
        """Proves the ledger against `live`, the buckets that each live server holds. Raises Impossible."""
        held = {(bucket, server) for server, buckets in live.items() for bucket in buckets}
        listed = {(entry.work.id, server) for entry in self.entries for server in entry.servers}
        if held != listed:
            raise Impossible(f"ledger and servers disagree on {sorted(held ^ listed)[:4]}")
        for state, queue in self.queues.items():
            if sorted(queue) != [entry.work.id for entry in self.entries if entry.state is state]:
                raise Impossible(f"the queue of {state.value} buckets lost or doubled one")
        for entry in self.entries:
            if (entry.state is State.ASSIGNED) != bool(entry.servers):
                raise Impossible(f"bucket {entry.work.id} is {entry.state.value} with {len(entry.servers)} servers")
        for state, count in self.counts.items():
            if count != sum(entry.state is state for entry in self.entries):
                raise Impossible(f"the count of {state.value} buckets is wrong: {count}")
        if self._left != sum(entry.state not in _OVER for entry in self.entries):
            raise Impossible(f"the count of buckets that are left is wrong: {self._left}")
        if self.samples_todo != sum(self.entries[bucket].samples for bucket in self.todo):
            raise Impossible(f"the samples of waiting buckets are not {self.samples_todo}")

    def _unqueue(self, entry: Entry) -> None:
        # The scheduler takes from the front, so that this search is short.
        if entry.state in self.queues:
            self.queues[entry.state].remove(entry.work.id)

    def _is_poison(self, entry: Entry, servers_seen: int) -> bool:
        enough_servers = len(set(entry.failures)) >= min(MAX_FAILURES, servers_seen)
        return enough_servers or len(entry.failures) >= MAX_FAILURES

    def _drop(self, bucket: int, server: bytes) -> Entry:
        entry = self.entries[bucket]
        if server not in entry.servers:
            raise Impossible(f"bucket {bucket}: {server.hex()} does not hold it")
        entry.servers = tuple(other for other in entry.servers if other != server)
        return entry

    def _move(self, entry: Entry, state: State) -> None:
        if state not in LEGAL_MOVES[entry.state]:
            raise Impossible(f"bucket {entry.work.id}: illegal move from {entry.state.value} to {state.value}")
        self.counts[entry.state] -= 1
        self.counts[state] += 1
        if entry.state is State.TODO:
            self.samples_todo -= entry.samples
        elif state is State.TODO:
            self.samples_todo += entry.samples
        if state in _OVER:
            self._left -= 1
        entry.state = state


def count_samples(work: BucketWork) -> int:
    """Pixels times samples."""
    return work.width * work.height * (work.sample_end - work.sample_begin)
