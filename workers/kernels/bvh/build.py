"""Cuts boxes into a tree by the surface area heuristic and lays it out for traversal. Knows no threads and no objects.

A primitive is a box record of eight float32: lo x, lo y, lo z, its index as int32 bits, -hi x, -hi y, -hi z, 0. With hi
negated the union of two boxes is one vmin. Indices below `n_triangles` are triangles, the others instances; an instance
counts as many lanes as a whole pack, so that a leaf (at most one pack) holds either triangles or one single instance.

The binary tree uses the same records: lane 3 is the child slot of an inner node or the first primitive of a leaf,
lane 7 is 0 for an inner node or the number of primitives of a leaf. The two children of the node cut at position `mid`
lie in slots 2 mid and 2 mid + 1. Every position is cut once, so slots never clash and no counter is shared: subtrees
may be built in any order, by any number of threads, and the tree is the same.
"""

from __future__ import annotations

import numpy as np

from workers.kernels.jit import f32, i32, i64, kernel
from workers.kernels.records import ID_MASK, NODE_FLOATS, PACK_FLOATS
from workers.kernels.simd import LANES, extract, load_f8, select, splat_f8, store_f8, swap_halves, truncate, vmin

BINS = 32  # Wald 2007, On fast Construction of SAH-based Bounding Volume Hierarchies
MAX_DEPTH = 64  # of the binary tree: traversal's stack is sized by it
MAX_COORDINATE = 1e12  # triangles reaching beyond are left out: their products would leave float32
SMALLEST_EXTENT = 1e-30  # of centres that are still told apart
PLANE_SLACK = 3e-7  # of a plane's coordinate, five roundings: boxes grow by it, for traversal's slab products
CHILDREN = 8
CHILD_ROW = 6 * CHILDREN
LEAVE = -1  # as a child: the leaf of "instance -1", back to the world; also in empty slots, which only a NaN ray enters


@kernel
def triangle_boxes(positions, boxes, marks):
    """Writes the box records of the triangles f4[t, 3, 3] and returns their number; non-finite ones are left out."""
    count = 0
    limit = f32(MAX_COORDINATE)
    for triangle in range(positions.shape[0]):
        usable = True
        for axis in range(3):
            a, b, c = positions[triangle, 0, axis], positions[triangle, 1, axis], positions[triangle, 2, axis]
            lo, hi = min(a, min(b, c)), max(a, max(b, c))
            boxes[8 * count + axis] = lo
            boxes[8 * count + 4 + axis] = -hi
            # every corner is tested, because min and max may lose a NaN
            usable &= (abs(a) <= limit) & (abs(b) <= limit) & (abs(c) <= limit)
        marks[8 * count + 3] = triangle
        boxes[8 * count + 7] = 0.0
        count += usable
    return count


@kernel
def instance_boxes(bounds, n_triangles, boxes, marks, count):
    """Appends the records of bounds f4[i, 6] (lo, hi) after `count` others; empty and non-finite ones are left out."""
    limit = f32(MAX_COORDINATE)
    for instance in range(bounds.shape[0]):
        usable = True
        for axis in range(3):
            lo, hi = bounds[instance, axis], bounds[instance, 3 + axis]
            boxes[8 * count + axis] = lo
            boxes[8 * count + 4 + axis] = -hi
            usable &= (lo >= -limit) & (lo <= hi) & (hi <= limit)
        marks[8 * count + 3] = n_triangles + instance
        boxes[8 * count + 7] = 0.0
        count += usable
    return count


@kernel
def _half_area(box):
    extent = -(box + swap_halves(box))
    x, y, z = extract(extent, i32(0)), extract(extent, i32(1)), extract(extent, i32(2))
    return x * y + y * z + z * x


@kernel
def _centre(box):
    """Twice the centre in lanes 0..2 and its negative in lanes 4..6: a record without extent."""
    return box - swap_halves(box)


@kernel
def _centre_bounds(boxes, begin, end):
    bounds = splat_f8(np.inf)
    for i in range(begin, end):
        bounds = vmin(_centre(load_f8(boxes, 8 * i)), bounds)
    return bounds


@kernel
def _bin_scale(centres, n_bins):
    """Per lane, what takes a centre's distance from the lowest one to its bin; 0 where all centres are the same."""
    extent = -(centres + swap_halves(centres))
    return select(extent > SMALLEST_EXTENT, splat_f8(f32(n_bins) * 0.999) / extent, splat_f8(0.0))


@kernel
def _fill_bins(boxes, marks, begin, end, n_triangles, centres, scale, n_bins, bins, lanes):
    """Sorts primitives into n_bins bins per axis by their centres; `lanes` counts pack lanes."""
    empty = splat_f8(np.inf)
    for axis in range(3):
        for j in range(axis * BINS, axis * BINS + n_bins):
            store_f8(bins, 8 * j, empty)
            lanes[j] = 0
    for i in range(begin, end):
        box = load_f8(boxes, 8 * i)
        place = truncate((_centre(box) - centres) * scale)
        weight = i32(1) if marks[8 * i + 3] < n_triangles else i32(LANES)
        for axis in range(3):
            j = axis * BINS + extract(place, i32(axis))
            store_f8(bins, 8 * j, vmin(box, load_f8(bins, 8 * j)))
            lanes[j] += weight


