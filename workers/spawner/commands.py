"""What the state may ask its loop to do. Knows nothing of how it is done.

A server may have ended when the state does not know it yet: then there is nobody to ask or to kill, and nothing to do.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

from msgspec import Struct

from dr.protocol.messages import Announcement


class StartServer(Struct, frozen=True):
    """Starts the server of a slot: ServerListening and ServerReported follow, ServerExited in any case at last."""

    slot: int


class AskToStop(Struct, frozen=True):
    """Lets the server return what it renders and then end."""

    slot: int


class AskToRestart(Struct, frozen=True):
    """Lets the server end as soon as no client holds it, with the status that asks for a restart."""

    slot: int


class Kill(Struct, frozen=True):
    """Ends the server's process at once."""

    slot: int


class Announce(Struct, frozen=True):
    """Publishes this and keeps it as the last value of its port."""

    announcement: Announcement


class RereadSettings(Struct, frozen=True):
    """Reads the settings anew: SettingsRead or SettingsRefused follows."""


class Level(IntEnum):
    """logging's own numbers."""

    INFO = 20
    WARNING = 30
    ERROR = 40


class Log(Struct, frozen=True):
    """One line for the log and the terminal. `slot` names the server that it is about."""

    level: Level
    text: str
    slot: int | None = None


class Exit(Struct, frozen=True):
    """Every server is gone: ends the spawner with this status."""

    status: int


Command: TypeAlias = StartServer | AskToStop | AskToRestart | Kill | Announce | RereadSettings | Log | Exit
