"""Retiring a lane: in which stationary point does the flow from here provably end?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from enumerator.loss.population import as_numpy
from enumerator.loss.second_layer import Student, normal_form
from enumerator.minima.balls import certified_radius, largest_reach
from enumerator.minima.collapse import NEAR, collapsed, loss_falls, nearest_member, possible_groups
from enumerator.minima.curvature import lifted_distance, manifold_newton, possible_lifts
from enumerator.minima.distinct import PointsByLoss, canonical, loss_gap, match_points
from enumerator.minima.effective import PARALLEL, groups_of, merged_student, zero_loss_network
from enumerator.minima.polish import compiled_polish, distance_by_newton, nearest_stationary
from enumerator.minima.recognition import Recogniser, loss_window
from enumerator.minima.stability import examine, network_of, stays_merged
from enumerator.points import FLAT_MINIMUM, SADDLE, Network, StationaryPoint, has_zero_loss
from enumerator.problem import Campaign, Landscape

# From weights (K, r + p), and signs of a trained second layer, to a stationary point, and the gradient norm there.
Method = Callable[[Landscape, NDArray[np.float64], NDArray[np.float64] | None], tuple[NDArray[np.float64], float]]


def newton(
    landscape: Landscape, W: NDArray[np.float64], signs: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    """Newton's method from W, see `polish` and `manifold_newton`."""
    g, manifold, _ = landscape.equations
    if not manifold.is_free:
        return manifold_newton(landscape.equations, manifold.project(W), landscape.teacher_factor)
    x, slope = compiled_polish(g, jnp.asarray(W), jnp.asarray(landscape.teacher_factor), signs)
    return as_numpy(x), float(slope)


