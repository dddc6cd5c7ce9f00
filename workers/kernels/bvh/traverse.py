"""Finds what a ray hits: `closest_hit` and `any_hit`, the only door to the tree. Knows no materials and no shading.

Boxes: slabs with a slack that covers every rounding (after Ize 2013, Robust BVH Ray Traversal), so none that is hit is
missed: that of the planes is in the tree, that of the origin in RayLanes.
Triangles: projected along the ray onto a coordinate plane (Woop, Benthin, Wald 2013, Watertight Ray/Triangle
Intersection). A corner projects to the same point for every triangle that has it, the sign of an edge function is
exact, and zero counts as inside: no ray passes between two triangles that share an edge, none is caught by a triangle
beside it. Distances interpolate the corners' depths and so never leave the triangle's box.
"""

from __future__ import annotations

import math
from collections import namedtuple

from workers.kernels.bvh.build import CHILD_ROW, LEAVE, MAX_DEPTH
from workers.kernels.jit import bits_float, f32, float_bits, i32, i64, inner_kernel, kernel, stack_array
from workers.kernels.records import CULL_FLAG, ID_MASK, NODE_FLOATS, PACK_FLOATS, floats, instances, ints
from workers.kernels.shapes.surface import transform_direction, transform_point
from workers.kernels.simd import (
    LANES,
    as_ints,
    extract,
    first_bit,
    last_bit,
    load_f8,
    load_i8,
    mask_bits,
    reduce_min,
    select,
    splat_f8,
    splat_i8,
    store_i8,
    vfma,
    vmax,
    vmin,
)

# A node pushes at most 7 children; a world tree, the mark of an instance and the instance's tree are under way at once
STACK = 7 * MAX_DEPTH * 2 + 2
DONE = i32(~0x7FFFFFF0)  # as a child: the leaf of no instance, at the bottom of the stack
SLACK = 1.0000004  # on the best distance, when boxes are compared with it: as many roundings as theirs
ORIGIN_SLACK = 4.8e-7  # of |origin|, eight roundings: covers those of 1 / d, origin / d and the slab products
SMALLEST_SLACK = 1e-12  # the same for an origin of zero, so that a ray along a box's plane is inside the box
LARGEST_INVERSE = 1e24  # stands for 1/0
ID_ROW = 9 * LANES
CHILD_MASK = i64(0xFFFFFFFF)
NEVER = i32(0x7FFFFFFF)
ALWAYS = i32(-0x80000000)  # as the distance of a key: popped however near the best hit is
NO_HIT = i64(0x7FFFFFFFFFFFFFFF)

key_stack = stack_array("i8", STACK)
child_stack = stack_array("i4", STACK)
lane_distances = stack_array("i4", LANES)

# The ray as nodes and packs want it, every number in all lanes. slab_near, slab_far: -origin / d, moved outwards by the
# slack; near_*, far_*: row of a node's near and far planes. kx, ky, kz: rows of a corner in a pack, kz along the ray's
# largest component; shear_x, shear_y: d_kx / d_kz and d_ky / d_kz; scale_z: 1 / d_kz.
RayLanes = namedtuple(
    "RayLanes",
    "inverse_x inverse_y inverse_z slab_near_x slab_near_y slab_near_z slab_far_x slab_far_y slab_far_z "
    "near_x near_y near_z far_x far_y far_z "
    "kx ky kz origin_kx origin_ky origin_kz shear_x shear_y scale_z",
)


@kernel
def _slab(o, d):
    inverse = f32(1.0) / d if abs(d) > 1.0 / LARGEST_INVERSE else f32(math.copysign(f32(LARGEST_INVERSE), d))
    slack = (abs(o) * f32(ORIGIN_SLACK) + f32(SMALLEST_SLACK)) * abs(inverse)
    middle = -o * inverse
    return inverse, middle - slack, middle + slack


