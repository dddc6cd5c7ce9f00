"""The loops of MikkTSpace: which corners of a mesh share a tangent, and what it is. Knows arrays only.

Mikkelsen, Simulation of Wrinkled Surfaces Revisited (2008), as the standard for normal maps fixes it: vertices that
agree in position, normal and texture coordinates are one; the corners at such a vertex form a group as far as shared
edges and one orientation of the texture carry; a group's tangent is the average of its triangles' texture directions,
weighted by their angles. Corners are counted 3 * triangle + corner. Every loop is linear in the mesh's size.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from workers.kernels.jit import f32, i64, kernel64, u64
from workers.kernels.mathf import HALF_PI, atan2
from workers.kernels.vec3 import frame, load3

SMALLEST = 1.1754943508222875e-38  # the least normal float32: nothing below it counts as a length or an area
NOISE = 1e-6  # what is left of a unit vector below this is rounding of float32 input

# What is known of a triangle
COLLAPSED = 1  # two corners in one place
FREE = 2  # its texture coordinates give no direction: it follows any group
UPRIGHT = 4  # texture and triangle turn the same way round


@kernel64
def row(array, i):
    return float(array[i, 0]), float(array[i, 1]), float(array[i, 2])


@kernel64
def difference(a, b):
    return a[0] - b[0], a[1] - b[1], a[2] - b[2]


@kernel64
def inner(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@kernel64
def combination(a, s, b, t):
    """a * s + b * t"""
    return a[0] * s + b[0] * t, a[1] * s + b[1] * t, a[2] * s + b[2] * t


@kernel64
def unit(a):
    """Direction of a vector; one without length stays as it is."""
    size = math.sqrt(inner(a, a))
    scale = 1.0 / size if size > SMALLEST else 1.0
    return a[0] * scale, a[1] * scale, a[2] * scale


@kernel64
def in_plane(a, normal):
    """Direction of the part of `a` that is at right angles to the unit vector `normal`; zero where that is noise."""
    part = combination(a, 1.0, normal, -inner(a, normal))
    if inner(part, part) <= NOISE * NOISE * inner(a, a):
        return 0.0, 0.0, 0.0
    return unit(part)


@kernel64
def angle_between(a, b):
    """Radians between two unit vectors; a right angle where one of them is zero."""
    sine = math.sqrt(
        (a[1] * b[2] - a[2] * b[1]) ** 2 + (a[2] * b[0] - a[0] * b[2]) ** 2 + (a[0] * b[1] - a[1] * b[0]) ** 2
    )
    cosine = inner(a, b)
    return float(atan2(f32(sine), f32(cosine))) if sine + abs(cosine) > 0.0 else float(HALF_PI)


@kernel64
def weld(words: Any, table: Any, first: Any) -> None:
    """Fills, for each row of u4[vertex, word], the lowest row with the same words.

    `table` is an open hash table: all -1, its size a power of two and larger than the number of rows.
    """
    mask = len(table) - 1
    for i in range(len(words)):
        key = u64(0)
        for k in range(words.shape[1]):
            key = u64((key ^ u64(words[i, k])) * u64(0x9E3779B97F4A7C15))
            key = u64(key ^ (key >> u64(29)))
        slot = i64(key & u64(mask))
        while table[slot] >= 0 and not same_words(words, table[slot], i):
            slot = (slot + 1) & mask
        if table[slot] < 0:
            table[slot] = i
        first[i] = table[slot]


@kernel64
def same_words(words, i, j):
    for k in range(words.shape[1]):  # noqa: SIM110
        if words[i, k] != words[j, k]:
            return False
    return True


@kernel64
def sort_by(order: Any, keys: Any, n_keys: int) -> Any:
    """`order` rearranged by keys[order], stable; keys lie in 0..n_keys - 1."""
    starts = np.zeros(n_keys + 1, np.int64)
    for item in order:
        starts[keys[item] + 1] += 1
    for key in range(n_keys):
        starts[key + 1] += starts[key]
    result = np.empty_like(order)
    for item in order:
        result[starts[keys[item]]] = item
        starts[keys[item]] += 1
    return result


@kernel64
def measure_triangles(positions: Any, uv: Any, triangles: Any, directions: Any, kinds: Any) -> None:
    """Fills each triangle's direction of growing u (f8[triangle, 3], unit) and what is known of it (u1[triangle])."""
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        origin = row(positions, a)
        edge1 = difference(row(positions, b), origin)
        edge2 = difference(row(positions, c), origin)
        edge3 = difference(edge2, edge1)
        if inner(edge1, edge1) == 0.0 or inner(edge2, edge2) == 0.0 or inner(edge3, edge3) == 0.0:
            kinds[t] = COLLAPSED
            continue
        du1, dv1 = float(uv[b, 0]) - float(uv[a, 0]), float(uv[b, 1]) - float(uv[a, 1])
        du2, dv2 = float(uv[c, 0]) - float(uv[a, 0]), float(uv[c, 1]) - float(uv[a, 1])
        area = du1 * dv2 - dv1 * du2
        sign = 1.0 if area > 0.0 else -1.0
        along_u = combination(edge1, sign * dv2, edge2, -sign * dv1)
        along_v = combination(edge1, -sign * du2, edge2, sign * du1)
        kinds[t] = UPRIGHT if area > 0.0 else 0
        shortest = min(math.sqrt(inner(along_u, along_u)), math.sqrt(inner(along_v, along_v)))
        if not (abs(area) > SMALLEST and shortest > SMALLEST):
            kinds[t] |= FREE
            continue
        directions[t, 0], directions[t, 1], directions[t, 2] = unit(along_u)


