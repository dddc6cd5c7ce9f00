"""One slot of a spawner: which phase its server is in, when the next one starts, and when there have been too many.

Knows no other slot and no clock: `now` comes in, times are in seconds.

    STARTING -> (listens) LISTENING -> (dies) WAITING -> (its pause is over) STARTING
    GIVEN_UP: it died too often; EMPTY: before the start and after the stop
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct, field

from dr.protocol.messages import Announcement, Availability


class Slot(Struct, frozen=True):
    """A placement of the plan, as people know it."""

    port: int
    label: str  # such as "node 2,3"


class Patience(Struct, frozen=True, kw_only=True):
    """How long a spawner waits and how often it tries. No setting: those of the same name are a client's."""

    backoff_first_s: float = 1.0  # pause after the first death; it doubles with each
    backoff_last_s: float = 30.0
    healthy_s: float = 60.0  # a server that has listened for so long makes the next pause the first one again
    listen_s: float = 120.0  # a server that does not listen by then is killed
    deaths: int = 5  # so many within `deaths_within_s` end a slot for good
    deaths_within_s: float = 60.0
    stop_s: float = 4.7  # a server that has not left by then is killed
    beacon_s: float = 1.0


class Phase(StrEnum):
    EMPTY = "empty"  # no server, and none will come
    STARTING = "starting"
    LISTENING = "listening"
    WAITING = "waiting"  # for the next start
    GIVEN_UP = "given up"


class SlotState(Struct):
    """What is known of a slot and of the server in it."""

    slot: Slot
    pause_s: float  # before the start that follows the next death
    phase: Phase = Phase.EMPTY
    start_s: float = 0.0  # when WAITING is over
    mute_s: float | None = None  # while STARTING: when it is killed
    listening_s: float = 0.0  # since when it has been LISTENING
    outdated: bool = False  # settings have changed since its last server began; that one is asked to restart, once
    deaths_s: list[float] = field(default_factory=list)  # when; those within `deaths_within_s` of the last one
    known: Announcement | None = None  # what subscribers heard last

    @property
    def running(self) -> bool:
        """Its process was started, and we have not heard of its end."""
        return self.phase in (Phase.STARTING, Phase.LISTENING)

    @property
    def ended(self) -> bool:
        return self.phase in (Phase.EMPTY, Phase.GIVEN_UP)

    @property
    def offers(self) -> bool:
        """Subscribers believe that there is a server."""
        return self.known is not None and self.known.state is not Availability.GONE

    def begin(self, patience: Patience, now: float) -> None:
        self.phase, self.outdated = Phase.STARTING, False
        self.mute_s = now + patience.listen_s

    def listen(self, now: float) -> None:
        self.phase, self.listening_s, self.mute_s = Phase.LISTENING, now, None

    def end(self, patience: Patience, now: float) -> None:
        """Its process is gone."""
        if self.phase is Phase.LISTENING and now >= self.listening_s + patience.healthy_s:
            self.pause_s = patience.backoff_first_s
        self.phase, self.mute_s = Phase.EMPTY, None

    def count_death(self, patience: Patience, now: float) -> None:
        """The end that it came to was a death: decides between WAITING and GIVEN_UP.

        Every exit status counts alike. Bad input may mean a port that the last server's leftover holds for seconds,
        and what really is bad has used up its deaths soon enough.
        """
        recent_s = [death_s for death_s in self.deaths_s if now < death_s + patience.deaths_within_s]
        self.deaths_s = [*recent_s, now]
        if len(self.deaths_s) >= patience.deaths:
            self.phase = Phase.GIVEN_UP
            return
        self.phase, self.start_s = Phase.WAITING, now + self.pause_s
        self.pause_s = min(2 * self.pause_s, patience.backoff_last_s)
