"""Retiring a lane: in which stationary point does the flow from here provably end?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from enumerator.lanes.basin import Basin, basin_of
from enumerator.loss.population import as_numpy
from enumerator.loss.second_layer import Student, normal_form
from enumerator.minima.collapse import NEAR, collapsed, loss_falls, nearest_member, possible_groups
from enumerator.minima.curvature import lifted_distance, polish_on_manifold, possible_lifts
from enumerator.minima.distinct import ByLoss, is_same, loss_gap
from enumerator.minima.effective import PARALLEL, groups_of, merged_student, zero_loss_network
from enumerator.minima.polish import compiled_polish, distance_by_one_step, nearest_stationary
from enumerator.minima.recognition import Recogniser
from enumerator.minima.stability import examine, network_of, stays_merged
from enumerator.points import FLAT_MINIMUM, SADDLE, Network, StationaryPoint, has_zero_loss
from enumerator.problem import Campaign, Landscape

# From weights (K, r + p), and signs of a trained second layer, to a stationary point, and the gradient norm there.
Method = Callable[[Landscape, NDArray[np.float64], NDArray[np.float64] | None], tuple[NDArray[np.float64], float]]


def _polish(
    landscape: Landscape, W: NDArray[np.float64], signs: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    """By Newton's method, see `polish` and `polish_on_manifold`."""
    g, manifold, _ = landscape.equations
    if not manifold.is_free:
        return polish_on_manifold(landscape.equations, manifold.project(W), landscape.teacher_factor)
    x, slope = compiled_polish(g, jnp.asarray(W), jnp.asarray(landscape.teacher_factor), signs)
    return as_numpy(x), float(slope)


