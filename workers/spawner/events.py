"""What may happen to a spawner, as past facts. Knows no process, socket or clock.

A *slot* is the index of a placement in the plan: the servers that fill it come and go, the slot stays.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from dr.protocol.messages import Announcement


class ServerListening(Struct, frozen=True):
    """The server in this slot may be dialled."""

    slot: int
    endpoint: str


class ServerReported(Struct, frozen=True):
    """The server in this slot says what it has to offer now."""

    slot: int
    announcement: Announcement


class ServerExited(Struct, frozen=True):
    """The process in this slot has ended, or could not be started.

    `reason` is for people: how it ended ("killed by SIGKILL", "ended with status 2: ..."), or why it did not start.
    """

    slot: int
    status: int | None  # exit status; negative: minus the signal's number; None: could not be started
    reason: str


class StopRequested(Struct, frozen=True):
    """A signal or another process asks the spawner to end; the second time it shall hurry."""

    reason: str


class ReloadRequested(Struct, frozen=True):
    """SIGHUP: the settings may have changed."""


class SettingsRead(Struct, frozen=True):
    """The settings are read anew; servers that start from now on have them. `changed`: the names, sorted."""

    changed: tuple[str, ...]


class SettingsRefused(Struct, frozen=True):
    """The settings cannot be read; the old ones stay."""

    error: str


Event: TypeAlias = (
    ServerListening | ServerReported | ServerExited | StopRequested | ReloadRequested | SettingsRead | SettingsRefused
)
