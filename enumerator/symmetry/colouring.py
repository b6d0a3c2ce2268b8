"""Canonical labelling and automorphism group of complete graphs with integer edge colours.

A graph is a symmetric integer matrix `edges` (n, n) whose diagonal colours the nodes. The method is
individualisation and refinement, McKay & Piperno (2014), "Practical graph isomorphism, II".
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Permutation = NDArray[np.intp]
Edges = NDArray[np.intp]


@dataclass(frozen=True)
class Cells:
    """An ordered partition of the nodes: the colour of a node is the number of nodes in earlier cells.

    `trace` digests how refinement got there. It is equal for isomorphic graphs; unequal traces prove that no
    isomorphism maps one partition onto the other.
    """

    colours: NDArray[np.intp]
    trace: bytes

    def target(self) -> int | None:
        """Colour of the first among the smallest cells of several nodes; None if there is none."""
        sizes = np.bincount(self.colours, minlength=len(self.colours))
        several = np.flatnonzero(sizes > 1)
        return int(several[np.argmin(sizes[several])]) if several.size else None

    def members(self, colour: int) -> list[int]:
        return np.flatnonzero(self.colours == colour).tolist()


@dataclass(frozen=True)
class Labelling:
    """Nodes in canonical order, the order of the automorphism group, and the group's orbits (the label of a node is a
    node of its orbit)."""

    nodes: Permutation
    group_order: int
    orbits: NDArray[np.intp]


def refined_cells(edges: Edges) -> Cells:
    """Coarsest equitable partition finer than the colours on the diagonal (colour refinement, 1-WL)."""
    values, inverse, counts = np.unique(edges.diagonal(), return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    known = np.repeat(values, counts).astype(">i8").tobytes()
    return _refine(edges, starts[inverse], starts[::-1].tolist(), known)


def individualise(edges: Edges, cells: Cells, node: int) -> Cells:
    """The equitable partition that follows when `node` is put before the rest of its cell."""
    cell = int(cells.colours[node])
    colours = np.where(cells.colours == cell, cell + 1, cells.colours)
    colours[node] = cell
    return _refine(edges, colours, [cell], b"")


def canonical_labelling(edges: Edges) -> Labelling:
    """The order of the nodes that gives isomorphic graphs the same matrix edges[nodes][:, nodes].

    It is the least (traces along the path, matrix) over the leaves of the search tree, less those that automorphisms
    show to be copies of others.
    """
    search = _Search(edges)
    leaf = search.best_leaf(refined_cells(edges), ())
    return Labelling(leaf.nodes, leaf.group_order, np.array(search.orbits(()), dtype=np.intp))


def coherent_refinement(colours: Edges) -> NDArray[np.intp]:
    """Classes (n, n) of pairs that products of matrices never tell apart: 0, 1, ..., finer than the colours (n, n).

    The coarsest coherent configuration (Higman 1975), by two-dimensional refinement (Weisfeiler & Leman 1968): a pair
    (u, v) is known by its class and by the multiset, over all w, of the pairs of classes of (u, w) and (w, v). Memory
    n^3. Classes on the diagonal are its own.
    """
    n = len(colours)
    colours = colours * 2 + np.eye(n, dtype=np.intp)
    count = 0
    while True:
        classes = np.unique(colours, return_inverse=True)[1].reshape(n, n)
        if classes.max() + 1 in (count, n * n):
            return classes
        count = classes.max() + 1
        through = np.sort(classes[:, None, :] * count + classes.T[None, :, :], axis=2)
        signature = np.concatenate([classes[:, :, None], through], axis=2).reshape(n * n, n + 1)
        colours = np.unique(signature, axis=0, return_inverse=True)[1].reshape(n, n)


def _refine(edges: Edges, colours: NDArray[np.intp], splitters: list[int], known: bytes) -> Cells:
    """Split cells by the multisets of their edges into each splitter until nothing splits or all is split.

    `known` is what the trace starts from.
    Of a cell that splits when no longer in the queue the largest part need not become a splitter: the edges into it
    follow from those into the others (Hopcroft 1971). Every choice depends on colours alone, never on node numbers.
    """
    n = len(colours)
    digest = hashlib.blake2b(known, digest_size=16)
    queue = splitters
    cells = len(np.unique(colours))
    while queue and cells < n:
        splitter = queue.pop(0)
        ranks, distinct_rows = _rank_rows(edges[:, np.flatnonzero(colours == splitter)])
        parts, inverse, sizes = np.unique(colours * n + ranks, return_inverse=True, return_counts=True)
        digest.update(distinct_rows)
        digest.update(np.concatenate(([splitter, cells], parts, sizes)).astype(">i8").tobytes())
        if len(parts) == cells:
            continue
        starts = np.cumsum(sizes) - sizes
        _enqueue(queue, parts // n, starts, sizes)
        colours, cells = starts[inverse], len(parts)
    return Cells(colours, digest.digest())


def _rank_rows(rows: Edges) -> tuple[NDArray[np.intp], bytes]:
    """Rank of each row, as a multiset, in lexicographic order, and the distinct multisets as bytes."""
    if rows.shape[1] == 1:
        values, ranks = np.unique(rows[:, 0], return_inverse=True)
        return ranks, values.astype(">i8").tobytes()
    # Big-endian bytes of non-negative numbers compare as the numbers do.
    keys = [row.tobytes() for row in np.sort(rows, axis=1).astype(">i8")]
    distinct = sorted(set(keys))
    rank = {key: position for position, key in enumerate(distinct)}
    return np.array([rank[key] for key in keys], dtype=np.intp), b"".join(distinct)


def _enqueue(queue: list[int], parents: NDArray[np.intp], starts: NDArray[np.intp], sizes: NDArray[np.intp]) -> None:
    """Add to the queue the parts of every cell that has split; the first part keeps the colour of the cell."""
    parent_colours, first, parts = np.unique(parents, return_index=True, return_counts=True)
    for parent, begin, count in zip(parent_colours, first, parts, strict=True):
        if count > 1:
            span = slice(begin, begin + count)
            largest = starts[span][np.argmax(sizes[span])]
            skipped = parent if int(parent) in queue else largest
            queue.extend(int(start) for start in starts[span] if start != skipped)


def _guess(source: NDArray[np.intp], target: NDArray[np.intp]) -> Permutation:
    """A permutation taking the cells of `source` to those of `target` that moves few nodes.

    Nodes of equal colour in both stay. The others are paired so that the guess is an involution where it can be,
    which is what exchanges two students, two matched pairs or two blocks.
    """
    image = np.arange(len(source))
    moved = np.flatnonzero(source != target)
    leaving = moved[np.lexsort((moved, target[moved], source[moved]))]
    arriving = moved[np.lexsort((moved, source[moved], target[moved]))]
    image[leaving] = arriving
    return image


def _root(parent: list[int], node: int) -> int:
    """The label of the set that `node` is in, with the way to it shortened."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@dataclass(frozen=True)
