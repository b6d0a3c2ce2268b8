"""Retiring a lane: in which stationary point does the flow from here provably end?"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.collapse import NEAR, collapsed, loss_falls, nearest_groups, possible_groups
from enumerator.distinct import canonical, match_points
from enumerator.effective import groups_of, has_zero_loss, merged, zero_loss_network
from enumerator.loss import as_numpy
from enumerator.newton import nearest_stationary, polish
from enumerator.problem import Campaign
from enumerator.recognition import Recogniser, loss_window
from enumerator.stability import (
    FLAT_MINIMUM,
    SADDLE,
    StationaryPoint,
    certified_radius,
    examine,
    hessian_lipschitz,
    network_of,
    stays_merged,
)

_polish = jax.jit(polish)

# From W (K, r) and V (M, r) to a stationary point and the gradient norm there.
Method = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], float]]


def newton(W: NDArray[np.float64], V: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Newton's method from W, see `polish`."""
    x, slope = _polish(jnp.asarray(W), jnp.asarray(V))
    return as_numpy(x), float(slope)


# A lane that lingers on a saddle has its loss up to this part of the largest squared teacher.
_LINGERING_LOSS = 1e-3

# The loss of a lane, with angles by arccos, may fall below that of its minimum by this much, over the
# largest squared norm of a teacher.
_LOSS_ROUNDING = 1e-12
# A lane rests on a saddle within this distance, over the norm of the teachers: a start that comes so
# close by chance has a probability of that order; by the symmetry of its overlaps it comes closer.
_AT_REST = 1e-9


