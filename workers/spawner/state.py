"""Decides when the servers of a host start, start again and stop. Knows no process, socket or clock: `now` comes in.

What a single slot goes through is in workers.spawner.slot; this file is about all of them and who is told what.
`handle` takes an event, `tick` the passing of time; both answer with commands in the order to carry out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from dr.errors import Impossible, printable
from dr.protocol.messages import Announcement, Availability
from workers.server.words import RESTART_STATUS
from workers.server.work import Limits
from workers.spawner import commands as do
from workers.spawner import events as seen
from workers.spawner.commands import Level
from workers.spawner.slot import Patience, Phase, Slot, SlotState

__all__ = ["Patience", "Slot", "SpawnerState"]

START_SETTINGS = frozenset({"announce_port", "bind", "log_folder", "port"})  # a spawner uses these when it starts
SERVER_SETTINGS = frozenset({*Limits.__struct_fields__, "kernel_cache"})  # others are a client's
AGAIN = "see the log, mend the cause, start the spawner again"


class SpawnerState:
    def __init__(self, slots: Sequence[Slot], patience: Patience) -> None:
        """At least one slot; their ports differ."""
        self.patience = patience
        self.slots = [SlotState(slot, patience.backoff_first_s) for slot in slots]
        self.out: list[do.Command] = []
        self.beacon_s: float | None = None  # when everything known is announced again
        self.stopping = False
        self.kill_s: float | None = None  # when the servers that were asked to stop are killed
        self.exited = False

    def start(self, now: float) -> list[do.Command]:
        """Starts every slot; call it once, before anything else."""
        self.beacon_s = now + self.patience.beacon_s
        for number in range(len(self.slots)):
            self._start(number, now)
        return self._finish()

    def handle(self, event: seen.Event, now: float) -> list[do.Command]:
        """After the exit nothing matters any more, and the answer is no command."""
        if not self.exited:
            _REACTIONS[type(event)](self, event, now)
        return self._finish()

    def tick(self, now: float) -> list[do.Command]:
        """What the time asks for; call it at `next_deadline` or later."""
        if not self.exited:
            self._start_waiting(now)
            self._kill_mute(now)
            self._beacon(now)
            if self.kill_s is not None and now >= self.kill_s:
                self._kill(f"it did not leave within {self.patience.stop_s:g} s")
        return self._finish()

    def next_deadline(self) -> float | None:
        """When `tick` has something to do at the latest; None: never, unless something happens."""
        if self.exited:
            return None
        starts = [each.start_s for each in self.slots if each.phase is Phase.WAITING]
        mute = [each.mute_s for each in self.slots if each.mute_s is not None]
        return min((time for time in (*starts, *mute, self.beacon_s, self.kill_s) if time is not None), default=None)

    def check(self) -> None:
        """Raises Impossible when this state cannot be."""
        slots, most = self.slots, self.patience.deaths
        proofs = {
            "each slot has its own port": len({each.slot.port for each in slots}) == len(slots),
            "a slot without a server offers none": all(each.running or not each.offers for each in slots),
            "a slot is given up when its server died too often, and only then": all(
                (each.phase is Phase.GIVEN_UP) == (len(each.deaths_s) >= most) for each in slots
            ),
            "a spawner that stops starts nothing": not self.stopping
            or all(each.running or each.ended for each in slots),
            "only a spawner that stops kills": self.stopping or self.kill_s is None,
            "no server outlives the spawner": not self.exited or all(each.ended for each in slots),
        }
        for proof, true in proofs.items():
            if not true:
                raise Impossible(f"spawner state: expected that {proof}")

    def _finish(self) -> list[do.Command]:
        if not self.exited:
            self._exit_when_done()
        commands = self.out.copy()
        self.out.clear()
        return commands

    def _exit_when_done(self) -> None:
        """A stop that was asked for ends with 0, even if a slot had been given up or a server had to be killed.

        Else a service manager would start the spawner again that `dr spawner stop` has just stopped.
        """
        if self.stopping and all(each.ended for each in self.slots):
            self._exit(0, Level.INFO, "every server has ended")
        elif all(each.phase is Phase.GIVEN_UP for each in self.slots):
            self._exit(1, Level.ERROR, f"no server is left, all were given up: {AGAIN}")

    def _exit(self, status: int, level: Level, text: str) -> None:
        self.exited = True
        self._log(level, text)
        self.out.append(do.Exit(status))

    # -- what servers do ------------------------------------------------------------------------------------------

    def _start(self, number: int, now: float) -> None:
        each = self.slots[number]
        each.begin(self.patience, now)
        self._log(Level.INFO, f"starting ({each.slot.label})", number)
        self.out.append(do.StartServer(number))

    def _start_waiting(self, now: float) -> None:
        for number, each in enumerate(self.slots):
            if each.phase is Phase.WAITING and now >= each.start_s:
                self._start(number, now)

    def _kill_mute(self, now: float) -> None:
        """One that has not come as far as listening never will; its end is a death like others."""
        for number, each in enumerate(self.slots):
            if each.mute_s is not None and now >= each.mute_s:
                each.mute_s = None
                self._log(Level.WARNING, f"killed: it did not listen within {self.patience.listen_s:g} s", number)
                self.out.append(do.Kill(number))

    def _server_listening(self, event: seen.ServerListening, now: float) -> None:
        each = self.slots[event.slot]
        if each.phase is not Phase.STARTING:
            return
        each.listen(now)
        self._log(Level.INFO, f"listening on {event.endpoint} ({each.slot.label})", event.slot)
        if each.outdated and not self.stopping:
            self.out.append(do.AskToRestart(event.slot))

    def _server_reported(self, event: seen.ServerReported, now: float) -> None:
        each, said = self.slots[event.slot], event.announcement
        if not each.running:
            return
        if said.port != each.slot.port:  # it would speak for another server
            found = f"expected reports of port {each.slot.port}, found one of port {said.port}"
            self._log(Level.WARNING, f"{found} and left it out; please report this bug", event.slot)
            return
        first = not each.offers
        self._announce(each, said)
        if first and said.state is Availability.READY:  # whose it is later on, its own log says
            self._log(Level.INFO, "ready", event.slot)

    def _server_exited(self, event: seen.ServerExited, now: float) -> None:
        each = self.slots[event.slot]
        if not each.running:
            return
        asked_for = event.status == RESTART_STATUS and each.phase is Phase.LISTENING  # else it might go on for ever
        each.end(self.patience, now)
        if each.known and each.offers:
            self._announce(each, structs.replace(each.known, state=Availability.GONE, holder=""))
        reason = printable(event.reason)
        how = f"could not be started: {reason}" if event.status is None else reason
        if self.stopping:
            self._log(Level.INFO, f"stopped: {how}" if event.status else "stopped", event.slot)
        elif asked_for:
            self._log(Level.INFO, "asked for a restart", event.slot)
            self._start(event.slot, now)
        else:
            self._count_death(event.slot, how, now)

    def _count_death(self, number: int, how: str, now: float) -> None:
        each = self.slots[number]
        each.count_death(self.patience, now)
        if each.phase is Phase.GIVEN_UP:
            often = f"given up after {len(each.deaths_s)} deaths within {self.patience.deaths_within_s:g} s"
            self._log(Level.ERROR, f"{how}; {often}: {AGAIN}", number)
        else:
            self._log(Level.WARNING, f"{how}; starts again in {each.start_s - now:.3g} s", number)

    # -- what subscribers hear ------------------------------------------------------------------------------------

    def _announce(self, each: SlotState, announcement: Announcement) -> None:
        each.known = announcement
        self.out.append(do.Announce(announcement))

    def _beacon(self, now: float) -> None:
        """Whoever missed a word hears it now: also that a server is gone, for as long as that is true."""
        if self.beacon_s is not None and now >= self.beacon_s:
            self.beacon_s = now + self.patience.beacon_s
            self.out += [do.Announce(each.known) for each in self.slots if each.known]

    # -- what people ask for --------------------------------------------------------------------------------------

    def _stop_requested(self, event: seen.StopRequested, now: float) -> None:
        if self.stopping:
            self._kill(f"asked to stop once more: {event.reason}")
            return
        self.stopping = True
        self._log(Level.INFO, f"stopping: {event.reason}")
        for number, each in enumerate(self.slots):
            if each.running:
                self.out.append(do.AskToStop(number))
                self.kill_s = now + self.patience.stop_s
            elif each.phase is Phase.WAITING:
                each.phase = Phase.EMPTY

    def _kill(self, reason: str) -> None:
        """Whoever is killed once does not survive it: the second time there is nothing to do."""
        if self.kill_s is None:
            return
        self.kill_s = None
        for number, each in enumerate(self.slots):
            if each.running:
                self._log(Level.WARNING, f"killed ({each.slot.label}): {reason}", number)
                self.out.append(do.Kill(number))

    def _reload_requested(self, event: seen.ReloadRequested, now: float) -> None:
        if not self.stopping:
            self.out.append(do.RereadSettings())

    def _settings_read(self, event: seen.SettingsRead, now: float) -> None:
        if self.stopping:
            return
        ours = ", ".join(name for name in event.changed if name in START_SETTINGS)
        theirs = ", ".join(name for name in event.changed if name in SERVER_SETTINGS)
        if not ours and not theirs:
            self._log(Level.INFO, "settings read again: nothing changed that servers use")
        if ours:
            self._log(Level.INFO, f"settings read again: {ours} changed; that waits for the next start of the spawner")
        if theirs:
            self._log(
                Level.INFO, f"settings read again: {theirs} changed; each server restarts once no client holds it"
            )
            self._outdate_servers()

    def _outdate_servers(self) -> None:
        """One that does not listen yet is asked when it does; asking again would not hurry anybody."""
        for number, each in enumerate(self.slots):
            if each.phase is Phase.LISTENING and not each.outdated:
                self.out.append(do.AskToRestart(number))
            each.outdated = True

    def _settings_refused(self, event: seen.SettingsRefused, now: float) -> None:
        if not self.stopping:
            self._log(Level.ERROR, f"{event.error}; the old settings stay")

    def _log(self, level: Level, text: str, slot: int | None = None) -> None:
        self.out.append(do.Log(level, text, slot))


_REACTIONS: dict[type, Callable[[SpawnerState, Any, float], None]] = {
    seen.ServerListening: SpawnerState._server_listening,
    seen.ServerReported: SpawnerState._server_reported,
    seen.ServerExited: SpawnerState._server_exited,
    seen.StopRequested: SpawnerState._stop_requested,
    seen.ReloadRequested: SpawnerState._reload_requested,
    seen.SettingsRead: SpawnerState._settings_read,
    seen.SettingsRefused: SpawnerState._settings_refused,
}