class _Leaf:
    nodes: Permutation
    matrix: bytes
    group_order: int


@dataclass(frozen=True)
class _Level:
    """A node of the search tree: its partition, the nodes individualised before it, the children worth a look."""

    cells: Cells
    prefix: tuple[int, ...]
    target: int | None
    children: list[tuple[int, Cells]]


class _Search:
    """Search tree with pruning by the automorphisms found so far, each kept as {node: image} of the nodes it moves."""

    def __init__(self, edges: Edges) -> None:
        self.edges = edges
        self.generators: list[dict[int, int]] = []

    def orbits(self, prefix: Sequence[int]) -> list[int]:
        """For each node the label of its orbit under the generators that fix every node of `prefix`."""
        parent = list(range(len(self.edges)))
        for generator in self.generators:
            if generator.keys().isdisjoint(prefix):
                for node, image in generator.items():
                    parent[_root(parent, node)] = _root(parent, image)
        return [_root(parent, node) for node in range(len(parent))]

    def best_leaf(self, cells: Cells, prefix: tuple[int, ...]) -> _Leaf:
        """Least leaf below `cells`, with the order of the group that fixes `prefix`: by orbit and stabiliser along
        the first path, deepest level first, so that each level finds most of its orbits already merged."""
        levels = self._descend(cells, prefix)
        nodes = np.argsort(levels[-1].cells.colours)
        best = _Leaf(nodes, self.edges[np.ix_(nodes, nodes)].astype(">i8").tobytes(), 1)
        for depth in reversed(range(len(levels) - 1)):
            best = self._close_level(levels, depth, best)
        return best

    def _descend(self, cells: Cells, prefix: tuple[int, ...]) -> list[_Level]:
        """The first path. Guessed exchanges of neighbouring children save the levels below from refining copies."""
        levels = []
        while (target := cells.target()) is not None:
            nodes = self._representatives(cells.members(target), prefix)
            children = [(node, individualise(self.edges, cells, node)) for node in nodes]
            least = min(child.trace for _, child in children)
            children = [(node, child) for node, child in children if child.trace == least]
            for (_, first), (_, second) in pairwise(children):
                self._learn(_guess(first.colours, second.colours))
            levels.append(_Level(cells, prefix, target, children))
            node, cells = children[0]
            prefix = (*prefix, node)
        return [*levels, _Level(cells, prefix, None, [])]

    def _close_level(self, levels: list[_Level], depth: int, best: _Leaf) -> _Leaf:
        """Compare the first child, whose best leaf is `best`, with its rivals: first find all of its orbit, which
        completes the generators of this level, then let one child of every other orbit compete."""
        level = levels[depth]
        node = level.children[0][0]
        orbits = self.orbits(level.prefix)
        others: dict[int, Cells] = {}
        for rival, cells in level.children[1:]:
            if any(orbits[rival] == orbits[known] for known in (node, *others)):
                continue
            if self._is_copy(levels, depth + 1, cells, (*level.prefix, rival)):
                orbits = self.orbits(level.prefix)
            else:
                others[rival] = cells
        for rival in self._representatives(list(others), level.prefix):
            leaf = self.best_leaf(others[rival], (*level.prefix, rival))
            if leaf.matrix < best.matrix:
                best, node = leaf, rival
        return dataclasses.replace(best, group_order=best.group_order * orbits.count(orbits[node]))

    def _is_copy(self, levels: list[_Level], depth: int, cells: Cells, prefix: tuple[int, ...]) -> bool:
        """Whether an automorphism takes levels[depth] to `cells`; if so it is among the generators from here on."""
        level = levels[depth]
        if cells.trace != level.cells.trace:
            return False
        if self._learn(_guess(level.cells.colours, cells.colours)):
            return True
        if level.target is None:
            return False
        return any(
            self._is_copy(levels, depth + 1, individualise(self.edges, cells, node), (*prefix, node))
            for node in self._representatives(cells.members(level.target), prefix)
        )

    def _representatives(self, nodes: list[int], prefix: tuple[int, ...]) -> list[int]:
        """One node per orbit of the generators that fix `prefix`."""
        orbits = self.orbits(prefix)
        first: dict[int, int] = {}
        for node in nodes:
            first.setdefault(orbits[node], node)
        return list(first.values())

    def _learn(self, image: Permutation) -> bool:
        """Keep the permutation if it is an automorphism."""
        if not np.array_equal(self.edges[np.ix_(image, image)], self.edges):
            return False
        moved = np.flatnonzero(image != np.arange(len(image)))
        self.generators.append(dict(zip(moved.tolist(), image[moved].tolist(), strict=True)))
        return True
