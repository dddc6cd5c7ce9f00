"""The four ways in which things go wrong. Knows nothing of where they are shown."""

from __future__ import annotations


class DrError(Exception):
    """Base of every error that this project raises on purpose; `str()` is one clear line for a person."""


class BadInput(DrError):
    """The user's file, option or setting is wrong. The text names the file and the place, and says what to do."""


class ProtocolError(DrError):
    """A peer sent something that the protocol does not allow. Costs the peer its connection, never the loop."""


class PeerLost(DrError):
    """A peer is gone: closed, killed, silent or unreachable."""


class Refused(DrError):
    """A peer answered and said no: wrong version, wrong key. Final for that peer."""


class Impossible(DrError):
    """A state that cannot be: our own bug. Carries the recent story and stops."""
