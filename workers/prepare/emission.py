"""How bright each emissive triangle is on average. Knows textures only through probes; knows no light record."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from dr.scene.model import Scene
from workers.prepare.textures import DecodedImages

Array = npt.NDArray[Any]
PROBES = 6  # along each edge: 21 points per triangle at which a textured emission is looked at
BARYCENTRICS = [((i + 1 / 3) / PROBES, (j + 1 / 3) / PROBES) for i in range(PROBES) for j in range(PROBES - i)]


def mean_emission(scene: Scene, triangles: Array, vertices: Array, images: DecodedImages) -> Array:
    """Radiance [n, 3] of TRIANGLE rows, averaged over a grid of probes where the emission is textured."""
    emission = np.array([material.emission for material in scene.materials], np.float64)
    result: Array = emission[triangles["material"]]
    for index, material in enumerate(scene.materials):
        texture = material.emission_texture
        if texture is None or max(material.emission) <= 0:
            continue
        mine = np.nonzero(triangles["material"] == index)[0]
        first = 2 * texture.uv_set
        uv = vertices["uv"][triangles["vertices"][mine]][..., first : first + 2]
        total = np.zeros((len(mine), 3))
        for b1, b2 in BARYCENTRICS:
            total += images.probe(texture, uv[:, 0] * (1 - b1 - b2) + uv[:, 1] * b1 + uv[:, 2] * b2)
        result[mine] *= total / len(BARYCENTRICS)
    return result
