"""Balls around stationary points: those that flow into a minimum, and those that hold no second one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from enumerator.activations.base import Activation, Norms
from enumerator.minima.curvature import curvature_of
from enumerator.points import SADDLE, UNDECIDED, StationaryPoint


def hessian_lipschitz(
    g: Activation, norms: NDArray[np.float64], teacher_norms: NDArray[np.float64], radius: float
) -> float:
    """Lipschitz constant of the Hessian (operator norm against Frobenius distance) in a ball around a student.

    With x_i the share of neuron i in a unit direction, the third derivative sum_i x_i^2 (A_i x_i + B_i sum_{j != i}
    x_j), bounds A and B of the activation, is at most max_i sqrt(A_i^2 + (K - 1) B_i^2) by Cauchy and Schwarz.
    Infinite where the activation has no bound. `norms` (K,) of the students at the centre, `teacher_norms` (M,),
    `radius` Frobenius.
    """
    K = len(norms)
    if not K:
        return 0.0
    # The norms of the other neurons grow by sqrt(K - 1) radius in sum at the most.
    others = norms.sum() - norms + np.sqrt(K - 1) * radius + teacher_norms.sum()
    own, mixed = g.third_derivatives(Norms(norms - radius, norms + radius, others, K - 1 + len(teacher_norms)))
    return float(np.hypot(own, np.sqrt(K - 1) * mixed).max())


def basin_radius(
    g: Activation, smallest: float, norms: NDArray[np.float64], teacher_norms: NDArray[np.float64]
) -> float:
    """Radius of a ball in which the gradient flow ends at its centre, a minimum with smallest eigenvalue `smallest`.

    With Lipschitz constant L(rho) of the Hessian in the ball, the gradient at distance s has the
    component at least s (smallest - L s/2) towards the centre: positive while s < 2 smallest/L(rho),
    so the distance falls. No second stationary point lies in the ball. Found by bisection, less a
    tenth for the rounding of the centre. 0 if `smallest` is not positive.
    """
    if smallest <= 0 or len(norms) == 0:
        return 0.0
    # Where it has a bound, L grows with the radius.
    low, high = 0.0, 2 * smallest / hessian_lipschitz(g, norms, teacher_norms, 0.0)
    for _ in range(60):
        middle = (low + high) / 2
        if middle * hessian_lipschitz(g, norms, teacher_norms, middle) <= 2 * smallest:
            low = middle
        else:
            high = middle
    return 0.9 * low


def certified_radius(point: StationaryPoint, above: bool) -> float:
    """The basin radius of a minimum in the span, or (`above`) in every dimension; 0 unless existence is proven too.

    Existence by Newton-Kantorovich: with gradient g, smallest eigenvalue l and Lipschitz constant L,
    L |g| <= l^2/2 puts an exact stationary point within 2 |g|/l of the stored one (Ortega 1968).
    """
    if not point.is_isolated or (above and point.verdict_above in (UNDECIDED, SADDLE)):
        return 0.0
    smallest = min(point.hessian_min, float(point.perpendicular_spectrum.min(initial=np.inf)))
    smallest = smallest if above else point.hessian_min
    g, manifold, _ = point.landscape.equations
    if manifold.is_free:
        radius = basin_radius(g, smallest, point.norms, point.teacher_norms)
        bend = hessian_lipschitz(g, point.norms, point.teacher_norms, radius)
    else:
        radius, bend = geodesic_ball(point, smallest)
    exists = bend * point.gradient_norm <= smallest**2 / 2
    return radius if exists else 0.0


# A chord of these manifolds is at least 2/pi of the geodesic between its ends (Mataigne, Absil & Miolane 2024).
_CHORD = 2 / np.pi


def geodesic_ball(point: StationaryPoint, smallest: float) -> tuple[float, float]:
    """The Frobenius radius of a ball around a constrained point that flows into it, and the bend there.

    Along a geodesic of unit speed with velocity v the loss has the third derivative D3 + 3 D2[v, v'] + D1[v''], at
    most bend(s) = l + 3 (h + l s) + jerk (slope + h s + l s^2/2) at the distance s: l bounds the third
    derivative of the free loss at unit norms, h is the norm of its Hessian at the point, slope that of its
    gradient. With smallest eigenvalue `smallest` the gradient points inwards for s bend(s) < 2 smallest, so the
    distance to the point, and to its copies under rotations beyond the teachers, falls.
    """
    g, manifold, _ = point.landscape.equations
    at = curvature_of(point.landscape.equations, point.W, point.landscape.teacher_factor)
    third, second = hessian_lipschitz(g, np.ones(len(point.W)), point.teacher_norms, 0.0), at.ambient

    def bend(s: float) -> float:
        along = manifold.jerk * (at.slope + second * s + third * s**2 / 2)
        return third + 3 * (second + third * s) + along

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if middle * bend(middle) <= 2 * smallest else (low, middle)
    return 0.9 * low * _CHORD, bend(low)


def largest_reach(point: StationaryPoint, radius: float) -> tuple[float, float]:
    """The longest geodesic from a point to the sphere of this Frobenius radius, and the bend of the loss along it."""
    if point.landscape.equations.manifold.is_free:
        return radius, hessian_lipschitz(point.landscape.g, point.norms, point.teacher_norms, radius)
    return radius / _CHORD, geodesic_ball(point, min(point.hessian_min, point.perpendicular_min))[1]


def isolation_radius(point: StationaryPoint) -> float:
    """Frobenius radius within which a nondegenerate stationary point is the only one; 0 if degenerate.

    Between two stationary points at distance s the mean Hessian is singular, but differs from the
    Hessian at either by at most L s/2: so s >= 2 min|eigenvalue|/L.
    """
    if point.is_degenerate or len(point.hessian_spectrum) == 0:
        return 0.0
    smallest = float(np.abs(point.hessian_spectrum).min())
    if not point.landscape.equations.manifold.is_free:
        return geodesic_ball(point, smallest)[0]
    trial = min(0.5 * float(point.norms.min()), smallest) if point.landscape.g.is_homogeneous else smallest
    return min(trial, 2 * smallest / hessian_lipschitz(point.landscape.g, point.norms, point.teacher_norms, trial))