@kernel
def _packs_of(lanes):
    return f32((lanes + (LANES - 1)) // LANES)


@kernel
def _cheapest_cut(n_bins, scale, bins, lanes, right_cost):
    """The axis and last bin of the left side with the least sum of area times packs; axis -1: all centres are one."""
    best_axis, best_bin, best_cost = -1, 0, f32(np.inf)
    for axis in range(3):
        if extract(scale, i32(axis)) == 0.0:
            continue
        first = axis * BINS
        box, count = splat_f8(np.inf), i32(0)
        for j in range(n_bins - 1, 0, -1):
            box = vmin(box, load_f8(bins, 8 * (first + j)))
            count += lanes[first + j]
            right_cost[j] = _half_area(box) * _packs_of(count) if count > 0 else f32(np.inf)
        box, count = splat_f8(np.inf), i32(0)
        for j in range(n_bins - 1):
            box = vmin(box, load_f8(bins, 8 * (first + j)))
            count += lanes[first + j]
            if count > 0:
                cost = _half_area(box) * _packs_of(count) + right_cost[j + 1]
                if cost < best_cost:
                    best_axis, best_bin, best_cost = axis, j, cost
    return best_axis, best_bin


@kernel
def _partition(boxes, scratch, begin, end, axis, last_bin, centres, scale):
    """Moves primitives of bins up to `last_bin` to the front, in order; returns the cut and both centre bounds."""
    lowest, factor = extract(centres, i32(axis)), extract(scale, i32(axis))
    left, right = splat_f8(np.inf), splat_f8(np.inf)
    infinite = splat_f8(np.inf)
    to_left, to_right = begin, begin
    for i in range(begin, end):
        box = load_f8(boxes, 8 * i)
        centre = _centre(box)
        goes_left = i32((extract(centre, i32(axis)) - lowest) * factor) <= last_bin
        # both sides are written and one of them is kept: cheaper than a branch that cannot be predicted
        store_f8(boxes, 8 * to_left, box)
        store_f8(scratch, 8 * to_right, box)
        to_left += goes_left
        to_right += not goes_left
        side = splat_f8(f32(goes_left)) > 0.0
        left = vmin(select(side, centre, infinite), left)
        right = vmin(select(side, infinite, centre), right)
    for i in range(to_right - begin):
        store_f8(boxes, 8 * (to_left + i), load_f8(scratch, 8 * (begin + i)))
    return to_left, left, right


@kernel
def _levels(count):
    """Levels that halving needs from `count` primitives down to single ones."""
    levels = 0
    while (1 << levels) < count:
        levels += 1
    return levels


@kernel
def build_range(boxes, marks, scratch, begin, end, slot, depth, n_triangles, stop_at, tree, links, opened):
    """Builds the binary tree over records begin..end with its root in `slot`, `depth` levels below the tree's root.

    Ranges of at most `stop_at` records are not built but listed in `opened` i8[any, 4] (slot, begin, end, depth), for
    another call. Returns the number of cuts made and of ranges opened.
    """
    stack = np.empty((MAX_DEPTH + 2, 4), np.int64)
    stack_centres = np.empty((MAX_DEPTH + 2) * 8, np.float32)
    bins, lanes = np.empty(3 * BINS * 8, np.float32), np.empty(3 * BINS, np.int32)
    right_cost = np.empty(BINS, np.float32)
    cuts, n_opened, top = 0, 0, 1
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = slot, begin, end, depth
    store_f8(stack_centres, 0, _centre_bounds(boxes, begin, end))
    while top > 0:
        top -= 1
        slot, begin, end, depth = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        centres = load_f8(stack_centres, 8 * top)
        count = end - begin
        if count <= stop_at:
            opened[n_opened, 0], opened[n_opened, 1], opened[n_opened, 2], opened[n_opened, 3] = slot, begin, end, depth
            n_opened += 1
            continue

        # the node's own box, and a leaf when it fits one pack
        box, weight = splat_f8(np.inf), 0
        for i in range(begin, end):
            box = vmin(load_f8(boxes, 8 * i), box)
            weight += 1 if marks[8 * i + 3] < n_triangles else LANES
        store_f8(tree, 8 * slot, box)
        if weight <= LANES or count == 1:
            links[8 * slot + 3], links[8 * slot + 7] = begin, count
            continue

        # the cut: by area while the depth allows it, else in the middle
        axis, mid = -1, (begin + end) // 2
        if depth + _levels(count) < MAX_DEPTH:
            n_bins = BINS if count > BINS else BINS // 2
            scale = _bin_scale(centres, n_bins)
            _fill_bins(boxes, marks, begin, end, n_triangles, centres, scale, n_bins, bins, lanes)
            axis, last_bin = _cheapest_cut(n_bins, scale, bins, lanes, right_cost)
        if axis >= 0:
            mid, left, right = _partition(boxes, scratch, begin, end, axis, last_bin, centres, scale)
        else:
            left, right = _centre_bounds(boxes, begin, mid), _centre_bounds(boxes, mid, end)
        cuts += 1
        links[8 * slot + 3], links[8 * slot + 7] = 2 * mid, 0
        for side in range(2):
            stack[top, 0], stack[top, 3] = 2 * mid + 1 - side, depth + 1
            stack[top, 1], stack[top, 2] = (mid, end) if side == 0 else (begin, mid)
            store_f8(stack_centres, 8 * top, right if side == 0 else left)
            top += 1
    return cuts, n_opened


@kernel
def _widen(tree, links, slot, children, areas):
    """Lists up to 8 descendants of `slot` in `children`, opening the largest first, sorted by area, smallest first."""
    children[0], areas[0], count = slot, f32(np.inf), 1
    while count < CHILDREN:
        largest = -1
        for i in range(count):
            if links[8 * children[i] + 7] == 0 and (largest < 0 or areas[i] > areas[largest]):
                largest = i
        if largest < 0:
            break
        pair = i64(links[8 * children[largest] + 3])
        children[largest], areas[largest] = pair, _half_area(load_f8(tree, 8 * pair))
        children[count], areas[count] = pair + 1, _half_area(load_f8(tree, 8 * (pair + 1)))
        count += 1
    for i in range(1, count):
        child, area, j = children[i], areas[i], i
        while j > 0 and areas[j - 1] > area:
            children[j], areas[j] = children[j - 1], areas[j - 1]
            j -= 1
        children[j], areas[j] = child, area
    return count


@kernel
def collapse(tree, links, marks, n_triangles, nodes, child_rows, leaves):
    """Turns the binary tree into nodes of eight children and lists the leaves that become packs.

    `child_rows` are the same bytes as `nodes`, as int32. `leaves` i8[pack, 2] receives first primitive and count.
    Returns the numbers of nodes and packs.
    """
    children, areas = np.empty(CHILDREN, np.int64), np.empty(CHILDREN, np.float32)
    stack = np.empty((CHILDREN * MAX_DEPTH, 2), np.int64)
    stack[0, 0], stack[0, 1] = 0, 0
    n_nodes, n_packs, top = 1, 0, 1
    while top > 0:
        top -= 1
        slot, node = stack[top, 0], stack[top, 1]
        count = _widen(tree, links, slot, children, areas)
        base = node * NODE_FLOATS
        for lane in range(CHILDREN):
            for axis in range(3):
                nodes[base + 16 * axis + lane] = f32(np.inf)
                nodes[base + 16 * axis + 8 + lane] = f32(-np.inf)
            child_rows[base + CHILD_ROW + lane] = LEAVE
            child_rows[base + CHILD_ROW + CHILDREN + lane] = 0
        for lane in range(count):
            child = children[lane]
            for axis in range(3):
                lo, hi = tree[8 * child + axis], -tree[8 * child + 4 + axis]
                nodes[base + 16 * axis + lane] = lo - abs(lo) * f32(PLANE_SLACK)
                nodes[base + 16 * axis + 8 + lane] = hi + abs(hi) * f32(PLANE_SLACK)
            first, size = i64(links[8 * child + 3]), i64(links[8 * child + 7])
            if size == 0:
                code = n_nodes
                stack[top, 0], stack[top, 1] = child, n_nodes
                top += 1
                n_nodes += 1
            elif marks[8 * first + 3] >= n_triangles:
                code = ~((i64(marks[8 * first + 3]) - n_triangles + 1) * 16)
            else:
                code = ~(n_packs * 16 + 1)
                leaves[n_packs, 0], leaves[n_packs, 1] = first, size
                n_packs += 1
            child_rows[base + CHILD_ROW + lane] = code
    return n_nodes, n_packs


@kernel
def fill_packs(positions, ids, marks, leaves, begin, end, packs, id_rows):
    """Writes packs begin..end: up to 8 triangles each, ordered by id; unused lanes are points, which nothing hits."""
    order = np.empty(LANES, np.int64)
    for pack in range(begin, end):
        first, count = leaves[pack, 0], leaves[pack, 1]
        for i in range(count):
            triangle, j = i64(marks[8 * (first + i) + 3]), i
            while j > 0 and (ids[order[j - 1]] & ID_MASK) > (ids[triangle] & ID_MASK):
                order[j] = order[j - 1]
                j -= 1
            order[j] = triangle
        base = pack * PACK_FLOATS
        for k in range(PACK_FLOATS):
            packs[base + k] = 0.0
        for lane in range(count):
            triangle = order[lane]
            for corner in range(3):
                for axis in range(3):
                    packs[base + (3 * corner + axis) * LANES + lane] = positions[triangle, corner, axis]
            id_rows[base + 9 * LANES + lane] = ids[triangle]