@inner_kernel
def _ray_lanes(o, d):
    ix, near_x, far_x = _slab(o.x, d.x)
    iy, near_y, far_y = _slab(o.y, d.y)
    iz, near_z, far_z = _slab(o.z, d.z)
    row_x = 0 if ix >= 0.0 else 8
    row_y = 16 if iy >= 0.0 else 24
    row_z = 32 if iz >= 0.0 else 40
    ax, ay, az = abs(d.x), abs(d.y), abs(d.z)
    if ax >= ay and ax >= az:
        kx, ky, kz, okx, oky, okz, dkx, dky, dkz = 8, 16, 0, o.y, o.z, o.x, d.y, d.z, d.x
    elif ay >= az:
        kx, ky, kz, okx, oky, okz, dkx, dky, dkz = 16, 0, 8, o.z, o.x, o.y, d.z, d.x, d.y
    else:
        kx, ky, kz, okx, oky, okz, dkx, dky, dkz = 0, 8, 16, o.x, o.y, o.z, d.x, d.y, d.z
    scale = f32(1.0) / dkz
    return RayLanes(
        splat_f8(ix), splat_f8(iy), splat_f8(iz),
        splat_f8(near_x), splat_f8(near_y), splat_f8(near_z),
        splat_f8(far_x), splat_f8(far_y), splat_f8(far_z),
        row_x, row_y, row_z, 8 - row_x, 40 - row_y, 72 - row_z,
        kx, ky, kz,
        splat_f8(okx), splat_f8(oky), splat_f8(okz),
        splat_f8(dkx * scale), splat_f8(dky * scale), splat_f8(scale),
    )  # fmt: skip


@inner_kernel
def _box_distances(nodes, base, ray, tmin, reach):
    """Where the ray enters and leaves the 8 boxes of a node; it meets those with entry <= exit."""
    x = vfma(load_f8(nodes, base + ray.near_x), ray.inverse_x, ray.slab_near_x)
    y = vfma(load_f8(nodes, base + ray.near_y), ray.inverse_y, ray.slab_near_y)
    z = vfma(load_f8(nodes, base + ray.near_z), ray.inverse_z, ray.slab_near_z)
    entry = vmax(vmax(x, y), vmax(z, tmin))
    x = vfma(load_f8(nodes, base + ray.far_x), ray.inverse_x, ray.slab_far_x)
    y = vfma(load_f8(nodes, base + ray.far_y), ray.inverse_y, ray.slab_far_y)
    z = vfma(load_f8(nodes, base + ray.far_z), ray.inverse_z, ray.slab_far_z)
    return entry, vmin(vmin(x, y), vmin(z, reach))


@inner_kernel
def _sheared_corner(packs, base, ray):
    """One corner of 8 triangles, seen from the ray: across it in x and y, z along its dominant axis."""
    z = load_f8(packs, base + ray.kz) - ray.origin_kz
    x = load_f8(packs, base + ray.kx) - ray.origin_kx
    y = load_f8(packs, base + ray.ky) - ray.origin_ky
    return vfma(-ray.shear_x, z, x), vfma(-ray.shear_y, z, y), z


@inner_kernel
def _edge(ax, ay, bx, by):
    """ax by - ay bx to 1.5 units in the last place, so its sign is right (Jeannerod, Louvet, Muller 2013)."""
    product = ay * bx
    return vfma(ax, by, -product) + vfma(-ay, bx, product)


@inner_kernel
def _triangle_hits(packs, base, ray, tmin, tmax):
    """Which of 8 triangles the ray meets with tmin < t <= tmax: mask, distance, edge functions of p1 and p2, their sum.

    A triangle that has no area, or none as seen along the ray, has sum 0 and t NaN: never hit.
    """
    ax, ay, az = _sheared_corner(packs, base, ray)
    bx, by, bz = _sheared_corner(packs, base + 24, ray)
    cx, cy, cz = _sheared_corner(packs, base + 48, ray)
    u = _edge(cx, cy, bx, by)
    v = _edge(ax, ay, cx, cy)
    w = _edge(bx, by, ax, ay)
    total = u + v + w
    t = vfma(u, az, vfma(v, bz, w * cz)) * ray.scale_z / total
    inside = (vmin(vmin(u, v), w) >= 0.0) | (vmax(vmax(u, v), w) <= 0.0)
    return inside & (t > tmin) & (t <= tmax), t, v, w, total


@inner_kernel
def _passed_backs(ids, ray, total):
    """Lanes whose triangle turns its back and lets rays pass; dot(d, cross(e1, e2)) has the sign of -total / d_kz."""
    return ((ids & i32(CULL_FLAG)) != 0) & (total * ray.scale_z < 0.0)