class Ball(NamedTuple):
    """A certified ball: its Frobenius radius (0: none), and how far above its centre's loss a lane in it can be."""

    radius: float
    window: float


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
        self.points: list[StationaryPoint] = []
        # For lanes in the span of the teachers (False), which they never leave, and outside it (True).
        self.balls: dict[bool, list[Ball]] = {False: [], True: []}
        self.recogniser = Recogniser(self.landscape)
        self._canonical: dict[int, StationaryPoint] = {}
        # The point that stands for all points of zero loss, if there are any; in hand from the start.
        network = zero_loss_network(self.landscape)
        self.zero = -1 if network is None else self._add(examine(network, self.landscape, campaign.tolerances))

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
            radius = certified_radius(point, above)
            lipschitz = hessian_lipschitz(point.norms, point.teacher_norms, radius)
            balls.append(Ball(radius, loss_window(point, radius, lipschitz)))
        self.points.append(point)
        return len(self.points) - 1

    def canonical(self, position: int) -> StationaryPoint:
        """The point at a position, in canonical order and with its isotropy group."""
        if position not in self._canonical:
            self._canonical[position] = canonical(self.points[position])
        return self._canonical[position]

    def _recognised(self, W: NDArray[np.float64], loss: float, above: bool) -> End | None:
        """The minimum in hand whose ball holds the lane, if the assignments find it."""
        rounding = _LOSS_ROUNDING * self.landscape.overlap_scale
        for position, (point, ball) in enumerate(zip(self.points, self.balls[above], strict=True)):
            if ball.radius > 0 and -rounding <= loss - point.loss <= ball.window:
                distance = self.recogniser.distance(W, point)
                if distance < ball.radius:
                    return End(position, distance, True)
        return None

    def _polished(
        self, W: NDArray[np.float64], groups: NDArray[np.intp], method: Method = newton
    ) -> tuple[int, NDArray[np.float64]] | None:
        """The stationary point that a method finds from the merged groups of W (K, D): position and weights."""
        network, norm = merged(W[:, : self.landscape.teacher_rank], groups), 0.0
        if len(network):
            network, norm = method(network, self.landscape.teacher_factor)
        if not norm <= self.campaign.tolerances.stationary * self.scale:
            return None
        known = match_points([network_of(network, self.landscape)], self.points)[0]
        if known < 0:
            known = self._add(examine(network, self.landscape, self.campaign.tolerances))
        return known, network

    def _isolated(self, W: NDArray[np.float64], gradient_norm: float, above: bool) -> End | None:
        """The polished lane, if its ball holds the lane, or if it is a saddle that the lane rests on."""
        groups = groups_of(W[:, : self.landscape.teacher_rank], self.scale)
        polished = self._polished(W, groups)
        if polished is None:
            return None
        position, network = polished
        rank = self.landscape.teacher_rank
        gap = np.linalg.norm(merged(W[:, :rank], groups) - network)
        distance = float(np.hypot(gap, np.linalg.norm(W[:, rank:])))
        if distance < self.balls[above][position].radius:  # strictly: a radius of zero certifies nothing
            return End(position, distance, True)
        rests = gradient_norm <= self.at_rest and distance <= _AT_REST * self.scale
        return End(position, distance, False) if rests and self.points[position].verdict == SADDLE else None

    def _reaches_zero_loss(self, W: NDArray[np.float64]) -> End | None:
        """Zero loss, if it is a family of students, and the lane merges into one of them."""
        if self.zero < 0 or self.points[self.zero].verdict != FLAT_MINIMUM:
            return None
        network = self.points[self.zero].W
        distance = self._falls_to(W, network, nearest_groups(W, network))
        return None if distance is None else End(self.zero, distance, True)

    def _merges(self, W: NDArray[np.float64]) -> End | None:
        """The flat minimum that groups of the lane merge into."""
        for groups in possible_groups(W[:, : self.landscape.teacher_rank], self.scale):
            polished = self._polished(W, groups)
            if polished is None or self.points[polished[0]].verdict != FLAT_MINIMUM:
                continue
            position, network = polished
            distance = self._falls_to(W, network, groups) if stays_merged(network, groups, self.landscape) else None
            if distance is not None:
                return End(position, distance, True)
        return None

    def _falls_to(self, W: NDArray[np.float64], network: NDArray[np.float64], groups: NDArray[np.intp]) -> float | None:
        """Distance from the lane to its collapse onto the network, None if that is far or the loss rises on the way."""
        target = collapsed(W, network, groups)
        if target is None:
            return None
        distance = float(np.linalg.norm(W - target))
        near = distance <= NEAR * self.scale
        return distance if near and loss_falls(W, target, self.landscape.teacher_factor, self.scale) else None

    def ends_in(self, W: NDArray[np.float64], loss: float, gradient_norm: float, polishes: bool) -> End | None:
        """The stationary point in which the flow from W (K, D) ends, or None where nothing is proven yet.

        Points that are not in hand are found only if the lane is polished (`polishes`).
        """
        above = bool(W[:, self.landscape.teacher_rank :].any())
        found = self._recognised(W, loss, above)
        if found is None and gradient_norm <= self.campaign.tolerances.collapse_below * self.scale:
            found = self._reaches_zero_loss(W)
        if found is None and polishes:
            found = self._isolated(W, gradient_norm, above) or self._merges(W)
        if found is not None and self.zero >= 0 and has_zero_loss(self.points[found.point].loss, self.landscape):
            return found._replace(point=self.zero)
        return found

    def lingered(self, W: NDArray[np.float64], loss: float) -> End | None:
        """The saddle near which W (K, D) had a low gradient that rose again: the nearest in hand, or one to be found.

        Where several saddles are within reach of each other, which of them it is may depend on those in hand.
        """
        rank, reach = self.landscape.teacher_rank, NEAR * self.scale
        window = _LINGERING_LOSS * self.landscape.overlap_scale
        near = [k for k, p in enumerate(self.points) if p.verdict == SADDLE and abs(p.loss - loss) <= window]
        ends = [End(k, self.recogniser.distance(W, self.points[k]), False) for k in near]
        nearest = min(ends, key=lambda end: end.distance, default=None)
        if nearest is not None and nearest.distance <= reach:
            return nearest
        alone = groups_of(W[:, :rank], self.scale)
        for groups in [alone, *possible_groups(W[:, :rank], self.scale)]:
            polished = self._polished(W, groups)
            if polished is None and groups is alone:
                polished = self._polished(W, groups, nearest_stationary)
            if polished is not None and self.points[polished[0]].verdict == SADDLE:
                target = collapsed(W, polished[1], groups)
                distance = np.inf if target is None else float(np.linalg.norm(W - target))
                if distance <= reach:
                    return End(polished[0], distance, False)
        return None
