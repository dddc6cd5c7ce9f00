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

from workers.kernels.jit import f32, kernel64, u64
from workers.kernels.mathf import acos
from workers.kernels.vec3 import frame, load3

SMALLEST = 1.1754943508222875e-38  # the least normal float32: nothing below it counts as a length or an area

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
    """Direction of the part of `a` that is at right angles to the unit vector `normal`."""
    return unit(combination(a, 1.0, normal, -inner(a, normal)))


@kernel64
def weld(words: Any) -> Any:
    """For each row of u4[vertex, word] the lowest row with the same words, by open hashing."""
    count, width = words.shape
    size = 16
    while size < 2 * count:
        size *= 2
    table = np.full(size, -1, np.int64)
    first = np.empty(count, np.int32)
    for i in range(count):
        key = u64(0)
        for k in range(width):
            key = u64((key ^ u64(words[i, k])) * u64(0x9E3779B97F4A7C15))
            key = u64(key ^ (key >> u64(29)))
        slot = np.int64(key & u64(size - 1))
        while table[slot] >= 0 and not same_words(words, table[slot], i):
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = i
        first[i] = table[slot]
    return first


@kernel64
def same_words(words, i, j):
    for k in range(words.shape[1]):  # noqa: SIM110: kernels know no generator
        if words[i, k] != words[j, k]:
            return False
    return True


@kernel64
def sort_by(order, keys, n_keys):
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
def measure_triangles(positions: Any, uv: Any, triangles: Any) -> Any:
    """Each triangle's direction of growing u (f8[triangle, 3], unit) and what is known of it (u1[triangle])."""
    count = len(triangles)
    directions = np.zeros((count, 3))
    kinds = np.zeros(count, np.uint8)
    for t in range(count):
        a, b, c = triangles[t]
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
    return directions, kinds