@kernel
def _to_object(instance, o, d):
    """The ray as the instance's mesh sees it; d keeps its scale, so that distances stay the world's."""
    return transform_point(instance.to_object, o), transform_direction(instance.to_object, d)


@kernel
def _key(distance_bits, child):
    """Orders children by distance (not negative, so its bits are in order), then by number."""
    return (i64(distance_bits) << 32) | (i64(child) & CHILD_MASK)


@inner_kernel
def _push_sorted(children, base, bits, entry, stack, top):
    """Pushes the children in `bits` (two or more), the farthest first; returns the nearest, popped, and the new top."""
    distances = lane_distances()
    store_i8(distances, 0, as_ints(entry))
    base += CHILD_ROW
    lane = first_bit(bits)
    bits &= bits - i32(1)
    first = _key(distances[lane], children[base + lane])
    lane = first_bit(bits)
    bits &= bits - i32(1)
    second = _key(distances[lane], children[base + lane])
    a, b = min(first, second), max(first, second)
    if bits == 0:
        stack[top] = b
        return i32(a & CHILD_MASK), top + 1
    lane = first_bit(bits)
    bits &= bits - i32(1)
    third = _key(distances[lane], children[base + lane])
    middle, c = min(b, third), max(b, third)
    a, b = min(a, middle), max(a, middle)
    stack[top] = c
    stack[top + 1] = b
    if bits == 0:
        return i32(a & CHILD_MASK), top + 2
    bottom = top
    stack[top + 2] = a
    top += 3
    while bits != 0:
        lane = first_bit(bits)
        bits &= bits - i32(1)
        key = _key(distances[lane], children[base + lane])
        place = top
        while place > bottom and stack[place - 1] < key:
            stack[place] = stack[place - 1]
            place -= 1
        stack[place] = key
        top += 1
    top -= 1
    return i32(stack[top] & CHILD_MASK), top


@inner_kernel
def _pop(stack, top, reach_bits):
    """The next child that begins no farther than the best hit. DONE lies at the bottom, so there always is one."""
    top -= 1
    key = stack[top]
    while i32(key >> 32) > reach_bits:
        top -= 1
        key = stack[top]
    return i32(key & CHILD_MASK), top


