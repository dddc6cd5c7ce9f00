"""The path tracer: radiance along one camera path, with next-event estimation, MIS and Russian roulette.

Veach 1997 (power heuristic, chapter 9). Depth counts path segments: the camera ray is 1. A surface that is partly
transparent is passed at random along the path, and weakens shadow rays by its exact transparency.
"""

import math

from workers.kernels.bsdf.dispatch import evaluate_bsdf, prepare_bsdf, sample_bsdf
from workers.kernels.bsdf.material import evaluate_material, hit_alpha, reflecting_normal, visible_normal
from workers.kernels.bvh.traverse import any_hit, closest_hit
from workers.kernels.camera import planar_depth
from workers.kernels.jit import f32, i32, inner_kernel, kernel, u32
from workers.kernels.lights.dispatch import environment_radiance, lights_pdf_hit, sample_lights
from workers.kernels.lights.emission import emitted_radiance
from workers.kernels.records import (
    ALPHA_FLAG,
    EMISSIVE,
    FILM_ALBEDO,
    FILM_ALPHA,
    FILM_BEAUTY,
    FILM_DEPTH,
    FILM_NORMAL,
    FILM_OBJECT_ID,
    lights,
    materials,
    triangles,
)
from workers.kernels.sampling.sobol import sample_1d, sample_2d
from workers.kernels.shapes.surface import (
    hit_material,
    hit_object_id,
    hit_point,
    offset_point,
    shading_normal,
)
from workers.kernels.vec3 import dot, frame, largest, to_local, to_world, vec3

# Dimensions of the sample sequence. Camera: 0 and 1; each depth then takes DIMENSIONS_PER_DEPTH of them.
FIRST_DIMENSION = 2
DIMENSIONS_PER_DEPTH = 3
LIGHT, DIRECTION, ROULETTE = 0, 1, 2
ALPHA_DIMENSION = 1 << 20  # transparent surfaces passed take their own dimensions from here on
MAX_PASSED = 256  # transparent surfaces along one path or shadow ray; what lies behind more is lost

INFINITE = f32(1e30)
CAMERA_PDF = f32(-1.0)  # no light sampling competes with a camera ray
SHADOW_SHORTEN = f32(1.0 - 1e-4)
ROULETTE_LIMIT = f32(0.95)


@kernel
def power_heuristic(a, b):
    """Weight of the strategy with density `a` against one with density `b`."""
    if a <= f32(0.0):
        return f32(0.0)
    ratio = b / a
    return f32(1.0) / (f32(1.0) + ratio * ratio)


@inner_kernel
def transmittance(scene, p, wi, distance):
    """Share of light that gets over `distance` along `wi`: 0 behind opaque surfaces, else the product of 1 - alpha."""
    if any_hit(scene, p, wi, f32(0.0), distance):
        return f32(0.0)
    through = f32(1.0)
    if scene.has_alpha == 0:
        return through
    tmin = f32(0.0)
    for _ in range(MAX_PASSED):
        triangle, instance, t, b1, b2, _flags = closest_hit(scene, p, wi, tmin, distance)
        if triangle < 0:
            return through
        through = through * (f32(1.0) - hit_alpha(scene, triangle, instance, b1, b2))
        if through <= f32(0.0):
            return f32(0.0)
        tmin = t
    return f32(0.0)


@inner_kernel
def direct_light(scene, p, state, normal, geometric, tangent, bitangent, wo, pixel, sample, dimension):
    """One light's contribution at `p` towards `wo`, weighted against BSDF sampling."""
    u1, u2 = sample_2d(pixel, sample, u32(dimension + LIGHT))
    wi_world, distance, radiance, pdf, hittable = sample_lights(scene, p, u1, u2)
    black = vec3(0.0, 0.0, 0.0)
    if pdf <= f32(0.0) or largest(radiance) <= f32(0.0) or dot(wi_world, geometric) <= f32(0.0):
        return black
    wi = to_local(wi_world, tangent, bitangent, normal)
    if wi.z <= f32(0.0):
        return black
    throughput, bsdf_pdf = evaluate_bsdf(state, wo, wi)
    if largest(throughput) <= f32(0.0):
        return black
    through = transmittance(scene, p, wi_world, distance * SHADOW_SHORTEN)
    if through <= f32(0.0):
        return black
    weight = through / pdf
    if hittable:
        weight = weight * power_heuristic(pdf, bsdf_pdf)
    return throughput * radiance * weight


@inner_kernel
def environment_light(scene, direction, bsdf_pdf):
    """Radiance of a ray that left the scene, weighted against light sampling."""
    if scene.environment.light < 0:
        return vec3(0.0, 0.0, 0.0)
    radiance, light_pdf = environment_radiance(scene, direction)
    if bsdf_pdf == CAMERA_PDF:
        return radiance
    return radiance * power_heuristic(bsdf_pdf, light_pdf)


