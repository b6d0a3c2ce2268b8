"""Retiring a lane: in which stationary point does the flow from here provably end?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from enumerator.lanes.basin import Basin, basin_of
from enumerator.loss.population import as_numpy
from enumerator.loss.second_layer import normal_form, stretch_of
from enumerator.minima.collapse import NEAR, collapsed, loss_falls, nearest_member, possible_groups
from enumerator.minima.curvature import lifted_distance, polish_on_manifold, possible_lifts
from enumerator.minima.distinct import ByLoss, is_same, loss_gap
from enumerator.minima.effective import PARALLEL, groups_of, merged_student, zero_loss_network
from enumerator.minima.polish import compiled_polish, distance_by_one_step, nearest_stationary
from enumerator.minima.recognition import Recogniser
from enumerator.minima.stability import examine, network_of, stays_merged
from enumerator.points import FLAT_MINIMUM, SADDLE, Network, StationaryPoint, Student, has_zero_loss
from enumerator.problem import Campaign, Landscape

# From a student (K, r + p) to the weights of a stationary point, and the gradient norm there.
Method = Callable[[Student], tuple[NDArray[np.float64], float]]


def _polish(student: Student) -> tuple[NDArray[np.float64], float]:
    """By Newton's method, see `polish` and `polish_on_manifold`."""
    landscape, W = student.landscape, student.W
    g, manifold, _ = landscape.equations
    if not manifold.is_free:
        return polish_on_manifold(landscape.equations, manifold.project(W), landscape.teacher_factor)
    V = jnp.asarray(landscape.teacher_factor)
    x, slope = compiled_polish(g, jnp.asarray(W), V, student.second_layer_weights)
    return as_numpy(x), float(slope)


def _polish_slowly(student: Student) -> tuple[NDArray[np.float64], float]:
    """By the norm of the gradient, see `nearest_stationary`; Newton's method again on a manifold."""
    landscape = student.landscape
    if not landscape.equations.manifold.is_free:
        return _polish(student)
    return nearest_stationary(landscape.g, student.W, landscape.teacher_factor, student.second_layer_weights)


def _student_of(landscape: Landscape, lane: NDArray[np.float64]) -> Student:
    """The student of a lane, (K, D) or with a second layer (K, D + 2), see `second_layer`."""
    return Student(landscape, *normal_form(lane)) if landscape.equations.is_trained else Student(landscape, lane, None)


# A lane that lingers on a saddle has its loss up to this part of the largest squared teacher.
_LINGERING_LOSS = 1e-3

# The loss of a lane, with angles by arccos, may fall below that of its minimum by this much, over the
# largest squared norm of a teacher.
_LOSS_ROUNDING = 1e-12
# A lane rests on a saddle within this distance, over the norm of the teachers: a start that comes so
# close by chance has a probability of that order; by the symmetry of its overlaps it comes closer.
_AT_REST = 1e-9


class End(NamedTuple):
    """Where a lane ends: the basin of the point, its Frobenius distance from the lane, and what it is."""

    basin: Basin
    distance: float
    is_minimum: bool


class _Lane(NamedTuple):
    """A lane whose end is asked for. `above`: it is not in the span of the teachers. `stretch`: see `stretch_of`."""

    student: Student
    stretch: float
    loss: float
    gradient_norm: float
    above: bool


class _Polished(NamedTuple):
    """The basin of the point that a student was polished to, and the network (K_eff, r + p) found there."""

    basin: Basin
    network: Student