@kernel
def closest_hit(scene, o, d, tmin, tmax):
    """The nearest triangle on the ray o + t d with tmin < t < tmax, tmin >= 0; `scene` is a record of dtype SCENE.

    Returns (triangle, instance, t, u, v, flags): the id without flags or -1, the instance or -1 for the world, t (tmax
    where nothing is hit), barycentrics of p1 and p2 (the point is p0 (1 - u - v) + p1 u + p2 v), the id's flags. Backs
    of CULL_FLAG triangles are passed, ALPHA_FLAG triangles are reported. At equal t the smallest (instance, id) wins.
    """
    nodes, children, packs = floats(scene.nodes), ints(scene.nodes), floats(scene.packs)
    stack = key_stack()
    stack[0] = _key(ALWAYS, DONE)
    top = 1
    ray = _ray_lanes(o, d)
    nearest = splat_f8(tmin)
    best = bits_float(float_bits(tmax) - i32(1))  # the next float below, so that t <= best is t < tmax
    farthest, reach, reach_bits = splat_f8(best), splat_f8(best * SLACK), float_bits(best * SLACK)
    hit, flags, u, v = NO_HIT, i32(0), f32(0.0), f32(0.0)
    instance = i64(-1)
    node = i32(scene.root) if scene.root >= 0 else DONE
    while True:
        # down to the nearest leaf
        while node >= 0:
            base = i64(node) * NODE_FLOATS
            entry, leave = _box_distances(nodes, base, ray, nearest, reach)
            bits = mask_bits(entry <= leave)
            if bits == 0:
                node, top = _pop(stack, top, reach_bits)
            elif bits & (bits - i32(1)) == 0:
                node = children[base + CHILD_ROW + first_bit(bits)]
            else:
                node, top = _push_sorted(children, base, bits, entry, stack, top)

        code = i64(~node)
        n_packs = code & 15
        if n_packs == 0:
            # into an instance, back to the world, or done
            if node == DONE:
                break
            instance = (code >> 4) - 1
            if instance < 0:
                ray = _ray_lanes(o, d)
                node, top = _pop(stack, top, reach_bits)
            else:
                stack[top] = _key(ALWAYS, i32(LEAVE))
                top += 1
                row = instances(scene.instances)[instance]
                local_o, local_d = _to_object(row, o, d)
                ray = _ray_lanes(local_o, local_d)
                node = i32(row.root)
            continue

        # the leaf's triangles, 8 at a time
        base = (code >> 4) * PACK_FLOATS
        for _ in range(n_packs):
            hits, t, edge_v, edge_w, total = _triangle_hits(packs, base, ray, nearest, farthest)
            if mask_bits(hits) != 0:
                ids = load_i8(packs, base + ID_ROW)
                t_bits = select(hits & ~_passed_backs(ids, ray, total), as_ints(t), splat_i8(NEVER))
                least = reduce_min(t_bits)
                if least != NEVER:
                    lane = first_bit(mask_bits(t_bits == least))
                    distance, tagged = bits_float(least), extract(ids, lane)
                    candidate = ((instance + 1) << 32) | i64(tagged & ID_MASK)
                    if distance < best or candidate < hit:
                        best, hit, flags = distance, candidate, tagged & ~i32(ID_MASK)
                        scale = f32(1.0) / extract(total, lane)
                        u, v = extract(edge_v, lane) * scale, extract(edge_w, lane) * scale
                        farthest, reach = splat_f8(best), splat_f8(best * SLACK)
                        reach_bits = float_bits(best * SLACK)
            base += PACK_FLOATS
        node, top = _pop(stack, top, reach_bits)
    if hit == NO_HIT:
        return i32(-1), i32(-1), f32(tmax), f32(0.0), f32(0.0), i32(0)
    return i32(hit & ID_MASK), i32(hit >> 32) - i32(1), best, u, v, flags


@kernel
def any_hit(scene, o, d, tmin, tmax):
    """Whether anything opaque lies on the ray with tmin < t < tmax, tmin >= 0.

    ALPHA_FLAG triangles and the backs of CULL_FLAG triangles are passed. The largest child is visited first.
    """
    nodes, children, packs = floats(scene.nodes), ints(scene.nodes), floats(scene.packs)
    stack = child_stack()
    stack[0] = DONE
    top = 1
    ray = _ray_lanes(o, d)
    nearest = splat_f8(tmin)
    best = bits_float(float_bits(tmax) - i32(1))
    farthest, reach = splat_f8(best), splat_f8(best * SLACK)
    node = i32(scene.root) if scene.root >= 0 else DONE
    while True:
        while node >= 0:
            base = i64(node) * NODE_FLOATS
            entry, leave = _box_distances(nodes, base, ray, nearest, reach)
            bits = mask_bits(entry <= leave)
            if bits == 0:
                top -= 1
                node = stack[top]
                continue
            base += CHILD_ROW
            lane = last_bit(bits)
            node = children[base + lane]
            bits ^= i32(1) << lane
            while bits != 0:
                stack[top] = children[base + first_bit(bits)]
                top += 1
                bits &= bits - i32(1)

        code = i64(~node)
        n_packs = code & 15
        if n_packs == 0:
            if node == DONE:
                return False
            instance = (code >> 4) - 1
            if instance < 0:
                ray = _ray_lanes(o, d)
                top -= 1
                node = stack[top]
            else:
                stack[top] = LEAVE
                top += 1
                row = instances(scene.instances)[instance]
                local_o, local_d = _to_object(row, o, d)
                ray = _ray_lanes(local_o, local_d)
                node = i32(row.root)
            continue

        base = (code >> 4) * PACK_FLOATS
        for _ in range(n_packs):
            hits, _t, _v, _w, total = _triangle_hits(packs, base, ray, nearest, farthest)
            if mask_bits(hits) != 0:
                ids = load_i8(packs, base + ID_ROW)
                if mask_bits(hits & (ids >= 0) & ~_passed_backs(ids, ray, total)) != 0:
                    return True
            base += PACK_FLOATS
        top -= 1
        node = stack[top]
