"""Retiring a lane: in which stationary point does the flow from here provably end?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.distinct import canonical, match_points
from enumerator.effective import effective_network
from enumerator.loss import as_numpy
from enumerator.newton import polish
from enumerator.problem import Campaign
from enumerator.recognition import Recogniser, loss_window
from enumerator.stability import SADDLE, StationaryPoint, certified_radius, examine, hessian_lipschitz, network_of

_polish = jax.jit(polish)


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
        self.factor = jnp.asarray(self.landscape.teacher_factor)

    @property
    def first_look(self) -> float:
        """Gradient norm below which a lane is first compared with the points in hand."""
        return self.campaign.tolerances.first_look * self.scale

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

    def _polished(self, W: NDArray[np.float64]) -> tuple[int, float] | None:
        """Position and distance of the stationary point that Newton's method finds from the lane."""
        rank = self.landscape.teacher_rank
        parallel = effective_network(W[:, :rank], self.scale)
        centre, norm = parallel, 0.0
        if len(parallel):
            x, slope = _polish(jnp.asarray(parallel), self.factor)
            centre, norm = as_numpy(x), float(slope)
        if not norm <= self.campaign.tolerances.stationary * self.scale:
            return None
        distance = float(np.hypot(np.linalg.norm(parallel - centre), np.linalg.norm(W[:, rank:])))
        known = match_points([network_of(centre, self.landscape)], self.points)[0]
        if known < 0:
            known = self._add(examine(centre, self.landscape, self.campaign.tolerances))
        return known, distance

    def ends_in(self, W: NDArray[np.float64], loss: float, gradient_norm: float) -> End | None:
        """The stationary point in which the flow from W (K, D) ends, or None where nothing is proven yet."""
        tolerances = self.campaign.tolerances
        above = bool(W[:, self.landscape.teacher_rank :].any())
        recognised = self._recognised(W, loss, above)
        if recognised is not None or gradient_norm > tolerances.polish_below * self.scale:
            return recognised
        polished = self._polished(W)
        if polished is None:
            return None
        position, distance = polished
        if distance < self.balls[above][position].radius:  # strictly: a radius of zero certifies nothing
            return End(position, distance, True)
        rests = gradient_norm <= self.at_rest and distance <= _AT_REST * self.scale
        return End(position, distance, False) if rests and self.points[position].verdict == SADDLE else None