class Basins:
    """The stationary points met so far, by position, and the certified balls around the minima among them.

    A lane is captured only inside such a ball, where the flow provably ends in the centre, so that
    the answer for a lane does not depend on what is in hand when it is asked.
    """

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.landscape = campaign.landscape
        self.scale = self.landscape.teacher_scale
        self.recogniser = Recogniser(self.landscape)
        self._met: ByLoss[Basin] = ByLoss()
        # The highest losses of lanes in the balls (n, 2), inside and beyond the span, to compare all at once.
        self._highest = np.zeros((0, 2))
        # The point that stands for all points of zero loss, if there are any; in hand from the start.
        network = zero_loss_network(self.landscape)
        self.zero = None if network is None else self._add(examine(network, campaign.tolerances))

    def __len__(self) -> int:
        return len(self._met)

    def __getitem__(self, position: int) -> Basin:
        return self._met[position]

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

    def _add(self, point: StationaryPoint) -> Basin:
        basin = basin_of(point, self.campaign, len(self))
        self._met.add(basin)
        self._highest = np.append(self._highest, [[basin.inside.highest, basin.beyond.highest]], axis=0)
        return basin

    def _near(self, loss: float, width: float) -> list[Basin]:
        """The basins of the points whose loss is at most `width` from this one."""
        return [self[position] for position in self._met.near(loss, width)]

    def _possible(self, lane: _Lane) -> Iterator[Basin]:
        """The basins with a ball that may hold a lane of this loss."""
        rounding = _LOSS_ROUNDING * self.landscape.overlap_scale
        highest = self._highest[:, int(lane.above)]
        possible = (self._met.losses - rounding <= lane.loss) & (lane.loss <= highest)
        return map(self.__getitem__, np.flatnonzero(possible).tolist())

    def _groups(self, W: NDArray[np.float64]) -> NDArray[np.intp]:
        """Groups (K,) of parallel students of W (K, r), where the activation merges them."""
        return groups_of(W, self.scale) if self.landscape.merges else np.arange(len(W))

    def _tried_groups(self, W: NDArray[np.float64]) -> list[NDArray[np.intp]]:
        """Groups of students that may be merging, see `possible_groups`."""
        return possible_groups(W, self.scale) if self.landscape.merges else []

    def _captures(self, basin: Basin, lane: _Lane, distance: float) -> bool:
        """Whether the ball of a point holds a lane at this distance for good.

        Gradient flow and descent come nearer to the centre all the time. With a trained second layer the neurons
        descend, but not along the gradient: there the loss must be too low to leave, and a step too short to raise it.
        """
        ball = basin.ball(lane.above)
        if not distance < ball.radius:  # strictly: a radius of zero certifies nothing
            return False
        if not self.landscape.equations.is_trained:
            return True
        step = self.campaign.dynamics.step or 0.0
        # The neurons may grow on their way, by the radius each at the most, and their stretch by twice that.
        steady = step * ball.steepest * (lane.stretch + 2 * ball.radius) <= 1
        return steady and lane.loss - basin.loss < ball.level

    def _recognised(self, lane: _Lane) -> End | None:
        """The minimum in hand whose ball holds the lane, if the assignments find it."""
        student = lane.student
        for basin in self._possible(lane):
            if self.recogniser.is_beyond(student.W, basin.overlaps, basin.ball(lane.above).radius):
                continue
            distance = self.recogniser.distance(student, basin.point)
            if self._captures(basin, lane, distance):
                return End(basin, distance, True)
        return None

    def _polished(self, student: Student, groups: NDArray[np.intp], method: Method = _polish) -> _Polished | None:
        """The stationary point that a method finds from the merged groups of a student (K, r + p)."""
        network, norm = merged_student(student, groups), 0.0
        if len(network.W):
            W, norm = method(network)
            network = replace(network, W=W)
        if not norm <= self.campaign.tolerances.stationary * self.scale:
            return None
        known = self._known(network_of(network))
        if known is None:
            known = self._add(examine(network, self.campaign.tolerances))
        return _Polished(known, network)

    def _known(self, network: Network) -> Basin | None:
        """The basin of a polished network, if its point is in hand.

        Mostly an assignment shows that it is one of them, and spares the search among all permutations.
        """
        near = self._near(network.loss, loss_gap(network))
        assigned = (basin for basin in near if self.recogniser.is_same(network, basin.point))
        searched = (basin for basin in near if is_same(network, basin.point))
        return next(itertools.chain(assigned, searched), None)

    def _in_span(self, student: Student) -> Student:
        """A student (K, D) without its perpendicular part."""
        return replace(student, W=student.W[:, : self.landscape.teacher_rank])

    def _lifts(self, student: Student) -> list[Student]:
        """A student without perpendicular parts that vanish in the end: without any, where nothing is constrained."""
        if self.landscape.equations.manifold.is_free:
            return [self._in_span(student)]
        return [replace(student, W=W) for W in possible_lifts(student.W, self.landscape.teacher_rank)]

    def _isolated(self, lane: _Lane) -> End | None:
        """The polished lane, if its ball holds the lane, or if it is a saddle that the lane rests on."""
        rank, W = self.landscape.teacher_rank, lane.student.W
        for lift in self._lifts(lane.student):
            groups = self._groups(lift.W)
            polished = self._polished(lift, groups)
            if polished is None:
                continue
            if self.landscape.equations.manifold.is_free:
                gap = np.linalg.norm(merged_student(lift, groups).W - polished.network.W)
                distance = float(np.hypot(gap, np.linalg.norm(W[:, rank:])))
            else:
                distance = lifted_distance(W, polished.network.W, rank)
            if self._captures(polished.basin, lane, distance):
                return End(polished.basin, distance, True)
            rests = lane.gradient_norm <= self.at_rest and distance <= _AT_REST * self.scale
            if rests and polished.basin.point.verdict == SADDLE:
                return End(polished.basin, distance, False)
        return None

    def _reaches_zero_loss(self, lane: _Lane) -> End | None:
        """Zero loss, if the lane merges into one of a family of students, or is there already to all digits."""
        if self.zero is None:
            return None
        network = self.zero.point
        if len(network.W) < self.landscape.students:
            distance = self._falls_to(lane.student, nearest_member(lane.student, network))
        else:
            distance = self._rests_at_zero_loss(lane.student, lane.loss, network.W)
        return None if distance is None else End(self.zero, distance, True)

    def _rests_at_zero_loss(self, student: Student, loss: float, network: NDArray[np.float64]) -> float | None:
        """Distance of a lane to the teachers, which it cannot be told apart from by its loss, nor on the way there.

        So it is where teachers are nearly collinear: the smallest eigenvalue falls like the third power of their angle,
        and with it the ball, and the flow takes as long as that to arrive.
        """
        if not has_zero_loss(loss, self.landscape) or not self.landscape.merges:
            return None
        W, signs = student.W, student.second_layer_weights
        target = np.pad(network, ((0, 0), (0, W.shape[1] - network.shape[1])))
        target = target[linear_sum_assignment(cdist(W, target, "sqeuclidean"))[1]]
        if signs is not None and (signs < 0).any():
            return None
        return float(np.linalg.norm(W - target)) if loss_falls(student, target) else None

    def _is_at_zero_loss(self, lane: _Lane) -> End | None:
        """Zero loss, where a lane at rest is there in its own way, far from the teachers and from all their copies.

        So it may be where some teachers sum to zero: with neurons b v and -(1 - b) v in the place of each of them, for
        any b, a student is the same function. Nothing is lower. The distance is that of Newton's method.
        """
        landscape, student = self.landscape, lane.student
        if self.zero is None or not has_zero_loss(lane.loss, landscape) or not landscape.equations.manifold.is_free:
            return None
        distance = self._one_step(student)
        return End(self.zero, distance, True) if distance <= NEAR * self.scale else None

    def _rests_on_a_line(self, student: Student) -> End | None:
        """The flat minimum that a lane at rest computes in one dimension, where neurons of either sign may cancel.

        There the loss is a convex function of two numbers, the sums of the neurons on either side, and no neuron can
        turn: a student at rest is at a minimum. Elsewhere neurons that cancel part, and descend.
        """
        U, signs = student.W, student.second_layer_weights
        if signs is None or U.shape[1] > 1:
            return None
        sides = (U[:, 0] < 0).astype(np.intp)
        is_left = np.abs(np.bincount(sides, weights=signs * U[:, 0], minlength=2)) > PARALLEL * self.scale
        groups = np.where(is_left[sides], sides - (not is_left[0]), -1)
        polished = self._polished(student, groups)
        if polished is None or polished.basin.point.verdict != FLAT_MINIMUM:
            return None
        return End(polished.basin, self._one_step(student), True)

    def _one_step(self, student: Student) -> float:
        """How far the stationary points near a student are to first order, see `distance_by_one_step`."""
        g, V, definite = self.landscape.g, self.landscape.teacher_factor, self.campaign.tolerances.definite
        return distance_by_one_step(g, student.W, V, student.second_layer_weights, definite)

    def _merges(self, lane: _Lane) -> End | None:
        """The flat minimum that groups of the lane merge into."""
        student, inside = lane.student, self._in_span(lane.student)
        for groups in self._tried_groups(inside.W):
            polished = self._polished(inside, groups)
            if polished is None or polished.basin.point.verdict != FLAT_MINIMUM:
                continue
            stays = stays_merged(student, polished.network, groups, lane.above)
            distance = self._falls_to(student, collapsed(student, polished.network, groups)) if stays else None
            if distance is not None:
                return End(polished.basin, distance, True)
        return None

    def _falls_to(self, student: Student, target: NDArray[np.float64] | None) -> float | None:
        """Distance from the lane to its collapse, None if that is far, or the loss rises on the way."""
        if target is None:
            return None
        distance = float(np.linalg.norm(student.W - target))
        is_near = distance <= NEAR * self.scale
        return distance if is_near and loss_falls(student, target) else None

    def _distance_to(self, student: Student, network: Student, groups: NDArray[np.intp]) -> float:
        """Distance of a student to those that compute a network which its groups collapse onto; infinite if none do."""
        if not self.landscape.equations.manifold.is_free:
            return lifted_distance(student.W, network.W, self.landscape.teacher_rank)
        target = collapsed(student, network, groups)
        return np.inf if target is None else float(np.linalg.norm(student.W - target))

    def ends_in(self, lane: NDArray[np.float64], loss: float, gradient_norm: float, polishes: bool) -> End | None:
        """The stationary point in which the flow from a lane ends, or None where nothing is proven yet.

        Points that are not in hand are found only if the lane is polished (`polishes`).
        """
        student, stretch = _student_of(self.landscape, lane), 1.0
        if self.landscape.equations.is_trained:
            stretch = stretch_of(lane)
        above = bool(student.W[:, self.landscape.teacher_rank :].any())
        at = _Lane(student, stretch, loss, gradient_norm, above)
        found = self._recognised(at)
        if found is None and gradient_norm <= self.campaign.tolerances.collapse_below * self.scale:
            found = self._reaches_zero_loss(at)
        if found is None and polishes:
            found = self._isolated(at) or self._merges(at)
        if found is None and gradient_norm <= self.at_rest:
            found = self._is_at_zero_loss(at) or self._rests_on_a_line(student)
        if found is not None and self.zero is not None and has_zero_loss(found.basin.loss, self.landscape):
            return found._replace(basin=self.zero)
        return found

    def lingered(self, lane: NDArray[np.float64], loss: float) -> End | None:
        """The saddle near which a lane had a low gradient that rose again: the nearest in hand, or one to be found.

        Where several saddles are within reach of each other, which of them it is may depend on those in hand.
        """
        student = _student_of(self.landscape, lane)
        reach = NEAR * self.scale
        window = _LINGERING_LOSS * self.landscape.overlap_scale
        near = [basin for basin in self._near(loss, window) if basin.point.verdict == SADDLE]
        ends = [End(basin, self.recogniser.distance(student, basin.point), False) for basin in near]
        nearest = min(ends, key=lambda end: end.distance, default=None)
        if nearest is not None and nearest.distance <= reach:
            return nearest
        lift = self._lifts(student)[0]
        alone = self._groups(lift.W)
        for groups in [alone, *self._tried_groups(lift.W)]:
            polished = self._polished(lift, groups)
            if polished is None and groups is alone:
                polished = self._polished(lift, groups, _polish_slowly)
            if polished is not None and polished.basin.point.verdict == SADDLE:
                distance = self._distance_to(student, polished.network, groups)
                if distance <= reach:
                    return End(polished.basin, distance, False)
        return None
