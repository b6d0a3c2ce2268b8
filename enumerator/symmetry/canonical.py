"""Symmetry of overlaps under S_K x Aut(T): canonical form, isotropy group, orbit size, and matching.

Students permute freely, teachers by the permutations that leave T unchanged. Both at once are the isomorphisms of a
complete graph on K + M nodes of two kinds with the weights [[Q, R], [R^T, T]]. Weights become integer colours by
single linkage: sorted values are split where neighbours differ by more than a gap, so equal values stay equal under
noise below the gap, and two values within the gap of each other never get different colours. Entries of T are equal or
not, exactly: callers pass `Landscape.teacher_classes` for T, where that is decided. The isotropy group classifies
minima in Arjevani & Field (2021), "Analytic study of families of spurious minima in two-layer ReLU neural networks: a
tale of symmetry II".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from enumerator.errors import InputError, SolverError
from enumerator.symmetry.colouring import Cells, Edges, Permutation, canonical_labelling, individualise, refined_cells

Matrix = NDArray[np.floating]
# T, or the classes of its entries: only which of them are equal counts.
Teachers = NDArray[np.number]

# Tries beyond one per node before a backtracking search gives way to canonical labelling, which prunes by
# automorphisms. Without backtracking one per node is enough; this many take a second at K = M = 64.
SEARCH_LIMIT = 1000


@dataclass(frozen=True)
class CanonicalForm:
    """Q[students][:, students] and R[students][:, teachers] are the same for the whole orbit, up to noise.

    Both permutations are in the group: T[teachers][:, teachers] is T. `stabiliser_order` is the order of the isotropy
    group in S_K x Aut(T); `isotropy` names the group: "S16 x S1" if it acts on the teachers as all permutations
    of each of its orbits, "order 24 on 4+3+1" (sizes of the orbits) otherwise, with ", students S2" added for
    permutations of students that move no teacher.
    """

    students: Permutation
    teachers: Permutation
    stabiliser_order: int
    isotropy: str


class Answer(IntEnum):
    SAME = 0
    DIFFERENT = 1
    REPOLISH = 2


@dataclass(frozen=True)
class Match:
    """Whether b is a copy of a: Q_a ~ Q_b[students][:, students] and R_a ~ R_b[students][:, teachers].

    `deviation` is the largest difference of entries under that permutation, inf where none was found.
    """

    answer: Answer
    students: Permutation | None
    teachers: Permutation | None
    deviation: float


def canonical_form(Q: Matrix, R: Matrix, T: Teachers, gap: float) -> CanonicalForm:
    """Canonical order of students and teachers, and isotropy group, of overlaps Q (K, K), R (K, M), T (M, M).

    Students are sorted by norm, then by their entries of R, then of Q; the teacher that a student overlaps most with in
    magnitude stands where the student stands, as far as that is unique and T allows it. Raises InputError on bad shapes
    or values.
    """
    Q, R, T = _checked(Q, R, T, gap)
    K = len(Q)
    edges = _coloured([(Q, R)], T, gap)[0]
    labelling = canonical_labelling(edges)
    students, teachers = labelling.nodes[:K], labelling.nodes[K:] - K
    return CanonicalForm(
        students=students,
        teachers=_within_group(_following(students, teachers, R, gap), edges[K:, K:]),
        stabiliser_order=labelling.group_order,
        isotropy=_isotropy(edges, K, labelling.group_order, labelling.orbits),
    )


def match(Q_a: Matrix, R_a: Matrix, Q_b: Matrix, R_b: Matrix, T: Teachers, same: float, different: float) -> Match:
    """Are two networks on the teachers T (M, M), with overlaps Q (K, K) and R (K, M), one up to S_K x Aut(T)?

    SAME: under some permutation no entry differs by more than `same`. DIFFERENT: proven that under every permutation
    some entry differs by more than `different`. REPOLISH: neither. Raises InputError on bad shapes or values.
    """
    if not same <= different:
        raise InputError(f"`same` must not exceed `different`, got {same!r} and {different!r}.")
    Q_a, R_a, T = _checked(Q_a, R_a, T, same)
    Q_b, R_b, T = _checked(Q_b, R_b, T, same)
    if len(Q_a) != len(Q_b) or _sorted_distance(Q_a, R_a, Q_b, R_b) > different:
        return Match(Answer.DIFFERENT, None, None, math.inf)
    unmoved = max(_largest(Q_a - Q_b), _largest(R_a - R_b))
    if unmoved <= same:
        return Match(Answer.SAME, np.arange(len(Q_a)), np.arange(len(T)), unmoved)
    for tolerance in (same, different):
        edges_a, edges_b = _coloured([(Q_a, R_a), (Q_b, R_b)], T, tolerance)
        alignment = _Alignment(edges_a, edges_b, _entries(Q_a, R_a), _entries(Q_b, R_b), tolerance)
        image = alignment.image()
        if image is not None:
            deviation = alignment.deviation(np.arange(len(image)), image)
            answer = Answer.SAME if deviation <= same else Answer.REPOLISH
            return Match(answer, image[: len(Q_a)], image[len(Q_a) :] - len(Q_a), deviation)
    return Match(Answer.DIFFERENT if alignment.exhausted else Answer.REPOLISH, None, None, math.inf)


def group_of(T: Teachers) -> tuple[str, int]:
    """Name, as of an isotropy, and order of Aut(T), the permutations of teachers that leave T (M, M) unchanged."""
    form = canonical_form(np.zeros((0, 0)), np.zeros((0, len(T))), T, 0.0)
    return form.isotropy, form.stabiliser_order


def interchangeable_teachers(T: Teachers) -> list[Permutation]:
    """Classes of teachers any two of which may be exchanged leaving T (M, M) unchanged: [all] for T = I."""
    left = np.arange(len(T))
    classes = []
    while left.size:
        first = left[0]
        unequal = T[left] != T[first]
        unequal[:, first] = T[left, left] != T[first, first]
        unequal[np.arange(left.size), left] = False
        twins = ~unequal.any(axis=1)
        classes.append(left[twins])
        left = left[~twins]
    return classes


def orbit_size_log10(students: int, teacher_automorphisms: int, stabiliser_order: int) -> float:
    """log10 of students! |Aut T| / |stabiliser|, the number of distinct permuted copies of an effective network."""
    size, remainder = divmod(math.factorial(students) * teacher_automorphisms, stabiliser_order)
    if remainder:
        raise SolverError(
            f"a stabiliser of order {stabiliser_order} does not divide {students}! x {teacher_automorphisms}: "
            "compute it and |Aut T| from the same T."
        )
    return math.log10(size)


def _checked(Q: Matrix, R: Matrix, T: Teachers, gap: float) -> tuple[Matrix, Matrix, Matrix]:
    """The overlaps as float64, Q and T exactly symmetric."""
    Q, R, T = (np.asarray(entries, dtype=np.float64) for entries in (Q, R, T))
    if R.ndim != 2 or Q.shape != (len(R), len(R)) or T.shape != (R.shape[1], R.shape[1]):
        raise InputError(f"expected overlaps Q (K, K), R (K, M), T (M, M), got {Q.shape}, {R.shape}, {T.shape}.")
    if not gap >= 0:
        raise InputError(f"a gap between values must be a number >= 0, got {gap!r}.")
    for name, entries in (("Q", Q), ("R", R), ("T", T)):
        if not np.isfinite(entries).all():
            raise InputError(f"`{name}` must be finite to be compared up to symmetry.")
        if name != "R" and _largest(entries - entries.T) > gap:
            raise InputError(f"`{name}` must be symmetric, it misses by {_largest(entries - entries.T):.3g}.")
    return (Q + Q.T) / 2, R, (T + T.T) / 2


def _largest(entries: Matrix) -> float:
    return float(np.abs(entries).max(initial=0.0))


def _off_diagonal(square: Matrix) -> Matrix:
    """The entries above the diagonal, flat."""
    return square[np.triu_indices(len(square), 1)]


def _sorted_distance(Q_a: Matrix, R_a: Matrix, Q_b: Matrix, R_b: Matrix) -> float:
    """Largest difference between sorted entries: no permutation brings all entries closer than that."""
    pairs = [(Q_a.diagonal(), Q_b.diagonal()), (R_a.ravel(), R_b.ravel()), (_off_diagonal(Q_a), _off_diagonal(Q_b))]
    return max(_largest(np.sort(a) - np.sort(b)) for a, b in pairs)


def _entries(Q: Matrix, R: Matrix) -> Matrix:
    """The entries to compare (K + M, K + M), zero for T, whose colours say all."""
    M = R.shape[1]
    return np.block([[Q, R], [R.T, np.zeros((M, M))]])


class _Linkage:
    """Single linkage of pooled values: the colour of a value is the position of its cluster, counted from `first`."""

    def __init__(self, values: Sequence[Matrix], gap: float, first: int = 0) -> None:
        ordered = np.sort(np.concatenate([part.ravel() for part in values]))
        self.starts = np.concatenate([ordered[:1], ordered[1:][np.diff(ordered) > gap]])
        self.first = first
        self.end = first + len(self.starts)

    def __call__(self, values: Matrix) -> NDArray[np.intp]:
        return np.searchsorted(self.starts, values, side="right") - 1 + self.first


def _coloured(networks: Sequence[tuple[Matrix, Matrix]], T: Matrix, gap: float) -> list[Edges]:
    """One coloured graph (K + M, K + M) per network (Q, R), students first, with colours common to all of them."""
    norms = _Linkage([Q.diagonal() for Q, _ in networks], gap)
    teacher_norms = _Linkage([T.diagonal()], 0.0, norms.end)
    between = _Linkage([R for _, R in networks], gap, teacher_norms.end)
    students = _Linkage([_off_diagonal(Q) for Q, _ in networks], gap, between.end)
    teachers = _Linkage([_off_diagonal(T)], 0.0, students.end)
    graphs = []
    for Q, R in networks:
        edges = np.block([[students(Q), between(R)], [between(R).T, teachers(T)]])
        np.fill_diagonal(edges, np.concatenate([norms(Q.diagonal()), teacher_norms(T.diagonal())]))
        graphs.append(edges)
    return graphs


def _following(students: Permutation, teachers: Permutation, R: Matrix, gap: float) -> Permutation:
    """Teachers in the order of the students that overlap most with them, ties and teachers not chosen left as given."""
    if not len(students):
        return teachers
    magnitude = _Linkage([np.abs(R)], gap)(np.abs(R[np.ix_(students, teachers)]))
    winning = magnitude == magnitude.max(axis=1, keepdims=True)
    chosen = winning & (winning.sum(axis=1, keepdims=True) == 1)
    first_student = np.where(chosen.any(axis=0), chosen.argmax(axis=0), len(students))
    return teachers[np.argsort(first_student, kind="stable")]


def _within_group(teachers: Permutation, edges: Edges) -> Permutation:
    """The order `teachers`, changed so that it leaves the coloured T (M, M) as it is.

    The change depends on the reordered T alone, which is the same for the whole orbit: the result stays canonical.
    """
    reordered = edges[np.ix_(teachers, teachers)]
    if np.array_equal(reordered, edges):
        return teachers
    image = _Alignment(edges, reordered, np.zeros(edges.shape), np.zeros(edges.shape), 0.0).image()
    if image is None:
        raise SolverError("a reordered T was not recognised as T: report the landscape.")
    return teachers[image]


def _isotropy(edges: Edges, K: int, order: int, orbits: NDArray[np.intp]) -> str:
    """Name of the group from its action on the teachers and its subgroup that moves students alone."""
    teacher_orbits = _orbit_sizes(orbits[K:])
    moving_students = 1
    suffix = ""
    if len(np.unique(edges[:K, K:], axis=0)) < K:  # students told apart by R move only with their teachers
        pinned = edges.copy()
        pinned[np.arange(K, len(edges)), np.arange(K, len(edges))] = edges.max() + 1 + np.arange(len(edges) - K)
        labelling = canonical_labelling(pinned)
        moving_students = labelling.group_order
        if moving_students > 1:
            sizes = [size for size in _orbit_sizes(labelling.orbits[:K]) if size > 1]
            suffix = ", students " + _group_name(moving_students, sizes)
    return _group_name(order // moving_students, teacher_orbits) + suffix


def _orbit_sizes(labels: NDArray[np.intp]) -> list[int]:
    return sorted(np.unique(labels, return_counts=True)[1].tolist(), reverse=True)


def _group_name(order: int, orbits: list[int]) -> str:
    """Product of symmetric groups, powers written as S2^3, if the order is theirs: a group is within that product."""
    if order != math.prod(math.factorial(size) for size in orbits):
        return f"order {order} on " + "+".join(map(str, orbits))
    powers = [(size, len(list(equal))) for size, equal in groupby(orbits)]
    return " x ".join(f"S{size}" + (f"^{power}" if power > 1 else "") for size, power in powers)


class _SearchLimitError(Exception):
    """The backtracking search of an alignment has made all the tries it may."""


class _Alignment:
    """Search for an isomorphism from coloured graph a to b under which no entry compared differs beyond `tolerance`.

    `exhausted` tells, when none was found, that none exists. Permutations that keep all entries within a tolerance are
    isomorphisms of the graphs coloured with that gap, but not the reverse: linkage may chain values that are far apart.
    The result depends on colours and entries alone.
    """

    def __init__(self, edges_a: Edges, edges_b: Edges, a: Matrix, b: Matrix, tolerance: float) -> None:
        self.edges_a, self.edges_b = edges_a, edges_b
        self.a, self.b = a, b
        self.tolerance = tolerance
        self.path = [refined_cells(edges_a)]
        self.tries = 0
        self.exhausted = False

    def image(self) -> Permutation | None:
        """For each node of a the node of b that takes its place; None if not found."""
        try:
            found = self._extend(0, refined_cells(self.edges_b))
            self.exhausted = found is None
            return found
        except _SearchLimitError:
            return self._canonical_image()

    def deviation(self, nodes_a: Permutation, nodes_b: Permutation) -> float:
        return _largest(self.a[np.ix_(nodes_a, nodes_a)] - self.b[np.ix_(nodes_b, nodes_b)])

    def _extend(self, depth: int, cells: Cells) -> Permutation | None:
        """Complete the assignment that makes `cells` of b correspond to path[depth] of a."""
        self.tries += 1
        if self.tries > SEARCH_LIMIT + len(self.edges_a):
            raise _SearchLimitError
        reference = self.path[depth]
        if cells.trace != reference.trace:
            return None
        alone_a, alone_b = _singletons(reference), _singletons(cells)
        if not self._agree(alone_a, alone_b):
            return None
        target = reference.target()
        if target is None:
            image = np.empty_like(alone_a)
            image[alone_a] = alone_b
            return image
        node = reference.members(target)[0]
        if len(self.path) == depth + 1:
            self.path.append(individualise(self.edges_a, reference, node))
        for candidate in self._candidates(node, alone_a, cells.members(target), alone_b):
            image = self._extend(depth + 1, individualise(self.edges_b, cells, candidate))
            if image is not None:
                return image
        return None

    def _agree(self, nodes_a: Permutation, nodes_b: Permutation) -> bool:
        same_colours = np.array_equal(self.edges_a[np.ix_(nodes_a, nodes_a)], self.edges_b[np.ix_(nodes_b, nodes_b)])
        return same_colours and self.deviation(nodes_a, nodes_b) <= self.tolerance

    def _candidates(self, node: int, alone_a: Permutation, nodes: list[int], alone_b: Permutation) -> list[int]:
        """The nodes of b that can take the place of `node` of a, the closest in entries first."""
        off = np.abs(self.a[node, node] - self.b[nodes, nodes])
        sorted_rows = np.abs(np.sort(self.a[node]) - np.sort(self.b[nodes], axis=1))
        off = np.maximum(off, sorted_rows.max(axis=1))
        assigned = np.abs(self.a[node, alone_a] - self.b[nodes][:, alone_b])
        off = np.maximum(off, assigned.max(axis=1, initial=0.0))
        return [nodes[i] for i in np.argsort(off, kind="stable") if off[i] <= self.tolerance]

    def _canonical_image(self) -> Permutation | None:
        """An isomorphism of the coloured graphs, if it keeps within the tolerance; that there is none is a proof."""
        nodes_a, nodes_b = canonical_labelling(self.edges_a).nodes, canonical_labelling(self.edges_b).nodes
        isomorphic = np.array_equal(self.edges_a[np.ix_(nodes_a, nodes_a)], self.edges_b[np.ix_(nodes_b, nodes_b)])
        self.exhausted = not isomorphic
        if not isomorphic or self.deviation(nodes_a, nodes_b) > self.tolerance:
            return None
        image = np.empty_like(nodes_a)
        image[nodes_a] = nodes_b
        return image


def _singletons(cells: Cells) -> Permutation:
    """The nodes alone in their cells, in order of colour."""
    order = np.argsort(cells.colours, kind="stable")
    ordered = cells.colours[order]
    return order[np.bincount(ordered, minlength=len(ordered))[ordered] == 1]