@kernel64
def link_edges(triangles: Any, kinds: Any, n_vertices: int) -> Any:
    """The triangle across each edge (from corner k to k + 1), i4[triangle, 3], -1 where there is none.

    The triangle across runs the edge the other way. Where many triangles share an edge, the first that runs it one
    way is linked with the first that runs it the other way, and so on.
    """
    ends = np.empty((2, triangles.size), np.int32)
    order = np.empty(triangles.size, np.int64)
    n_edges = 0
    for t in range(len(triangles)):
        for k in range(3):
            a, b = triangles[t, k], triangles[t, (k + 1) % 3]
            ends[0, 3 * t + k], ends[1, 3 * t + k] = min(a, b), max(a, b)
            if kinds[t] & COLLAPSED == 0:
                order[n_edges] = 3 * t + k
                n_edges += 1
    order = sort_by(sort_by(order[:n_edges], ends[1], n_vertices), ends[0], n_vertices)

    across = np.full(triangles.shape, -1, np.int32)
    flat = triangles.reshape(-1)
    begin = 0
    while begin < n_edges:
        low, high = ends[0, order[begin]], ends[1, order[begin]]
        rising, falling = begin, begin
        while True:
            while is_edge(order, ends, rising, low, high) and flat[order[rising]] != low:
                rising += 1
            while is_edge(order, ends, falling, low, high) and flat[order[falling]] == low:
                falling += 1
            if not (is_edge(order, ends, rising, low, high) and is_edge(order, ends, falling, low, high)):
                break
            there, back = order[rising], order[falling]
            across[there // 3, there % 3] = back // 3
            across[back // 3, back % 3] = there // 3
            rising += 1
            falling += 1
        begin = max(rising, falling)
        while is_edge(order, ends, begin, low, high):
            begin += 1
    return across


@kernel64
def is_edge(order, ends, i, low, high):
    return i < len(order) and ends[0, order[i]] == low and ends[1, order[i]] == high


@kernel64
def grow_groups(triangles: Any, across: Any, kinds: Any) -> Any:
    """Each corner's group, i4[triangle, 3] (-1: none), and the triangle that began each group, i4[group].

    A free triangle takes the orientation of the first group that reaches it; `kinds` then says so.
    """
    groups = np.full(triangles.shape, -1, np.int32)
    founders = np.empty(triangles.size, np.int32)
    stack = np.empty(len(triangles) + 2, np.int32)
    n_groups = 0
    for founder in range(len(triangles)):
        if kinds[founder] & (COLLAPSED | FREE) != 0:
            continue
        for corner in range(3):
            if groups[founder, corner] >= 0:
                continue
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
                if kinds[t] & FREE != 0 and max(groups[t, 0], groups[t, 1], groups[t, 2]) < 0:
                    kinds[t] = FREE | (kinds[founder] & UPRIGHT)
                if (kinds[t] ^ kinds[founder]) & UPRIGHT != 0:
                    continue
                groups[t, k] = n_groups
                stack[depth] = across[t, (k + 2) % 3]
                stack[depth + 1] = across[t, k]
                depth += 2
            founders[n_groups] = founder
            n_groups += 1
    return groups, founders[:n_groups].copy()


@kernel64
def corner_at(triangles, t, vertex):
    if triangles[t, 0] == vertex:
        return 0
    return 1 if triangles[t, 1] == vertex else 2


@kernel64
def average_tangents(
    positions: Any, normals: Any, triangles: Any, directions: Any, kinds: Any, groups: Any, n_groups: int
) -> Any:
    """The tangent of each group, f8[group, 3]: unit, or zero where directions cancel."""
    sums = np.zeros((n_groups, 3))
    for t in range(len(triangles)):
        if kinds[t] & FREE != 0:
            continue
        for k in range(3):
            group = groups[t, k]
            if group < 0:
                continue
            here = triangles[t, k]
            normal, point = row(normals, here), row(positions, here)
            following = in_plane(difference(row(positions, triangles[t, (k + 1) % 3]), point), normal)
            preceding = in_plane(difference(row(positions, triangles[t, (k + 2) % 3]), point), normal)
            angle = float(acos(f32(min(max(inner(following, preceding), -1.0), 1.0))))
            direction = in_plane(row(directions, t), normal)
            for axis in range(3):
                sums[group, axis] += angle * direction[axis]
    for group in range(len(sums)):
        sums[group, 0], sums[group, 1], sums[group, 2] = unit(row(sums, group))
    return sums


@kernel64
def adopt_corners(triangles: Any, groups: Any, n_vertices: int) -> None:
    """Gives corners without a group the first group at their vertex, if there is one."""
    first = np.full(n_vertices, -1, np.int32)
    for t in range(len(triangles)):
        for k in range(3):
            if groups[t, k] >= 0 and first[triangles[t, k]] < 0:
                first[triangles[t, k]] = groups[t, k]
    for t in range(len(triangles)):
        for k in range(3):
            if groups[t, k] < 0:
                groups[t, k] = first[triangles[t, k]]


@kernel64
def split_vertices(triangles: Any, groups: Any, n_vertices: int) -> Any:
    """One vertex for each pair of a vertex and a group: the new triangles, and each new vertex's old one and group.

    The lowest group at a vertex keeps its number, others are appended; unused vertices stay, without a group.
    """
    flat = triangles.reshape(-1)
    keys = groups.reshape(-1) + 1
    order = sort_by(sort_by(np.arange(flat.size), keys, flat.size + 1), flat, n_vertices)
    olds = np.empty(n_vertices + flat.size, np.int32)
    group_of = np.full(n_vertices + flat.size, -1, np.int32)
    olds[:n_vertices] = np.arange(n_vertices)
    result = np.empty_like(flat)
    count = n_vertices
    previous, previous_key, current = -1, -1, -1
    for item in order:
        if flat[item] != previous:
            current = flat[item]
        elif keys[item] != previous_key:
            current = count
            count += 1
        previous, previous_key = flat[item], keys[item]
        olds[current] = previous
        group_of[current] = previous_key - 1
        result[item] = current
    return result.reshape(triangles.shape), olds[:count].copy(), group_of[:count].copy()


@kernel64
def write_tangents(normals: Any, group_of: Any, averages: Any, upright: Any) -> Any:
    """Each vertex's tangent f4[vertex, 4]; where its group gives none, any at right angles to the normal."""
    tangents = np.empty((len(normals), 4), np.float32)
    for i in range(len(normals)):
        group = group_of[i]
        direction = row(averages, group) if group >= 0 else (0.0, 0.0, 0.0)
        if inner(direction, direction) < 0.5:
            tangent, _ = frame(load3(normals, i))
            direction = float(tangent.x), float(tangent.y), float(tangent.z)
        tangents[i, 0], tangents[i, 1], tangents[i, 2] = direction
        tangents[i, 3] = -1.0 if group >= 0 and upright[group] else 1.0
    return tangents