@kernel64
def list_edges(triangles: Any, kinds: Any, lows: Any, highs: Any, order: Any) -> int:
    """Fills the lower and the higher vertex of each edge (from corner k to k + 1), and counts those of sound triangles.

    `order` begins with the numbers of those, 3 * triangle + k.
    """
    count = 0
    for t in range(len(triangles)):
        for k in range(3):
            here, there = triangles[t, k], triangles[t, (k + 1) % 3]
            lows[3 * t + k], highs[3 * t + k] = min(here, there), max(here, there)
            if kinds[t] & COLLAPSED == 0:
                order[count] = 3 * t + k
                count += 1
    return count


@kernel64
def link_edges(triangles: Any, lows: Any, highs: Any, order: Any, across: Any) -> None:
    """Fills the triangle across each edge, i4[triangle, 3], which comes as -1: there is none.

    `order` holds edges by lower vertex, higher vertex, triangle. The triangle across runs the edge the other way;
    where many share an edge, the first that runs it one way is linked with the first that runs it the other way, and
    so on.
    """
    begin = 0
    while begin < len(order):
        low, high = lows[order[begin]], highs[order[begin]]
        end = begin
        while end < len(order) and lows[order[end]] == low and highs[order[end]] == high:
            end += 1
        rising, falling = begin, begin
        while True:
            while rising < end and triangles[order[rising] // 3, order[rising] % 3] != low:
                rising += 1
            while falling < end and triangles[order[falling] // 3, order[falling] % 3] == low:
                falling += 1
            if rising == end or falling == end:
                break
            there, back = order[rising], order[falling]
            across[there // 3, there % 3] = back // 3
            across[back // 3, back % 3] = there // 3
            rising += 1
            falling += 1
        begin = end


@kernel64
def grow_groups(triangles: Any, across: Any, kinds: Any, groups: Any, founders: Any) -> int:
    """Fills each corner's group, which comes as -1 (none), and the triangle that began each group; gives their number.

    A free triangle takes the orientation of the first group that reaches it; `kinds` then says so.
    """
    stack = np.empty(len(triangles) + 2, np.int32)
    count = 0
    for founder in range(len(triangles)):
        if kinds[founder] & (COLLAPSED | FREE) != 0:
            continue
        for corner in range(3):
            if groups[founder, corner] >= 0:
                continue
            founders[count] = founder
            stack[0] = founder
            depth = 1
            while depth > 0:
                depth -= 1
                t = stack[depth]
                if t < 0:
                    continue
                k = corner_at(triangles, t, triangles[founder, corner])
                if groups[t, k] >= 0:
                    continue
                if kinds[t] & FREE != 0 and max(groups[t, 0], max(groups[t, 1], groups[t, 2])) < 0:
                    kinds[t] = FREE | (kinds[founder] & UPRIGHT)
                if (kinds[t] ^ kinds[founder]) & UPRIGHT != 0:
                    continue
                groups[t, k] = count
                stack[depth] = across[t, (k + 2) % 3]
                stack[depth + 1] = across[t, k]
                depth += 2
            count += 1
    return count


@kernel64
def corner_at(triangles, t, vertex):
    if triangles[t, 0] == vertex:
        return 0
    return 1 if triangles[t, 1] == vertex else 2


@kernel64
def average_tangents(
    positions: Any, normals: Any, triangles: Any, directions: Any, kinds: Any, groups: Any, sums: Any
) -> None:
    """Turns `sums`, zeros f8[group, 4], into the tangent of each group: unit, or zero where directions cancel.

    The fourth number is the sum of the group's angles.
    """
    for t in range(len(triangles)):
        if kinds[t] & FREE != 0:
            continue
        for k in range(3):
            group = groups[t, k]
            if group < 0:
                continue
            here = triangles[t, k]
            normal, point = unit(row(normals, here)), row(positions, here)
            following = in_plane(difference(row(positions, triangles[t, (k + 1) % 3]), point), normal)
            preceding = in_plane(difference(row(positions, triangles[t, (k + 2) % 3]), point), normal)
            angle = max(angle_between(following, preceding), NOISE)  # a needle alone still has its say
            direction = in_plane(row(directions, t), normal)
            for axis in range(3):
                sums[group, axis] += angle * direction[axis]
            sums[group, 3] += angle
    for group in range(len(sums)):
        average = row(sums, group)
        known = math.sqrt(inner(average, average)) > NOISE * sums[group, 3]
        sums[group, 0], sums[group, 1], sums[group, 2] = unit(average) if known else (0.0, 0.0, 0.0)


@kernel64
def adopt_corners(triangles: Any, groups: Any, first: Any) -> None:
    """Gives corners without a group the first group at their vertex, if there is one. `first` is -1 for each vertex."""
    for t in range(len(triangles)):
        for k in range(3):
            if groups[t, k] >= 0 and first[triangles[t, k]] < 0:
                first[triangles[t, k]] = groups[t, k]
    for t in range(len(triangles)):
        for k in range(3):
            if groups[t, k] < 0:
                groups[t, k] = first[triangles[t, k]]


@kernel64
def split_vertices(triangles: Any, groups: Any, order: Any, olds: Any, group_of: Any) -> int:
    """One vertex for each pair of a vertex and a group; the lowest group keeps the number, others are appended.

    `order` holds all corners by vertex, then group. Rewrites `triangles` to the new vertices and gives their count;
    `olds` and `group_of` get each new vertex's old one and group, and come as the vertices were, in no group.
    """
    count = len(olds) - len(order)
    previous, previous_group, current = -1, -1, -1
    for item in order:
        vertex, group = triangles[item // 3, item % 3], groups[item // 3, item % 3]
        if vertex != previous:
            current = vertex
        elif group != previous_group:
            current = count
            count += 1
        previous, previous_group = vertex, group
        olds[current] = vertex
        group_of[current] = group
        triangles[item // 3, item % 3] = current
    return count


@kernel64
def write_tangents(normals: Any, group_of: Any, averages: Any, upright: Any, tangents: Any) -> None:
    """Fills each vertex's tangent f4[vertex, 4]; where its group gives none, any at right angles to the normal."""
    for i in range(len(normals)):
        group = group_of[i]
        direction = row(averages, group) if group >= 0 else (0.0, 0.0, 0.0)
        if inner(direction, direction) < 0.5:
            tangent, _ = frame(load3(normals, i))
            direction = float(tangent.x), float(tangent.y), float(tangent.z)
        tangents[i, 0], tangents[i, 1], tangents[i, 2] = direction
        tangents[i, 3] = -1.0 if group >= 0 and upright[group] else 1.0
