"""The kinds of light, as numbers in LIGHT records."""

from enum import IntEnum


class LightKind(IntEnum):
    TRIANGLE = 0
    QUAD = 1
    POINT = 2
    SPOT = 3
    DIRECTIONAL = 4
    ENVIRONMENT = 5


TRIANGLE = int(LightKind.TRIANGLE)
QUAD = int(LightKind.QUAD)
POINT = int(LightKind.POINT)
SPOT = int(LightKind.SPOT)
DIRECTIONAL = int(LightKind.DIRECTIONAL)
ENVIRONMENT = int(LightKind.ENVIRONMENT)
