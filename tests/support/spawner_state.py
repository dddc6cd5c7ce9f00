"""Shorthand for tests of the spawner's state: what servers say, and states that have come some way."""

from __future__ import annotations

from dr.protocol.messages import Announcement, Availability
from workers.spawner.commands import Announce, Command, Level, Log, StartServer
from workers.spawner.events import ServerExited, ServerListening, ServerReported
from workers.spawner.state import Patience, Slot, SpawnerState

READY, BUSY, DRAINING, GONE = Availability.READY, Availability.BUSY, Availability.DRAINING, Availability.GONE
SLOTS = (Slot(30000, "node 0"), Slot(30001, "node 2,3"))
PATIENCE = Patience(listen_s=1e9)  # servers of these tests need not say that they listen
SIGKILLED = (-9, "killed by SIGKILL")


def said(state: Availability, slot: int = 0, holder: str = "", boot: bytes = b"bootboot") -> Announcement:
    return Announcement(version=1, port=SLOTS[slot].port, boot=boot, state=state, holder=holder)


def started(count: int = 1, now: float = 0.0) -> SpawnerState:
    state = SpawnerState(SLOTS[:count], PATIENCE)
    state.start(now)
    return state


def listening(count: int = 1, now: float = 0.0) -> SpawnerState:
    """Every server listens and is ready."""
    state = started(count, now)
    for slot in range(count):
        state.handle(ServerListening(slot, f"tcp://127.0.0.1:{SLOTS[slot].port}"), now)
        state.handle(ServerReported(slot, said(READY, slot)), now)
    return state


def exited(slot: int = 0, status: int | None = 1, reason: str = "ended with status 1") -> ServerExited:
    return ServerExited(slot, status, reason)


def deeds(commands: list[Command]) -> list[Command]:
    """All but the lines for people."""
    return [command for command in commands if not isinstance(command, Log)]


def lines(commands: list[Command]) -> list[tuple[Level, int | None, str]]:
    return [(command.level, command.slot, command.text) for command in commands if isinstance(command, Log)]


def until(state: SpawnerState, end: float) -> list[tuple[float, Command]]:
    """(time, command) of all that the clock alone brings until `end`, beacons left out."""
    found: list[tuple[float, Command]] = []
    while (deadline := state.next_deadline()) is not None and deadline <= end:
        found += [(deadline, each) for each in deeds(state.tick(deadline)) if not isinstance(each, Announce)]
        assert state.next_deadline() != deadline, "a tick moves its deadline"
    return found


def die(state: SpawnerState, now: float) -> float:
    """When the server in slot 0, which dies now, is started again."""
    state.handle(exited(), now)
    ((start_s, command),) = until(state, now + PATIENCE.backoff_last_s)
    assert command == StartServer(0)
    return start_s
