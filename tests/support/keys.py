"""Key pairs that are the same in each run."""

from __future__ import annotations

import hashlib

import zmq
from zmq.utils import z85

from dr.keys.key import KeyPair, Secret


def pair_of(name: str) -> KeyPair:
    """The pair whose secret half is the digest of `name`: as good as public, for tests only."""
    secret = z85.encode(hashlib.sha256(name.encode()).digest())
    return KeyPair(zmq.curve_public(secret).decode(), Secret(secret.decode()))
