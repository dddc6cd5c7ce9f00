"""Builds trees over triangles and instances and joins them. Knows threads and memory; the kernels know the cuts."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dr.errors import Impossible
from workers.kernels.bvh import build as kernels
from workers.kernels.records import NODE_FLOATS, PACK_FLOATS

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

NO_ROOT = -1
ALIGNMENT = 64  # bytes, a cache line
SUBTREES = 64  # tasks that a large build is cut into, whatever the number of threads
SMALLEST_SUBTREE = 4096  # triangles; below, a task costs more than it brings
PACKS_PER_TASK = 1 << 14


@dataclass(frozen=True)
class Tree:
    """One tree with indices into its own arrays. The root is node 0; a tree over nothing has no nodes."""

    nodes: Floats  # f4[node, NODE_FLOATS], 64-byte aligned, see workers.kernels.records
    packs: Floats  # f4[pack, PACK_FLOATS], 64-byte aligned

    @property
    def nbytes(self) -> int:
        return self.nodes.nbytes + self.packs.nbytes


@dataclass(frozen=True)
class Forest:
    """Several trees in shared arrays. `roots[i]` is the row of tree i's root, NO_ROOT for a tree over nothing."""

    nodes: Floats
    packs: Floats
    roots: Ints


def build(positions: Floats, ids: Ints, instance_bounds: Floats, threads: int = 1) -> Tree:
    """Builds the tree over triangles and instances; the result does not depend on `threads`.

    `positions` f4[t, 3, 3] are corners, `ids` i4[t] their ids with flags, `instance_bounds` f4[i, 6] lo and hi in the
    world. Left out: triangles with a corner that is not finite or beyond MAX_COORDINATE, and empty or infinite bounds.
    """
    positions = np.ascontiguousarray(positions, np.float32)
    ids = np.ascontiguousarray(ids, np.int32)
    bounds = np.ascontiguousarray(instance_bounds, np.float32)
    if positions.shape != (len(ids), 3, 3) or bounds.shape != (len(bounds), 6):
        found = f"positions {positions.shape}, ids {ids.shape}, instance_bounds {bounds.shape}"
        raise Impossible(f"expected positions [t, 3, 3], ids [t] and instance_bounds [i, 6], found {found}")
    boxes = _aligned(len(ids) + len(bounds) + 1, 8).reshape(-1)
    marks = boxes.view(np.int32)
    count = kernels.triangle_boxes(positions, boxes, marks)
    count = kernels.instance_boxes(bounds, len(ids), boxes, marks, count)
    if count == 0:
        return Tree(_aligned(0, NODE_FLOATS), _aligned(0, PACK_FLOATS))
    with ThreadPoolExecutor(threads) as pool:
        tree, cuts = _binary_tree(boxes, count, len(ids), pool)
        links = tree.view(np.int32)
        leaves = np.empty((cuts + 1, 2), np.int64)
        nodes = _aligned(max(cuts, 1), NODE_FLOATS)
        flat = nodes.reshape(-1)
        n_nodes, n_packs = kernels.collapse(tree, links, marks, len(ids), flat, flat.view(np.int32), leaves)
        packs = _aligned(n_packs, PACK_FLOATS)
        rows = packs.reshape(-1)

        def fill(begin: int) -> None:
            end = min(begin + PACKS_PER_TASK, n_packs)
            kernels.fill_packs(positions, ids, marks, leaves, begin, end, rows, rows.view(np.int32))

        list(pool.map(fill, range(0, n_packs, PACKS_PER_TASK)))
    trimmed = _aligned(n_nodes, NODE_FLOATS)
    trimmed[:] = nodes[:n_nodes]
    return Tree(trimmed, packs)


def concatenate(trees: Sequence[Tree]) -> Forest:
    """Joins trees into shared arrays, in order, with absolute child indices. Instance leaves keep their instance."""
    nodes = _aligned(sum(len(tree.nodes) for tree in trees), NODE_FLOATS)
    packs = _aligned(sum(len(tree.packs) for tree in trees), PACK_FLOATS)
    roots = np.full(len(trees), NO_ROOT, np.int32)
    first_node = first_pack = 0
    for index, tree in enumerate(trees):
        node_end, pack_end = first_node + len(tree.nodes), first_pack + len(tree.packs)
        packs[first_pack:pack_end] = tree.packs
        nodes[first_node:node_end] = tree.nodes
        _rebase(nodes[first_node:node_end], first_node, first_pack)
        if len(tree.nodes):
            roots[index] = first_node
        first_node, first_pack = node_end, pack_end
    return Forest(nodes, packs, roots)


def _rebase(nodes: Floats, first_node: int, first_pack: int) -> None:
    row = kernels.CHILD_ROW
    children = nodes.view(np.int32)[:, row : row + kernels.CHILDREN]
    packs_leaf = (children < 0) & (~children & 15 > 0)
    children[children >= 0] += first_node
    children[packs_leaf] -= first_pack * 16  # ~(x + n) is ~x - n


def _binary_tree(boxes: Floats, count: int, n_triangles: int, pool: ThreadPoolExecutor) -> tuple[Floats, int]:
    """The top of the tree in one piece, then its subtrees as tasks; also the number of cuts."""
    marks, scratch = boxes.view(np.int32), np.empty_like(boxes)
    tree = _aligned(2 * count + 2, 8).reshape(-1)
    links = tree.view(np.int32)
    stop_at = max(count // SUBTREES, SMALLEST_SUBTREE)
    # above every open range are at most MAX_DEPTH nodes, and at most SUBTREES larger ranges share a level
    opened = np.empty((kernels.MAX_DEPTH * SUBTREES + 2, 4), np.int64)

    def build_range(begin: int, end: int, slot: int, depth: int, stop: int) -> Any:
        return kernels.build_range(
            boxes, marks, scratch, begin, end, slot, depth, n_triangles, stop, tree, links, opened
        )

    cuts, n_opened = build_range(0, count, 0, 0, stop_at)
    tasks = opened[:n_opened].tolist()
    tasks.sort(key=lambda task: task[1] - task[2])  # the largest first

    def build_subtree(task: list[int]) -> int:
        slot, begin, end, depth = task
        return int(build_range(begin, end, slot, depth, 0)[0])

    return tree, int(cuts) + sum(pool.map(build_subtree, tasks))


def _aligned(rows: int, columns: int) -> Floats:
    """An uninitialised f4[rows, columns] that begins at a multiple of ALIGNMENT."""
    size = rows * columns * 4
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(np.float32).reshape(rows, columns)