def _polish_slowly(
    landscape: Landscape, W: NDArray[np.float64], signs: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    """By the norm of the gradient, see `nearest_stationary`; Newton's method again on a manifold."""
    if not landscape.equations.manifold.is_free:
        return _polish(landscape, W, signs)
    return nearest_stationary(landscape.g, W, landscape.teacher_factor, signs)


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
    """A lane whose end is asked for. `above`: it is not in the span of the teachers."""

    student: Student
    loss: float
    gradient_norm: float
    above: bool


class _Polished(NamedTuple):
    """The basin of the point that a student was polished to, with the weights (K_eff, r + p) and signs found there."""

    basin: Basin
    network: NDArray[np.float64]
    signs: NDArray[np.float64] | None


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
        signs = np.ones(len(network)) if network is not None and self.landscape.equations.is_trained else None
        self.zero = None if network is None else self._add(examine(network, self.landscape, campaign.tolerances, signs))

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
        steady = step * ball.steepest * (lane.student.stretch + 2 * ball.radius) <= 1
        return steady and lane.loss - basin.loss < ball.level

    def _recognised(self, lane: _Lane) -> End | None:
        """The minimum in hand whose ball holds the lane, if the assignments find it."""
        student = lane.student
        for basin in self._possible(lane):
            if self.recogniser.is_beyond(student.U, basin.overlaps, basin.ball(lane.above).radius):
                continue
            distance = self.recogniser.distance(student.U, basin.point, student.signs)
            if self._captures(basin, lane, distance):
                return End(basin, distance, True)
        return None

    def _polished(
        self,
        W: NDArray[np.float64],
        groups: NDArray[np.intp],
        signs: NDArray[np.float64] | None,
        method: Method = _polish,
    ) -> _Polished | None:
        """The stationary point that a method finds from the merged groups of W (K, r + p)."""
        (network, own), norm = merged_student(W, groups, signs), 0.0
        if len(network):
            network, norm = method(self.landscape, network, own)
        if not norm <= self.campaign.tolerances.stationary * self.scale:
            return None
        known = self._known(network_of(network, self.landscape, own))
        if known is None:
            known = self._add(examine(network, self.landscape, self.campaign.tolerances, own))
        return _Polished(known, network, own)

    def _known(self, network: Network) -> Basin | None:
        """The basin of a polished network, if its point is in hand.

        Mostly an assignment shows that it is one of them, and spares the search among all permutations.
        """
        near = self._near(network.loss, loss_gap(network))
        assigned = (basin for basin in near if self.recogniser.is_same(network, basin.point))
        searched = (basin for basin in near if is_same(network, basin.point))
        return next(itertools.chain(assigned, searched), None)

    def _lifts(self, W: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        """W (K, D) without perpendicular parts that vanish in the end: without any, where nothing is constrained."""
        rank = self.landscape.teacher_rank
        return [W[:, :rank]] if self.landscape.equations.manifold.is_free else possible_lifts(W, rank)

    def _isolated(self, lane: _Lane) -> End | None:
        """The polished lane, if its ball holds the lane, or if it is a saddle that the lane rests on."""
        student, rank, W = lane.student, self.landscape.teacher_rank, lane.student.U
        for lift in self._lifts(W):
            groups = self._groups(lift)
            polished = self._polished(lift, groups, student.signs)
            if polished is None:
                continue
            if self.landscape.equations.manifold.is_free:
                gap = np.linalg.norm(merged_student(lift, groups, student.signs)[0] - polished.network)
                distance = float(np.hypot(gap, np.linalg.norm(W[:, rank:])))
            else:
                distance = lifted_distance(W, polished.network, rank)
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
        student, network = lane.student, self.zero.point.W
        if len(network) < self.landscape.students:
            target = nearest_member(student.U, network, self.landscape, student.signs)
            distance = self._falls_to(student, target)
        else:
            distance = self._rests_at_zero_loss(student, lane.loss, network)
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

    def _is_at_zero_loss(self, lane: _Lane) -> End | None:
        """Zero loss, where a lane at rest is there in its own way, far from the teachers and from all their copies.

        So it may be where some teachers sum to zero: with neurons b v and -(1 - b) v in the place of each of them, for
        any b, a student is the same function. Nothing is lower. The distance is that of Newton's method.
        """
        landscape, student = self.landscape, lane.student
        if self.zero is None or not has_zero_loss(lane.loss, landscape) or not landscape.equations.manifold.is_free:
            return None
        definite = self.campaign.tolerances.definite
        distance = distance_by_one_step(landscape.g, student.U, landscape.teacher_factor, student.signs, definite)
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
        if polished is None or polished.basin.point.verdict != FLAT_MINIMUM:
            return None
        V, definite = self.landscape.teacher_factor, self.campaign.tolerances.definite
        return End(polished.basin, distance_by_one_step(self.landscape.g, U, V, signs, definite), True)

    def _merges(self, lane: _Lane) -> End | None:
        """The flat minimum that groups of the lane merge into."""
        student, W, signs = lane.student, lane.student.U, lane.student.signs
        for groups in self._tried_groups(W[:, : self.landscape.teacher_rank]):
            polished = self._polished(W[:, : self.landscape.teacher_rank], groups, signs)
            if polished is None or polished.basin.point.verdict != FLAT_MINIMUM:
                continue
            basin, network, own = polished
            relative = None if signs is None or own is None else signs * np.append(own, 1.0)[groups]
            stays = stays_merged(network, groups, self.landscape, own, signs, lane.above)
            distance = self._falls_to(student, collapsed(W, network, groups, relative)) if stays else None
            if distance is not None:
                return End(basin, distance, True)
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
        at = _Lane(student, loss, gradient_norm, bool(student.U[:, self.landscape.teacher_rank :].any()))
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
        W, signs, _ = self.student(lane)
        reach = NEAR * self.scale
        window = _LINGERING_LOSS * self.landscape.overlap_scale
        near = [basin for basin in self._near(loss, window) if basin.point.verdict == SADDLE]
        ends = [End(basin, self.recogniser.distance(W, basin.point, signs), False) for basin in near]
        nearest = min(ends, key=lambda end: end.distance, default=None)
        if nearest is not None and nearest.distance <= reach:
            return nearest
        lift = self._lifts(W)[0]
        alone = self._groups(lift)
        for groups in [alone, *self._tried_groups(lift)]:
            polished = self._polished(lift, groups, signs)
            if polished is None and groups is alone:
                polished = self._polished(lift, groups, signs, _polish_slowly)
            if polished is not None and polished.basin.point.verdict == SADDLE:
                distance = self._distance_to(W, polished.network, groups)
                if distance <= reach:
                    return End(polished.basin, distance, False)
        return None
