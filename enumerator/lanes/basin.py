"""A stationary point in hand, with the certified balls around it that hold a lane for good."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from enumerator.minima.balls import certified_radius, largest_reach
from enumerator.minima.distinct import canonical
from enumerator.minima.recognition import loss_window
from enumerator.points import StationaryPoint
from enumerator.problem import Campaign


class Ball(NamedTuple):
    """A certified ball: its Frobenius radius (0: none), and the highest loss of a lane in it (minus infinity: none).

    Below `level` above the centre no descent leaves the ball, whatever its way; `steepest` bounds the curvature in it.
    """

    radius: float
    highest: float
    level: float
    steepest: float


@dataclass(frozen=True, eq=False)
class Basin:
    """A stationary point, by its position among those in hand, and the balls around it.

    One ball is for lanes in the span of the teachers (`inside`), which they never leave, the other for those `beyond`.
    `overlaps` (K M,) are those with the teachers, sorted, see `Recogniser.is_beyond`.
    """

    position: int
    point: StationaryPoint
    inside: Ball
    beyond: Ball
    overlaps: NDArray[np.float64]

    @property
    def loss(self) -> float:
        """The loss of the point."""
        return self.point.loss

    def ball(self, above: bool) -> Ball:
        """The ball for lanes in the span of the teachers, or (`above`) beyond it."""
        return self.beyond if above else self.inside

    @cached_property
    def canonical(self) -> StationaryPoint:
        """The point in canonical order and with its isotropy group."""
        return canonical(self.point)


def basin_of(point: StationaryPoint, campaign: Campaign, position: int) -> Basin:
    """The basin of a point under the dynamics of a campaign."""
    inside, beyond = (_ball(point, campaign, above) for above in (False, True))
    return Basin(position, point, inside, beyond, np.sort(point.R, axis=None))


def _ball(point: StationaryPoint, campaign: Campaign, above: bool) -> Ball:
    radius = _contracting(point, campaign, certified_radius(point, above), above)
    reach, bend = largest_reach(point, radius)
    lowest = point.hessian_min if not above else min(point.hessian_min, point.perpendicular_min)
    # On the sphere of radius `reach` the loss is at least this much above that of the centre.
    level = reach**2 * (lowest / 2 - bend * reach / 6) if radius > 0 else 0.0
    steepest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0))) + bend * reach
    highest = point.loss + loss_window(point, reach, bend) if radius > 0 else -np.inf
    return Ball(radius, highest, level, steepest)


def _contracting(point: StationaryPoint, campaign: Campaign, radius: float, above: bool) -> float:
    """The part of a certified radius in which the steps of the dynamics, if it has any, contract.

    A step of gradient descent multiplies the distance by 1 - step x (mean Hessian), whose eigenvalues are
    positive in the ball, and at most largest + L radius/2. On a manifold the projection after each step adds
    curvature; there twice these eigenvalues must contract.
    """
    step, equations = campaign.dynamics.step, point.landscape.equations
    if step is None or radius == 0 or equations.is_trained:
        return radius
    reach, bend = largest_reach(point, radius)
    largest = max(point.hessian_max, float(point.perpendicular_spectrum.max(initial=0.0)) if above else 0.0)
    most = (2 if equations.manifold.is_free else 1) / step
    return min(radius, max(0.0, 2 * (most - largest) / bend) * radius / reach)
