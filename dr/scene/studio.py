"""The light of a scene that has none: a soft studio, an environment computed by formula. Knows no scene and no file.

A constant environment lights every side alike and hides all form. This one has a grey surround, brighter from above,
and one broad lamp at the upper left of the default camera. A white matte surface that faces the lamp reflects 1.
"""

from __future__ import annotations

import numpy as np

from dr.scene import trig
from dr.scene.matrix import normalize
from dr.scene.model import F64, Image

WIDTH, HEIGHT = 512, 256  # a texel, 0.7 degrees, differs too little from its neighbours for a mirror to show it
SURROUND = 0.3  # radiance from everywhere
ABOVE = 0.2  # added at the zenith, half of it at the horizon
LAMP = 1.5  # added in the middle of the lamp; half of it 33 degrees away
TO_LAMP = normalize((-0.6, 0.9, 0.5))


def studio_image() -> Image:
    """The environment as a Radiance HDR file, the same bytes on every machine."""
    mantissa, exponent = np.frexp(studio_radiance())
    grey = (mantissa * 256.0).astype(np.uint8)
    pixels = np.stack([grey, grey, grey, (exponent + 128).astype(np.uint8)], axis=-1)
    header = f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {HEIGHT} +X {WIDTH}\n"
    return Image(data=header.encode() + pixels.tobytes(), place="the neutral environment")


def studio_radiance() -> F64:
    """Radiance by direction, f8[HEIGHT, WIDTH], in the layout of EnvironmentLight."""
    elevations = [(0.5 - (row + 0.5) / HEIGHT) * trig.PI for row in range(HEIGHT)]
    azimuths = [((column + 0.5) / WIDTH - 0.5) * 2.0 * trig.PI for column in range(WIDTH)]
    up = np.array([[trig.sin(angle)] for angle in elevations])
    level = np.array([[trig.cos(angle)] for angle in elevations])
    along_x = level * np.array([trig.cos(angle) for angle in azimuths])
    along_z = level * np.array([trig.sin(angle) for angle in azimuths])

    near = (1.0 + along_x * TO_LAMP[0] + up * TO_LAMP[1] + along_z * TO_LAMP[2]) * 0.5  # 1 towards the lamp, 0 opposite
    fourth = near * near * near * near
    radiance: F64 = SURROUND + ABOVE * (0.5 + 0.5 * up) + LAMP * (fourth * fourth)
    return radiance