@inner_kernel
def emitted_light(scene, triangle, material, b1, b2, direction, distance, bsdf_pdf, from_front):
    """Radiance of an emissive triangle that a ray has hit, weighted against light sampling."""
    emits_back = triangle.light >= 0 and lights(scene.lights)[triangle.light].two_sided != 0
    if not from_front and not emits_back and triangle.light >= 0:
        return vec3(0.0, 0.0, 0.0)
    radiance = emitted_radiance(scene, triangle, material, b1, b2)
    if bsdf_pdf == CAMERA_PDF or triangle.light < 0:
        return radiance
    return radiance * power_heuristic(bsdf_pdf, lights_pdf_hit(scene, triangle.light, direction, distance))


@kernel
def note_first_hit(scene, film, sample, distance, direction, normal, albedo, object_id):
    """Adds what the film knows of a path's first opaque hit. Depth and object id are sample 0's."""
    film[FILM_ALPHA] += f32(1.0)
    film[FILM_NORMAL] += normal.x
    film[FILM_NORMAL + 1] += normal.y
    film[FILM_NORMAL + 2] += normal.z
    film[FILM_ALBEDO] += albedo.x
    film[FILM_ALBEDO + 1] += albedo.y
    film[FILM_ALBEDO + 2] += albedo.z
    if sample == u32(0):
        film[FILM_DEPTH] = planar_depth(scene, distance, direction)
        film[FILM_OBJECT_ID] = f32(object_id)


@kernel
def trace_path(scene, origin, direction, pixel, sample, film):
    """Follows one path and adds what it finds to `film`, f4[FILM_CHANNELS]."""
    radiance = vec3(0.0, 0.0, 0.0)
    throughput = vec3(1.0, 1.0, 1.0)
    bsdf_pdf = CAMERA_PDF
    tmin = f32(0.0)
    depth = i32(1)
    passed = 0
    while True:
        triangle_index, instance, t, b1, b2, flags = closest_hit(scene, origin, direction, tmin, INFINITE)
        if triangle_index < 0:
            radiance = radiance + throughput * environment_light(scene, direction, bsdf_pdf)
            break

        # pass a transparent surface
        if flags & ALPHA_FLAG != 0:
            alpha = hit_alpha(scene, triangle_index, instance, b1, b2)
            if alpha < f32(1.0) and sample_1d(pixel, sample, u32(ALPHA_DIMENSION + passed)) >= alpha:
                passed += 1
                tmin = t
                if passed >= MAX_PASSED:
                    break
                continue

        # the surface
        triangle = triangles(scene.triangles)[triangle_index]
        material = materials(scene.materials)[hit_material(scene, triangle, instance)]
        p, geometric = hit_point(scene, triangle, instance, b1, b2)
        normal = shading_normal(scene, triangle, instance, b1, b2, geometric)
        from_front = dot(geometric, direction) < f32(0.0)

        if material.flags & EMISSIVE != 0:
            emitted = emitted_light(scene, triangle, material, b1, b2, direction, t, bsdf_pdf, from_front)
            radiance = radiance + throughput * emitted
        if depth >= scene.max_depth and depth > i32(1):
            break

        # its material, seen from this side
        params, normal = evaluate_material(scene, triangle, instance, material, b1, b2, normal)
        if not from_front:
            geometric = -geometric
            normal = -normal
        wo_world = -direction
        normal = visible_normal(normal, wo_world)
        if depth == i32(1):
            object_id = hit_object_id(scene, triangle, instance)
            note_first_hit(scene, film, sample, t, direction, normal, params.base_color, object_id)
            if depth >= scene.max_depth:
                break
        if params.metallic > f32(0.0):
            normal = reflecting_normal(normal, geometric, wo_world, params.metallic)
        tangent, bitangent = frame(normal)
        wo = to_local(wo_world, tangent, bitangent, normal)
        state = prepare_bsdf(params, wo)
        origin = offset_point(scene, p, geometric)
        dimension = FIRST_DIMENSION + DIMENSIONS_PER_DEPTH * (depth - i32(1))

        # light sampling
        if scene.n_lights > 0:
            direct = direct_light(
                scene, origin, state, normal, geometric, tangent, bitangent, wo, pixel, sample, dimension
            )
            radiance = radiance + throughput * direct

        # BSDF sampling
        u1, u2 = sample_2d(pixel, sample, u32(dimension + DIRECTION))
        wi, weight, bsdf_pdf = sample_bsdf(state, wo, u1, u2)
        if bsdf_pdf <= f32(0.0):
            break
        direction = to_world(wi, tangent, bitangent, normal)
        if dot(direction, geometric) <= f32(0.0):
            break
        throughput = throughput * weight
        tmin = f32(0.0)
        depth += i32(1)

        # Russian roulette
        if depth > scene.rr_depth:
            survival = min(largest(throughput), ROULETTE_LIMIT)
            if sample_1d(pixel, sample, u32(dimension + ROULETTE)) >= survival:
                break
            throughput = throughput * (f32(1.0) / survival)

    total = radiance.x + radiance.y + radiance.z
    if math.isfinite(total):  # one bad sample must not spoil a pixel
        film[FILM_BEAUTY] += radiance.x
        film[FILM_BEAUTY + 1] += radiance.y
        film[FILM_BEAUTY + 2] += radiance.z
