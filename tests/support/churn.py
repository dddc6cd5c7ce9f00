"""Plays millions of events of churn against a real broker, on a simulated clock, and proves that every pixel comes.

    python -m tests.support.churn --events 10000000 --seed N

One render after the other, each with dice, size and limits of its own that follow from the seed: servers join, leave,
hang, lie and fail while frames stream by. The same seed plays the same events. A failure prints the seed of its render,
the number of the event and the last 40 events.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from math import inf
from random import Random

from msgspec import Struct, field

from dr.broker import events
from dr.broker.job import MAX_HOLDERS
from dr.broker.schedule import OVERDUE, OVERDUE_S
from dr.broker.state import Broker
from tests.support.churn_farm import ChurnFarm, Shape
from tests.support.churn_faults import STEADFAST, Faults
from tests.support.churn_picture import SAMPLES
from tests.support.churn_server import ChurnServer

SLOWEST, FASTEST = 25_000.0, 2_500_000.0  # samples per second of a thread
HOSTS, ON_HOST = 8, 4
CALLERS = 4
LARGEST_SIDE = 48  # pixels of a bucket
LOOKS = 10  # at the broker's memory, in one render
LONG = 1_000_000  # events, of a render after whose first half its memory must be flat
MAX_GROWTH = 1.15  # tables that hold callers double now and then; one byte leaked per event would triple it
SETTLE_S = 15.0  # after the end: every server has noticed


class Tally(Struct):
    """What was played so far."""

    events: int = 0
    renders: int = 0
    frames: int = 0
    poisoned: int = 0
    simulated_s: float = 0.0
    longest_frame_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    notices: Counter[str] = field(default_factory=Counter)  # by topic
    growth: list[tuple[int, int]] = field(default_factory=list)  # of the last render: events, bytes that the broker has


def bound_s(shape: Shape) -> float:
    """How long a frame may take, with STEADFAST good servers of two threads and the typical rate at least.

    They alone render both live frames twice over in `alone_s`. Before that, each of a
    bucket's holders may hang until it is overdue, on the slowest thread with the largest bucket.
    """
    largest = LARGEST_SIDE**2 * SAMPLES
    alone_s = 2 * 2 * shape.buckets[1] * largest / (STEADFAST * 2 * (SLOWEST * FASTEST) ** 0.5)
    return alone_s + MAX_HOLDERS * (OVERDUE * largest / SLOWEST + OVERDUE_S)


def build(seed: int, shape: Shape, servers: int) -> tuple[ChurnFarm, Faults]:
    farm = ChurnFarm(seed, shape, bound_s(shape))
    on_hosts = [f"tcp://host-{number // ON_HOST}:{20204 + number % ON_HOST}" for number in range(HOSTS * ON_HOST)]
    callers = [f"call-{number}" for number in range(CALLERS)]
    rest = max(STEADFAST + 1, servers - len(on_hosts) - len(callers))
    places = [f"tcp://single-{number}:20204" for number in range(rest)]
    if servers > len(on_hosts):
        places += on_hosts
    for number, place in enumerate([*places, *callers]):
        _place(farm, place, number < STEADFAST)
    return farm, Faults(farm, shape.fault_every_s)


def _place(farm: ChurnFarm, place: str, is_steadfast: bool) -> None:
    chance = farm.chance
    rate = SLOWEST * (FASTEST / SLOWEST) ** (0.5 if is_steadfast else chance.random())
    threads = chance.choice((2, 4) if is_steadfast else (1, 2, 4, 8, 16, 64))
    server = ChurnServer(place, threads, rate, chance, farm.say, farm.after)
    server.is_poison, server.blame = farm.pictures.is_poison, farm.blame
    farm.servers[place] = server
    if place.startswith("tcp://host"):
        server.siblings = [port for port in range(20204, 20204 + ON_HOST) if not place.endswith(str(port))]
        server.announce = 40000


def begin(farm: ChurnFarm, faults: Faults) -> None:
    """The steadfast ones are listed first, so that they have their seats when the others come."""
    farm.request_frames()
    farm.tell(events.ListeningBegan("tcp://client:1"))
    for server in faults.steadfast:
        farm.tell(events.ServerAdded(server.place))
    for server in faults.fickle:
        farm.after(farm.chance.uniform(0.5, 3.0), _join, farm, faults, server)
    faults.begin()


def _join(farm: ChurnFarm, faults: Faults, server: ChurnServer) -> None:
    if server.place.startswith("call-"):
        farm.call(server, server.boot)
    elif server.place in faults.hosts:
        farm.tell(events.ServerAdded(server.place, whole_host=True))
    elif not server.place.startswith("tcp://host"):
        farm.tell(events.ServerAdded(server.place))


def play(seed: int, shape: Shape, servers: int, tally: Tally, until: float = inf) -> None:
    """One render. `until`: a time of time.monotonic at which it comes to its end early."""
    farm, faults = build(seed, shape, servers)
    tally.growth = []
    milestone = shape.events // LOOKS
    try:
        begin(farm, faults)
        while farm.finished is None:
            farm.step()
            if farm.told >= milestone:
                tally.growth.append((farm.told, deep_size(farm.broker)))
                milestone += shape.events // LOOKS
            if until < inf and farm.told % 256 == 0 and time.monotonic() > until:
                farm.ends_at = min(farm.ends_at, farm.told)
        _settle(farm)
        _check_growth(shape, tally)
    except BaseException as error:
        error.add_note(tell(seed, farm))
        raise
    _count(tally, farm, faults)


def _settle(farm: ChurnFarm) -> None:
    """Whatever happens after the end changes nothing and frees everybody."""
    farm.broker.check()
    until = farm.now + SETTLE_S
    while farm.agenda and farm.agenda[0][0] < until:
        farm.step()
    farm.check_end()


def _check_growth(shape: Shape, tally: Tally) -> None:
    """The broker remembers no more at the end of a long render than it did in the middle, but for MAX_GROWTH."""
    if shape.events >= LONG and len(tally.growth) == LOOKS:
        sizes = [size for _, size in tally.growth]
        middle, end = max(sizes[LOOKS // 2 - 2 : LOOKS // 2 + 1]), min(sizes[-3:])
        assert end <= MAX_GROWTH * middle, f"the broker's memory grows: {tally.growth}"


def _count(tally: Tally, farm: ChurnFarm, faults: Faults) -> None:
    tally.events += farm.told
    tally.renders += 1
    tally.frames += farm.pictures.rendered
    tally.poisoned += farm.pictures.given_up
    tally.simulated_s += farm.now
    tally.longest_frame_s = max(tally.longest_frame_s, farm.pictures.longest_s)
    tally.faults.update(faults.played)
    tally.notices.update(farm.notices)


def tell(seed: int, farm: ChurnFarm) -> str:
    lines = [
        f"{number} at {now:.6f} {each if isinstance(each, str) else events.title(each)}"
        for number, now, each in farm.story
    ]
    return "\n".join([f"render {seed}, event {farm.told}, {farm.shape}; the last events:", *lines])


def deep_size(broker: Broker) -> int:
    """Bytes of all that the broker remembers: without the live frames, what servers hold of them, and three lists.

    Those are meant to grow: buckets that were given up, callers up to MAX_CALLERS, and losses up to MAX_LOSSES.
    """
    servers = list(broker.fleet)
    passing: list[object] = [broker.frames.live, *broker.frames.live, broker.frames.poisoned, broker.links.lost]
    passing += [thing for server in servers for thing in (server.running, server.queued, server.failed)]
    callers = [server for server in servers if server.dials_in]
    passing += [*callers, broker.fleet.servers, broker.fleet.holders]
    passing += [name for server in callers for name in (server.endpoint, server.boot)]
    seen = {id(each) for each in passing}
    size, stack = 0, [broker.fleet, broker.links, broker.frames, broker.membership, broker.dispatch, broker.hearing]
    stack += [server for server in servers if not server.dials_in]
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(thing, type) or callable(thing):
            continue
        seen.add(id(thing))
        size += sys.getsizeof(thing)
        stack += gc.get_referents(thing)
    return size


def small_shape(chance: Random) -> Shape:
    """A small render in which the broker's books are checked after every event."""
    return Shape(
        events=4000,
        buckets=(8, 60),
        check_every=1,
        fault_every_s=chance.choice((0.05, 0.1, 0.3)),
        max_servers=chance.choice((0, 0, 4, 6)),
        patient=chance.random() < 0.5,
        restart=chance.random() < 0.5,
    )


def shapes(chance: Random, length: int) -> Iterator[Shape]:
    """Large renders, each with limits of its own."""
    while True:
        yield Shape(
            events=length,
            buckets=(200, 2000),
            check_every=1000,
            max_servers=chance.choice((0, 0, 10, 40)),
            patient=chance.random() < 0.5,
            restart=chance.random() < 0.5,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--render-events", type=int, default=1_000_000, help="of one render")
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args()
    seed = int.from_bytes(os.urandom(4)) if options.seed is None else options.seed
    chance, tally, began = Random(seed), Tally(), time.monotonic()
    print(f"seed {seed}", flush=True)
    for shape in shapes(chance, min(options.render_events, options.events)):
        play(chance.getrandbits(32), shape, options.servers, tally)
        seconds = time.monotonic() - began
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{tally.events} events, {tally.events / seconds:.0f}/s, peak {peak_mb:.0f} MB; {tally}", flush=True)
        if tally.events >= options.events:
            break


if __name__ == "__main__":
    main()