def slowly(
    landscape: Landscape, W: NDArray[np.float64], signs: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    """By the norm of the gradient, see `nearest_stationary`; Newton's method again on a manifold."""
    if not landscape.equations.manifold.is_free:
        return newton(landscape, W, signs)
    return nearest_stationary(landscape.g, W, landscape.teacher_factor, signs)


# A lane that lingers on a saddle has its loss up to this part of the largest squared teacher.
_LINGERING_LOSS = 1e-3

# The loss of a lane, with angles by arccos, may fall below that of its minimum by this much, over the
# largest squared norm of a teacher.
_LOSS_ROUNDING = 1e-12
# A lane rests on a saddle within this distance, over the norm of the teachers: a start that comes so
# close by chance has a probability of that order; by the symmetry of its overlaps it comes closer.
_AT_REST = 1e-9


class Ball(NamedTuple):
    """A certified ball: its Frobenius radius (0: none), and how far above its centre's loss a lane in it can be.

    Below `level` above the centre no descent leaves the ball, whatever its way; `steepest` bounds the curvature in it.
    """

    radius: float
    window: float
    level: float
    steepest: float


class End(NamedTuple):
    """Where a lane ends: position of the point, its Frobenius distance from the lane, and what it is."""

    point: int
    distance: float
    is_minimum: bool


class Basins:
    """The stationary points met so far, and the certified balls around the minima among them.

    A lane is captured only inside such a ball, where the flow provably ends in the centre, so that
    the answer for a lane does not depend on what is in hand when it is asked.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.landscape = campaign.landscape
        self.scale = self.landscape.teacher_scale
        self.points = PointsByLoss()
        # For lanes in the span of the teachers (False), which they never leave, and outside it (True); and the
        # highest losses of lanes in the balls, by position.
        self.balls: dict[bool, list[Ball]] = {False: [], True: []}
        self._highest = {above: np.zeros(0) for above in self.balls}
        self._levels: list[NDArray[np.float64]] = []
        self.recogniser = Recogniser(self.landscape)
        self._canonical: dict[int, StationaryPoint] = {}
        # The point that stands for all points of zero loss, if there are any; in hand from the start.
        network = zero_loss_network(self.landscape)
        signs = np.ones(len(network)) if network is not None and self.landscape.equations.is_trained else None
        self.zero = -1 if network is None else self._add(examine(network, self.landscape, campaign.tolerances, signs))

    @property
    def first_look(self) -> float:
        """Gradient norm below which a lane is first compared with the points in hand."""
        return self.campaign.tolerances.first_look * self.scale

    @property
    def first_polish(self) -> float:
        """Gradient norm below which a lane is first polished."""
        return self.campaign.tolerances.newton_below * self.scale

    @property
    def at_rest(self) -> float:
        """Gradient norm below which a lane may rest on a saddle: ten times that of a polished point."""
        return 10 * self.campaign.tolerances.stationary * self.scale

    def _add(self, point: StationaryPoint) -> int:
        for above, balls in self.balls.items():
            radius = self._stable(point, certified_radius(point, above), above)
            reach, bend = largest_reach(point, radius)
            lowest = point.hessian_min if not above else min(point.hessian_min, point.perpendicular_min)
            # On the sphere of radius `reach` the loss is at least this much above that of the centre.
            level = reach**2 * (lowest / 2 - bend * reach / 6) if radius > 0 else 0.0
            steepest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0))) + bend * reach
            ball = Ball(radius, loss_window(point, reach, bend), level, steepest)
            balls.append(ball)
            highest = point.loss + ball.window if radius > 0 else -np.inf
            self._highest[above] = np.append(self._highest[above], highest)
        self._levels.append(np.sort(point.R, axis=None))
        return self.points.add(point)

    def _stable(self, point: StationaryPoint, radius: float, above: bool) -> float:
        """The part of a certified radius in which the steps of the dynamics, if it has any, contract.

        A step of gradient descent multiplies the distance by 1 - step x (mean Hessian), whose eigenvalues are
        positive in the ball, and at most largest + L radius/2. On a manifold the projection after each step adds
        curvature; there twice these eigenvalues must contract.
        """
        step = self.campaign.dynamics.step
        if step is None or radius == 0 or self.landscape.equations.is_trained:
            return radius
        reach, bend = largest_reach(point, radius)
        largest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0)) if above else 0.0)
        most = (2 if self.landscape.equations.manifold.is_free else 1) / step
        return min(radius, max(0.0, 2 * (most - largest) / bend) * radius / reach)

    def _groups(self, W: NDArray[np.float64]) -> NDArray[np.intp]:
        """Groups (K,) of parallel students of W (K, r), where the activation merges them."""
        return groups_of(W, self.scale) if self.landscape.merges else np.arange(len(W))

    def _tried_groups(self, W: NDArray[np.float64]) -> list[NDArray[np.intp]]:
        """Groups of students that may be merging, see `possible_groups`."""
        return possible_groups(W, self.scale) if self.landscape.merges else []

    def canonical(self, position: int) -> StationaryPoint:
        """The point at a position, in canonical order and with its isotropy group."""
        if position not in self._canonical:
            self._canonical[position] = canonical(self.points[position])
        return self._canonical[position]

    def _holds(self, position: int, above: bool, distance: float, loss: float, stretch: float) -> bool:
        """Whether the ball of a point holds a lane at this distance, with this loss, for good.

        Gradient flow and descent come nearer to the centre all the time. With a trained second layer the neurons
        descend, but not along the gradient: there the loss must be too low to leave, and a step too short to raise it.
        """
        ball = self.balls[above][position]
        if not distance < ball.radius:  # strictly: a radius of zero certifies nothing
            return False
        if not self.landscape.equations.is_trained:
            return True
        step = self.campaign.dynamics.step or 0.0
        # The neurons may grow on their way, by the radius each at the most, and their stretch by twice that.
        steady = step * ball.steepest * (stretch + 2 * ball.radius) <= 1
        return steady and loss - self.points[position].loss < ball.level

    def _recognised(self, student: Student, loss: float, above: bool) -> End | None:
        """The minimum in hand whose ball holds the lane, if the assignments find it."""
        rounding = _LOSS_ROUNDING * self.landscape.overlap_scale
        possible = (self.points.losses - rounding <= loss) & (loss <= self._highest[above])
        for position in np.flatnonzero(possible).tolist():
            if self.recogniser.is_beyond(student.U, self._levels[position], self.balls[above][position].radius):
                continue
            distance = self.recogniser.distance(student.U, self.points[position], student.signs)
            if self._holds(position, above, distance, loss, student.stretch):
                return End(position, distance, True)
        return None

    def _polished(
        self,
        W: NDArray[np.float64],
        groups: NDArray[np.intp],
        signs: NDArray[np.float64] | None,
        method: Method = newton,
    ) -> tuple[int, NDArray[np.float64], NDArray[np.float64] | None] | None:
        """The stationary point that a method finds from the merged groups of W (K, r + p): position, weights, signs."""
        (network, own), norm = merged_student(W, groups, signs), 0.0
        if len(network):
            network, norm = method(self.landscape, network, own)
        if not norm <= self.campaign.tolerances.stationary * self.scale:
            return None
        known = self._known(network_of(network, self.landscape, own))
        if known < 0:
            known = self._add(examine(network, self.landscape, self.campaign.tolerances, own))
        return known, network, own

    def _known(self, network: Network) -> int:
        """The position of a polished network among the points in hand, or -1.

        Mostly an assignment shows that it is one of them, and spares the search among all permutations.
        """
        for position in self.points.near(network.loss, loss_gap(network)):
            if self.recogniser.is_same(network, self.points[position]):
                return position
        return match_points([network], self.points)[0]

    def _lifts(self, W: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """W (K, D) without perpendicular parts that vanish in the end: without any, where nothing is constrained."""
        rank = self.landscape.teacher_rank
        return [W[:, :rank]] if self.landscape.equations.manifold.is_free else possible_lifts(W, rank)

    def _isolated(self, student: Student, loss: float, gradient_norm: float, above: bool) -> End | None:
        """The polished lane, if its ball holds the lane, or if it is a saddle that the lane rests on."""
        rank, W = self.landscape.teacher_rank, student.U
        for lift in self._lifts(W):
            groups = self._groups(lift)
            polished = self._polished(lift, groups, student.signs)
            if polished is None:
                continue
            position, network, _ = polished
            if self.landscape.equations.manifold.is_free:
                gap = np.linalg.norm(merged_student(lift, groups, student.signs)[0] - network)
                distance = float(np.hypot(gap, np.linalg.norm(W[:, rank:])))
            else:
                distance = lifted_distance(W, network, rank)
            if self._holds(position, above, distance, loss, student.stretch):
                return End(position, distance, True)
            rests = gradient_norm <= self.at_rest and distance <= _AT_REST * self.scale
            if rests and self.points[position].verdict == SADDLE:
                return End(position, distance, False)
        return None

    def _reaches_zero_loss(self, student: Student, loss: float) -> End | None:
        """Zero loss, if the lane merges into one of a family of students, or is there already to all digits."""
        if self.zero < 0:
            return None
        network = self.points[self.zero].W
        if len(network) < self.landscape.students:
            target = nearest_member(student.U, network, self.landscape, student.signs)
            distance = self._falls_to(student, target)
        else:
            distance = self._rests_at_zero_loss(student, loss, network)
        return None if distance is None else End(self.zero, distance, True)

    def _rests_at_zero_loss(self, student: Student, loss: float, network: NDArray[np.float64]) -> float | None:
        """Distance of a lane to the teachers, which it cannot be told apart from by its loss, nor on the way there.

        So it is where teachers are nearly collinear: the smallest eigenvalue falls like the third power of their angle,
        and with it the ball, and the flow takes as long as that to arrive.
        """
        if not has_zero_loss(loss, self.landscape) or not self.landscape.merges:
            return None
        target = np.pad(network, ((0, 0), (0, student.U.shape[1] - network.shape[1])))
        target = target[linear_sum_assignment(cdist(student.U, target, "sqeuclidean"))[1]]
        if student.signs is not None and (student.signs < 0).any():
            return None
        is_downhill = loss_falls(student.U, target, self.landscape, student.signs)
        return float(np.linalg.norm(student.U - target)) if is_downhill else None

    def _is_at_zero_loss(self, student: Student, loss: float) -> End | None:
        """Zero loss, where a lane at rest is there in its own way, far from the teachers and from all their copies.

        So it may be where some teachers sum to zero: with neurons b v and -(1 - b) v in the place of each of them, for
        any b, a student is the same function. Nothing is lower. The distance is that of Newton's method.
        """
        landscape = self.landscape
        if self.zero < 0 or not has_zero_loss(loss, landscape) or not landscape.equations.manifold.is_free:
            return None
        definite = self.campaign.tolerances.definite
        distance = distance_by_newton(landscape.g, student.U, landscape.teacher_factor, student.signs, definite)
        return End(self.zero, distance, True) if distance <= NEAR * self.scale else None

    def _rests_on_a_line(self, student: Student) -> End | None:
        """The flat minimum that a lane at rest computes in one dimension, where neurons of either sign may cancel.

        There the loss is a convex function of two numbers, the sums of the neurons on either side, and no neuron can
        turn: a student at rest is at a minimum. Elsewhere neurons that cancel part, and descend.
        """
        U, signs = student.U, student.signs
        if signs is None or U.shape[1] > 1:
            return None
        sides = (U[:, 0] < 0).astype(np.intp)
        is_left = np.abs(np.bincount(sides, weights=signs * U[:, 0], minlength=2)) > PARALLEL * self.scale
        groups = np.where(is_left[sides], sides - (not is_left[0]), -1)
        polished = self._polished(U, groups, signs)
        if polished is None or self.points[polished[0]].verdict != FLAT_MINIMUM:
            return None
        V, definite = self.landscape.teacher_factor, self.campaign.tolerances.definite
        return End(polished[0], distance_by_newton(self.landscape.g, U, V, signs, definite), True)

    def _merges(self, student: Student, above: bool) -> End | None:
        """The flat minimum that groups of the lane merge into, in the span of the teachers or (`above`) beyond it."""
        W, signs = student.U, student.signs
        for groups in self._tried_groups(W[:, : self.landscape.teacher_rank]):
            polished = self._polished(W[:, : self.landscape.teacher_rank], groups, signs)
            if polished is None or self.points[polished[0]].verdict != FLAT_MINIMUM:
                continue
            position, network, own = polished
            relative = None if signs is None or own is None else signs * np.append(own, 1.0)[groups]
            stays = stays_merged(network, groups, self.landscape, own, signs, above)
            distance = self._falls_to(student, collapsed(W, network, groups, relative)) if stays else None
            if distance is not None:
                return End(position, distance, True)
        return None

    def _falls_to(self, student: Student, target: NDArray[np.float64] | None) -> float | None:
        """Distance from the lane to its collapse, None if that is far, or the loss rises on the way."""
        if target is None:
            return None
        distance = float(np.linalg.norm(student.U - target))
        near = distance <= NEAR * self.scale
        return distance if near and loss_falls(student.U, target, self.landscape, student.signs) else None

    def _distance_to(self, W: NDArray[np.float64], network: NDArray[np.float64], groups: NDArray[np.intp]) -> float:
        """Distance of W (K, D) to a network that its groups collapse onto; infinite if they do not."""
        if not self.landscape.equations.manifold.is_free:
            return lifted_distance(W, network, self.landscape.teacher_rank)
        target = collapsed(W, network, groups)
        return np.inf if target is None else float(np.linalg.norm(W - target))

    def student(self, lane: NDArray[np.float64]) -> Student:
        """The student of a lane, (K, D) or with a second layer (K, D + 2), in normal form."""
        return normal_form(lane) if self.landscape.equations.is_trained else Student(lane)

    def ends_in(self, lane: NDArray[np.float64], loss: float, gradient_norm: float, polishes: bool) -> End | None:
        """The stationary point in which the flow from a lane ends, or None where nothing is proven yet.

        Points that are not in hand are found only if the lane is polished (`polishes`).
        """
        student = self.student(lane)
        above = bool(student.U[:, self.landscape.teacher_rank :].any())
        found = self._recognised(student, loss, above)
        if found is None and gradient_norm <= self.campaign.tolerances.collapse_below * self.scale:
            found = self._reaches_zero_loss(student, loss)
        if found is None and polishes:
            found = self._isolated(student, loss, gradient_norm, above) or self._merges(student, above)
        if found is None and gradient_norm <= self.at_rest:
            found = self._is_at_zero_loss(student, loss) or self._rests_on_a_line(student)
        if found is not None and self.zero >= 0 and has_zero_loss(self.points[found.point].loss, self.landscape):
            return found._replace(point=self.zero)
        return found

    def lingered(self, lane: NDArray[np.float64], loss: float) -> End | None:
        """The saddle near which a lane had a low gradient that rose again: the nearest in hand, or one to be found.

        Where several saddles are within reach of each other, which of them it is may depend on those in hand.
        """
        W, signs, _ = self.student(lane)
        reach = NEAR * self.scale
        window = _LINGERING_LOSS * self.landscape.overlap_scale
        near = [k for k in self.points.near(loss, window) if self.points[k].verdict == SADDLE]
        ends = [End(k, self.recogniser.distance(W, self.points[k], signs), False) for k in near]
        nearest = min(ends, key=lambda end: end.distance, default=None)
        if nearest is not None and nearest.distance <= reach:
            return nearest
        lift = self._lifts(W)[0]
        alone = self._groups(lift)
        for groups in [alone, *self._tried_groups(lift)]:
            polished = self._polished(lift, groups, signs)
            if polished is None and groups is alone:
                polished = self._polished(lift, groups, signs, slowly)
            if polished is not None and self.points[polished[0]].verdict == SADDLE:
                distance = self._distance_to(W, polished[1], groups)
                if distance <= reach:
                    return End(polished[0], distance, False)
        return None
