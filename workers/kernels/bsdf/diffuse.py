"""The diffuse lobe: Lambert's law. Knows neither the layer above it nor how often it is chosen.

Directions are in the local frame, z along the normal, pointing away from the surface.
"""

from __future__ import annotations

from workers.kernels.jit import kernel
from workers.kernels.mathf import INV_PI
from workers.kernels.sampling.warp import cosine_hemisphere, cosine_hemisphere_pdf


@kernel
def sample(u1, u2):
    """A direction with density `pdf`."""
    return cosine_hemisphere(u1, u2)


@kernel
def evaluate(wi):
    """f * cos of a white lobe towards `wi`, wi.z > 0: the colour is the caller's factor."""
    return wi.z * INV_PI


@kernel
def pdf(wi):
    """Density per solid angle of `sample` at `wi`, wi.z > 0."""
    return cosine_hemisphere_pdf(wi.z)
