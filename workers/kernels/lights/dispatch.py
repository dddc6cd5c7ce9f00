"""Chooses one light by power and samples it. A new kind of light is one file and one line here."""

from workers.kernels.jit import f32, inner_kernel, kernel
from workers.kernels.lights import kinds
from workers.kernels.lights.area import area_pdf, sample_quad, sample_triangle
from workers.kernels.lights.environment import evaluate_environment, sample_environment
from workers.kernels.lights.point import sample_directional, sample_point, sample_spot
from workers.kernels.records import alias_cells, lights
from workers.kernels.sampling.alias import choose


@inner_kernel
def sample_kind(scene, light, p, u1, u2):
    """(wi, distance, radiance, pdf) of one light; pdf is per solid angle, 1 for lights that no ray can hit."""
    if light.kind == kinds.TRIANGLE:
        return sample_triangle(scene, light, p, u1, u2)
    if light.kind == kinds.QUAD:
        return sample_quad(light, p, u1, u2)
    if light.kind == kinds.ENVIRONMENT:
        return sample_environment(scene.environment, u1, u2)
    if light.kind == kinds.DIRECTIONAL:
        return sample_directional(light)
    if light.kind == kinds.SPOT:
        return sample_spot(light, p)
    return sample_point(light, p)


@inner_kernel
def sample_lights(scene, p, u1, u2):
    """Light that reaches `p`: (wi, distance, radiance, pdf with the choice in it, can be hit by a ray).

    `u1` chooses the light; what is left of it goes on to choose the point, so that both are stratified together.
    """
    index, u1 = choose(alias_cells(scene.light_alias), scene.n_lights, u1)
    light = lights(scene.lights)[index]
    wi, distance, radiance, pdf = sample_kind(scene, light, p, u1, u2)
    hittable = (light.kind == kinds.TRIANGLE) | (light.kind == kinds.QUAD) | (light.kind == kinds.ENVIRONMENT)
    if light.hidden != 0:
        hittable = False
    return wi, distance, radiance, pdf * light.probability, hittable


@inner_kernel
def lights_pdf_hit(scene, index, wi, distance):
    """Density with which `sample_lights` makes `wi` towards the area light that a ray has hit at `distance`."""
    if index < 0:
        return f32(0.0)
    light = lights(scene.lights)[index]
    return light.probability * area_pdf(light, wi, distance)


@kernel
def environment_radiance(scene, wi):
    """Radiance of the environment along `wi`, and the density with which `sample_lights` makes that direction."""
    radiance, pdf = evaluate_environment(scene.environment, wi)
    return radiance, pdf * lights(scene.lights)[scene.environment.light].probability
