"""The nearest of many stationary points to given weights, over all copies by permutations of students and teachers.

With overlaps X of a point with the teachers, a copy by permutations P of students and S of teachers has the squared
distance |W|^2 + |W'|^2 - 2 sum_im U_im X_P(i)S(m) in the span of the teachers, U = R T^+. Given one permutation the
best other one is an assignment, so both are found by turns, from many beginnings: an upper bound of the distance.
Sorted rows give a lower one: no S pairs two rows of numbers better than sorting does. Few teachers are permuted in all
ways, which proves the distance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist

from enumerator.minima.collapse import assigned, collapsed, nearest_groups, nearest_member
from enumerator.minima.curvature import lifted_distance
from enumerator.minima.effective import PARALLEL
from enumerator.minima.recognition import Recogniser
from enumerator.points import StationaryPoint, Student, has_zero_loss

Matrix = NDArray[np.float64]
Order = NDArray[np.intp]

# Beginnings for all points together: an assignment takes time like size^3, these a second or two.
_BEGINNINGS, _WORK = 10_000, 1e7
# Permutations of teachers up to which all are tried, for so many points: those of 8, in a second or so.
_EVERY, _EVERY_POINTS, _AT_ONCE = 40_320, 20, 5_040
# Added to a pair that must not be matched: far below any product of weights.
_FORBIDDEN = -1e12
# Sums of products are equal up to rounding below this part of the squares.
_ROUNDING = 1e-13
# Permutations of whole classes of teachers that are tried, and beginnings for the students of a flat family.
_CLASS_PERMUTATIONS, _FAMILY_TRIES = 48, 60


class Nearest(NamedTuple):
    """Position of the nearest point, -1 if there is none, and its distance.

    `proven`: no point is nearer, and none of its copies. Else the distance is an upper bound, and a point that is
    farther as far as was found may be nearer.
    """

    position: int
    distance: float
    proven: bool


@dataclass(eq=False)
class _Candidate:
    """A point, its teachers permuted by classes: overlaps X (K, M), the rest of its weights, and who may be matched.

    Its nearest copy by permutations within classes is at `upper` at most, and at `lower` at least.
    """

    position: int
    X: Matrix
    squares: float
    beyond: Matrix
    radius: float
    allowed: Matrix
    lower: float = 0.0
    upper: float = np.inf


def nearest_point(student: Student, points: Sequence[StationaryPoint], thorough: bool = True) -> Nearest:
    """The nearest of the points to a student of reduced weights (K, D).

    Unless `thorough` an upper bound from two beginnings for each point.
    """
    search = _Search(student)
    families = [k for k, point in enumerate(points) if len(point.W) < len(student.W)]
    lowest = min((search.below_family(points[k]) for k in families), default=np.inf)
    if any(has_zero_loss(point.loss, point.landscape) and can_turn(point) for point in points):
        lowest = 0.0
    best, position = min(((search.to_family(points[k]), k) for k in families), default=(np.inf, -1))
    candidates = [candidate for k, point in enumerate(points) for candidate in search.candidates(k, point)]
    candidates.sort(key=lambda candidate: candidate.lower)
    for beginnings in (search.few, search.many)[: 2 if thorough else 1]:
        for candidate in candidates:
            if candidate.lower < best:
                search.climb(candidate, beginnings(candidate))
                best, position = min((best, position), (candidate.upper, candidate.position))
        candidates.sort(key=lambda candidate: candidate.upper)
    proven = thorough and search.is_complete
    for candidate in candidates if thorough else ():
        if candidate.lower < best:
            proven = search.is_exact(candidate, best) and proven
            best, position = min((best, position), (candidate.upper, candidate.position))
    return Nearest(position, float(best), proven and position >= 0 and best <= lowest)


class _Search:
    """The distances of a student W (K, D) to points, with a budget for all of them together."""

    def __init__(self, student: Student) -> None:
        W, landscape = student.W, student.landscape
        recogniser, rank = Recogniser(landscape), landscape.teacher_rank
        self.student, self.W, self.landscape, self.rank = student, W, landscape, rank
        self.signs = student.second_layer_weights
        self.inverse, self.classes = recogniser.inverse_factor, recogniser.classes
        self.R = W[:, :rank] @ landscape.teacher_factor.T
        self.U = W[:, :rank] @ self.inverse.T
        self.squares = float((W[:, :rank] ** 2).sum())
        orders = list(
            itertools.islice(class_permutations(landscape.teacher_classes, self.classes), _CLASS_PERMUTATIONS + 1)
        )
        self.is_complete = len(orders) <= _CLASS_PERMUTATIONS
        self.orders = orders[:_CLASS_PERMUTATIONS]
        self.beginnings = int(min(_BEGINNINGS, _WORK / max(len(W), landscape.teachers) ** 3)) + 100
        self.exact_points = _EVERY_POINTS
        self.rng = np.random.default_rng(0)

    def candidates(self, position: int, point: StationaryPoint) -> Iterator[_Candidate]:
        """A point of K neurons, once for each permutation of classes of teachers; none if signs differ in number."""
        own = point.second_layer_weights
        allowed = np.zeros((len(self.W), len(self.W)))
        if len(point.W) != len(self.W):
            return
        if self.signs is not None and own is not None:
            if np.sum(self.signs < 0) != np.sum(own < 0):
                return
            allowed = _FORBIDDEN * (self.signs[:, None] != own[None, :])
        squares, beyond = float((point.W[:, : self.rank] ** 2).sum()), point.W[:, self.rank :]
        for order in self.orders:
            candidate = _Candidate(position, point.R[:, order], squares, beyond, point.radius, allowed)
            gain = _best(self._sorted_products(candidate.X) + allowed)[0]
            squared = max(0.0, (1 - _ROUNDING) * (self.squares + squares) - 2 * gain)
            apart = np.linalg.norm(self.W[:, self.rank :]) - np.linalg.norm(beyond)
            candidate.lower = float(np.hypot(np.sqrt(squared), apart))
            yield candidate

    def _sorted_products(self, X: Matrix) -> Matrix:
        """At most the products (K, K) of rows of U with rows of X whose teachers are permuted within classes."""
        parts = [np.sort(self.U[:, own], axis=1) @ np.sort(X[:, own], axis=1).T for own in self.classes]
        return np.sum(parts, axis=0)

    def few(self, candidate: _Candidate) -> list[Order]:
        """Students P (K,) to begin with: as their sorted overlaps match, with the teachers and with each other."""
        theirs = candidate.X @ self.inverse
        grams = [np.sort(Q, axis=1) for Q in (self.R @ self.U.T, theirs @ theirs.T)]
        products = (self._sorted_products(candidate.X), grams[0] @ grams[1].T)
        return [_best(gains + candidate.allowed)[1] for gains in products]

    def many(self, candidate: _Candidate) -> Iterator[Order]:
        """As `few`: each student of one beside each of the other, whose overlaps with the teachers stand in order."""
        for teachers in self._aligned(candidate.X, self.beginnings):
            self.beginnings -= 1
            yield self._students(candidate, teachers)[1]

    def _aligned(self, X: Matrix, most: int) -> Iterator[Order]:
        """Teachers S (M,) such that a row of X stands in the order of one of U: of all pairs, or `most` of them."""
        pairs = self.rng.permutation(len(self.U) * len(X))[: max(0, most)]
        for own, other in zip(*divmod(pairs, len(X)), strict=True):
            teachers = np.arange(X.shape[1])
            for members in self.classes:
                ranked = members[np.argsort(X[other, members], kind="stable")]
                teachers[members[np.argsort(self.U[own, members], kind="stable")]] = ranked
            yield teachers

    def _teachers(self, candidate: _Candidate, students: Order) -> Order:
        """The best S (M,) for students P (K,)."""
        teachers, gains = np.arange(candidate.X.shape[1]), self.U.T @ candidate.X[students]
        for members in self.classes:
            if len(members) > 1:
                teachers[members] = members[_best(gains[np.ix_(members, members)])[1]]
        return teachers

    def _students(self, candidate: _Candidate, teachers: Order) -> tuple[float, Order]:
        """The sum of products for teachers S (M,), and the best P (K,)."""
        return _best(self.U @ candidate.X[:, teachers].T + candidate.allowed)

    def climb(self, candidate: _Candidate, beginnings: Iterable[Order]) -> None:
        """Lower `upper` to the least distance found by assigning teachers and students by turns."""
        best, found = -np.inf, None
        for students in beginnings:
            gain = -np.inf
            while True:
                teachers = self._teachers(candidate, students)
                new, students = self._students(candidate, teachers)
                rises = new > gain + _ROUNDING * self.squares
                if not rises:
                    break
                gain = new
            if gain > best:
                best, found = gain, (students, teachers)
        if found is not None:
            self._reach(candidate, *found)

    def _reach(self, candidate: _Candidate, students: Order, teachers: Order) -> None:
        gap = np.linalg.norm((self.R - candidate.X[students][:, teachers]) @ self.inverse)
        beyond = lifted_distance(self.W[:, self.rank :], candidate.beyond[students], 0)
        candidate.upper = min(candidate.upper, float(np.hypot(gap, beyond)))

    def is_exact(self, candidate: _Candidate, best: float) -> bool:
        """Whether no copy is nearer than `best` and `upper`, which falls where trying all orders of teachers lowers it.

        Inside the ball of a point no other copy is nearer, since their balls are disjoint; where students and
        interchangeable teachers are one to one, one assignment is all.
        """
        if candidate.upper < candidate.radius or (len(self.classes) == 1 and _is_matching(candidate.X)):
            return True
        ways = math.prod(math.factorial(len(members)) for members in self.classes)
        if candidate.beyond.size or ways > _EVERY or self.exact_points == 0:
            return False
        self.exact_points -= 1
        parallel = max(0.0, min(best, candidate.upper) ** 2 - (self.W[:, self.rank :] ** 2).sum())
        most = (self.squares + candidate.squares - parallel) / 2
        every = itertools.product(*(itertools.permutations(members.tolist()) for members in self.classes))
        while images := list(itertools.islice(every, _AT_ONCE)):
            teachers = np.empty((len(images), candidate.X.shape[1]), np.intp)
            teachers[:, np.concatenate(self.classes)] = [list(itertools.chain(*image)) for image in images]
            gains = np.tensordot(candidate.X[:, teachers], self.U, (2, 1)).transpose(1, 2, 0) + candidate.allowed
            for k in np.flatnonzero(gains.max(axis=2).sum(axis=1) > most):
                gain, students = _best(gains[k])
                if gain > most:
                    most = gain
                    self._reach(candidate, students, teachers[k])
        return True

    def below_family(self, point: StationaryPoint) -> float:
        """A lower bound of the distance to all students that compute a point of fewer neurons; 0 where none is known.

        Where parallel neurons merge each of these students lies along a neuron, or vanishes.
        """
        if not self.landscape.merges or self.signs is not None or not self.is_complete:
            return 0.0
        along = np.zeros(len(self.W))
        for order in self.orders if len(point.W) else ():
            products = self._sorted_products(point.R[:, order]) / point.norms
            along = np.maximum(along, products.max(axis=1))
        squared = (1 - _ROUNDING) * (self.W**2).sum() - (along**2).sum()
        return float(np.sqrt(max(0.0, squared)))

    def to_family(self, point: StationaryPoint) -> float:
        """An upper bound of the distance to the students that compute a point of fewer neurons; infinite if unknown."""
        target = nearest_member(self.student, point) if len(point.W) else None
        found = [] if target is None else [target]
        if self.signs is None and len(point.W):
            unmoved = np.arange(self.landscape.teachers)
            for teachers in itertools.chain([unmoved], self._aligned(point.R, _FAMILY_TRIES)):
                target = self._member(point.R[:, teachers] @ self.inverse)
                found += [] if target is None else [target]
        return min((float(np.linalg.norm(self.W - target)) for target in found), default=np.inf)

    def _member(self, network: Matrix) -> Matrix | None:
        """The student near W that computes what a network (K_eff, r) does, each neuron by its nearest student first."""
        if not self.landscape.merges:
            return assigned(self.W, network, self.landscape.g.is_odd)
        groups = nearest_groups(self.W, network)
        students, neurons = linear_sum_assignment(((self.W[:, None, : self.rank] - network) ** 2).sum(axis=2))
        groups[students] = neurons
        return collapsed(self.student, Student(self.landscape, network, None), groups)


def can_turn(point: StationaryPoint) -> bool:
    """Whether the network of a point may be computed by neurons that point the other way: three at 120 degrees may.

    g(z) - g(-z) is linear where g is no odd function, so the neurons may move from one side of their lines to the other
    if they add up to the same sum: if sum_l x_l e_l = 0 for some x, not all zero, x_l >= 0 along a neuron e_l that has
    none opposite to it. Such students have zero loss where the point has, but are no copies of it.
    """
    if point.landscape.g.is_odd or not len(point.W):
        return False
    units = point.W / point.norms[:, None]
    opposite = cdist(units, -units) <= PARALLEL
    is_first = np.logical_not(np.tril(opposite).any(axis=1))  # of the one or two along a line
    lines, is_free = units[is_first], np.any(opposite, axis=1)[is_first]
    if np.linalg.matrix_rank(lines) == len(lines):
        return False
    if np.linalg.matrix_rank(lines[is_free]) < is_free.sum():
        return True
    bounds = [(-1, 1) if free else (0, 1) for free in is_free]
    # The largest x of all those in these bounds: there is one of length 1 at least, or none.
    found = linprog(is_free - 1.0, A_eq=lines.T, b_eq=np.zeros(lines.shape[1]), bounds=bounds)
    return found.status != 0 or found.fun < -0.5


def _best(gains: Matrix) -> tuple[float, Order]:
    """The largest sum of entries, one in each row and column (n, n), and the column of each row."""
    rows, columns = linear_sum_assignment(gains, maximize=True)
    return float(gains[rows, columns].sum()), columns


def _is_matching(X: Matrix) -> bool:
    """Whether each row and each column has one entry that is not zero, up to rounding, and all of these are equal."""
    largest = X.max(initial=0.0)
    ones, zeros = np.abs(X - largest) <= 1e-9 * largest, np.abs(X) <= 1e-9 * largest
    alone = all((ones.sum(axis=axis) == 1).all() for axis in (0, 1))
    return X.shape[0] == X.shape[1] and alone and bool((ones | zeros).all())


def class_permutations(T: Order, classes: list[Order]) -> Iterator[Order]:
    """Permutations (M,) that exchange whole classes of interchangeable teachers, and leave T as it is.

    T (M, M) holds the classes of its entries, which decide what is equal.
    With the permutations within classes they make all of Aut(T). Members stay in order; the first is the identity.
    """
    between = np.array([[T[a[0], b[-1]] for b in classes] for a in classes])  # in a class of one: the squared norm
    kinds = [(len(members), T[members[0], members[0]]) for members in classes]
    stack: list[list[int]] = [[]]
    while stack:
        images = stack.pop()
        if len(images) == len(classes):
            order = np.empty(len(T), np.intp)
            for members, image in zip(classes, images, strict=True):
                order[members] = classes[image]
            yield order
            continue
        at = len(images)
        for image in reversed(range(len(classes))):
            chosen = [*images, image]
            fits = image not in images and kinds[image] == kinds[at]
            if fits and np.array_equal(between[at, : at + 1], between[image, chosen]):
                stack.append(chosen)
