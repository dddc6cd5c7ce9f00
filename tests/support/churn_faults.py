"""What goes wrong in the churn, and how often: to processes, cables, lists. Knows nothing of the broker's plans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from random import Random

from msgspec.structs import replace

from dr.broker import events
from dr.broker.fleet import Phase
from dr.protocol.messages import Tile
from tests.support.churn_farm import ChurnFarm, Link
from tests.support.churn_server import ChurnServer

STEADFAST = 3  # servers that never fail: the first of the list
AWAY_S = (0.3, 10.0)
RELIST_S = (1.0, 8.0)


class Faults:
    """Plays one fault after the other, until the farm's events are used up."""

    def __init__(self, farm: ChurnFarm, every_s: float) -> None:
        self.farm, self.every_s = farm, every_s
        self.chance: Random = farm.chance
        self.played: Counter[str] = Counter()
        servers = list(farm.servers.values())
        self.steadfast, self.fickle = servers[:STEADFAST], servers[STEADFAST:]
        self.faults: dict[Callable[[ChurnServer], bool], int] = {
            self.kill: 10,
            self.stop_cleanly: 10,
            self.fall_silent: 8,
            self.cut_the_cable: 5,
            self.break_a_connection: 8,
            self.end_a_lease: 8,
            self.lend_to_another: 10,
            self.edit_the_list: 12,
            self.edit_a_host: 3,
            self.announce: 10,
            self.announce_a_forgery: 4,
            self.repeat_an_old_tile: 10,
            self.say_nonsense: 1,
            self.speak_of_another_epoch: 5,
            self.name_it_twice: 4,
            self.refuse_the_key: 1,
            self.change_manners: 10,
        }
        self.hosts = [place for place in farm.servers if place.startswith("tcp://host") and place.endswith(":20204")]

    def begin(self) -> None:
        self.farm.after(self.chance.expovariate(1 / self.every_s), self._play)

    def _play(self) -> None:
        if self.farm.told >= self.farm.ends_at:
            return
        fault = self.chance.choices(list(self.faults), list(self.faults.values()))[0]
        if fault(self.chance.choice(self.fickle)):
            self.played[fault.__name__] += 1
        self._list_again()
        self.begin()

    def _away_s(self) -> float:
        return self.chance.uniform(*AWAY_S)

    def _list_again(self) -> None:
        """The user brings back one that was set aside, so that the farm does not wither."""
        out = self.farm.broker.fleet.phases[Phase.OUT]
        if len(out) > len(self.fickle) // 4:
            place = self.chance.choice(list(out))
            if place in self.farm.servers and not place.startswith(("ipc:", "here:")):
                self.played["list_again"] += 1
                self.farm.tell(events.ServerAdded(place, whole_host=place in self.hosts))

    # Processes

    def kill(self, server: ChurnServer) -> bool:
        if not server.is_up:
            return False
        self._take_down(server)
        return True

    def stop_cleanly(self, server: ChurnServer) -> bool:
        """It drains; somebody stops it for good when it has had its time."""
        if not server.is_up or server.is_silent:
            return False
        server.drain()
        self.farm.after(self.chance.uniform(0.0, 3.0), self._end_process, server, server.boot)
        return True

    def _end_process(self, server: ChurnServer, boot: bytes) -> None:
        if server.is_up and server.boot == boot:
            self._take_down(server)

    def _take_down(self, server: ChurnServer) -> None:
        for ticket in server.running:
            self.farm.blame(ticket)
        links = self.farm.links_of(server)
        server.stop()
        for link in links:
            self.farm.lose(link, is_deaf=self.chance.random() < 0.5)
        self.farm.after(self._away_s(), self._start, server)

    def _start(self, server: ChurnServer) -> None:
        server.start()
        if self.chance.random() < 0.03:
            server.kernels = "other kernels"
        server.is_sick = self.chance.random() < 0.03
        if server.place.startswith("call"):
            self.farm.call(server, server.boot)
        elif self.chance.random() < 0.5:
            self.announce(server)

    def fall_silent(self, server: ChurnServer) -> bool:
        if not server.is_up or server.is_silent:
            return False
        server.is_silent = True
        self.farm.after(self._away_s(), self._revive, server, server.boot)
        return True

    def _revive(self, server: ChurnServer, boot: bytes) -> None:
        if server.is_up and server.boot == boot:
            server.revive()

    def change_manners(self, server: ChurnServer) -> bool:
        """From now on it is another kind of bad server, or a good one."""
        server.lie = self.chance.choice((1.0, 1.0, 1.0, 0.0, 0.001, 1000.0))
        server.fails = self.chance.choice((0.0, 0.0, 0.0, 0.0, 0.01, 1.0))
        server.hangs = self.chance.choice((0.0, 0.0, 0.0, 0.002, 0.05))
        return True

    # Connections

    def _choose_link(self, server: ChurnServer) -> Link | None:
        links = self.farm.links_of(server)
        return self.chance.choice(links) if links else None

    def break_a_connection(self, server: ChurnServer) -> bool:
        if link := self._choose_link(server):
            self.farm.lose(link, is_deaf=self.chance.random() < 0.5)
        return link is not None

    def cut_the_cable(self, server: ChurnServer) -> bool:
        link = self._choose_link(server)
        if link is None or link.dials_in:
            return False
        link.is_cut = True
        return True

    def end_a_lease(self, server: ChurnServer) -> bool:
        if server.holder is None or server.is_silent:
            return False
        server.lose_client()
        return True

    def lend_to_another(self, server: ChurnServer) -> bool:
        if not server.is_up or server.is_silent or server.is_lent:
            return False
        server.lose_client()
        server.is_lent = True
        self.farm.after(self._away_s(), self._give_back, server, server.boot)
        return True

    def _give_back(self, server: ChurnServer, boot: bytes) -> None:
        if server.is_up and server.boot == boot:
            server.is_lent = False
            server.lend_to_waiter()

    def refuse_the_key(self, server: ChurnServer) -> bool:
        self.farm.tell(events.DialRefused(server.place, "key refused"))
        return True

    # Lies and echoes

    def _hear(self, server: ChurnServer, change: Callable[[Tile], Tile]) -> bool:
        link = self._choose_link(server)
        if link is None or not self.farm.old:
            return False
        old = self.chance.choice(self.farm.old)
        assert isinstance(old, Tile)
        self.farm.say(link.peer, change(old))
        return True

    def repeat_an_old_tile(self, server: ChurnServer) -> bool:
        """A late one of another lease, or one of this lease again, which came first from somebody else."""
        lease = self.chance.choice((None, server.lease))
        return self._hear(server, lambda old: replace(old, lease=lease or old.lease))

    def speak_of_another_epoch(self, server: ChurnServer) -> bool:
        epoch = self.chance.getrandbits(48)
        return self._hear(server, lambda old: replace(old, lease=server.lease or old.lease, epoch=epoch))

    def say_nonsense(self, server: ChurnServer) -> bool:
        link = self._choose_link(server)
        if link is not None:
            self.farm.tell(events.PeerMisbehaved(link.peer, "expected a map, found garbage"))
        return link is not None

    def announce(self, server: ChurnServer) -> bool:
        self.farm.tell(events.ServerAnnounced(server.place, server.boot))
        return True

    def announce_a_forgery(self, server: ChurnServer) -> bool:
        """Of a boot id that is wrong, or of a port of a real host where nobody listens."""
        host, _, _ = server.place.rpartition(":")
        place = self.chance.choice((server.place, f"{host}:{self.chance.randint(30000, 30007)}"))
        self.farm.tell(events.ServerAnnounced(place, b"forgery."))
        return True

    # People

    def edit_the_list(self, server: ChurnServer) -> bool:
        if not server.place.startswith("tcp:"):
            return False
        self.farm.tell(events.ServerRemoved(server.place, "removed from dr.toml"))
        self.farm.after(self.chance.uniform(*RELIST_S), self._list, server.place, False)
        return True

    def edit_a_host(self, server: ChurnServer) -> bool:
        if not self.hosts:
            return False
        place = self.chance.choice(self.hosts)
        self.farm.tell(events.ServerRemoved(place, "removed from dr.toml"))
        self.farm.after(self.chance.uniform(*RELIST_S), self._list, place, True)
        return True

    def _list(self, place: str, is_host: bool) -> None:
        if not self.farm.finished:
            self.farm.tell(events.ServerAdded(place, whole_host=is_host))

    def name_it_twice(self, server: ChurnServer) -> bool:
        """The same server under another address, for a while."""
        if not server.place.startswith("tcp:"):
            return False
        alias = server.place.replace("tcp://", "tcp://alias-of-")
        self.farm.aliases[alias] = server
        self._list(alias, False)
        self.farm.after(self._away_s(), self._unlist, alias)
        return True

    def _unlist(self, place: str) -> None:
        self.farm.tell(events.ServerRemoved(place, "removed from dr.toml"))
