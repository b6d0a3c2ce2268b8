"""Second order: spectra, verdicts, splitting, and the ball around a minimum that provably flows into it."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.activations.base import Activation, Norms
from enumerator.curvature import curvature_of
from enumerator.effective import dead_stay, reduced
from enumerator.loss import as_numpy, compiled_hessian, compiled_perpendicular, exact_loss
from enumerator.points import (
    FLAT_MINIMUM,
    MINIMUM,
    SADDLE,
    UNDECIDED,
    Network,
    StationaryPoint,
    has_zero_loss,
    orders_of,
)
from enumerator.problem import Landscape, Tolerances


def _sign_verdict(spectrum: NDArray[np.float64], largest: float, definite: float) -> str:
    if not spectrum.size:
        return MINIMUM
    smallest = float(spectrum.min())
    scale = definite * max(abs(largest), abs(smallest))
    if smallest > scale:
        return MINIMUM
    return SADDLE if smallest < -scale else UNDECIDED


def _worst(*verdicts: str) -> str:
    return max(verdicts, key=[MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE].index)


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


class Splitting(NamedTuple):
    """Lowest eigenvalue of each S_i = H_ii - A_ii I off w_i (K,): in the span (infinite if r = 1), and alpha.

    Negative: duplicating that neuron opens a descent; positive: its parallel copies stay together
    (Fukumizu & Amari 2000; design, "Splitting").
    """

    inside: NDArray[np.float64]
    perpendicular: NDArray[np.float64]


def splitting_of(
    H: NDArray[np.float64], C: NDArray[np.float64], W: NDArray[np.float64], own_weight: float = 0.5
) -> Splitting:
    """The splitting eigenvalues of a stationary point from H (K, r, K, r), C (K, K) and W (K, r).

    `own_weight` is A_ii, that of the activation.
    """
    K, r = W.shape
    inside = np.full(K, np.inf)
    for i in range(K if r > 1 else 0):
        complement = np.linalg.svd(W[i][None])[2][1:]
        block = complement @ (H[i, :, i] - own_weight * np.eye(r)) @ complement.T
        inside[i] = np.linalg.eigvalsh(block)[0]
    return Splitting(inside, np.diag(C) - own_weight)


def network_of(W: NDArray[np.float64], landscape: Landscape, signs: NDArray[np.float64] | None = None) -> Network:
    """The effective network of reduced weights W (K, r) in the span of the teachers, with overlaps and loss."""
    network, own = reduced(W, landscape, signs)
    loss = exact_loss(landscape.g, network, landscape.teacher_factor, own)
    R = network[:, : landscape.teacher_rank] @ landscape.teacher_factor.T
    return Network(landscape, network, network @ network.T, R, loss, own)


def _hidden_verdict(network: Network, stays: NDArray[np.float64], definite: float) -> str:
    """Verdict on the directions that the full student has beyond its effective network.

    `stays` (K_eff,) says from which splitting eigenvalue on the copies of each neuron stay together. Every
    other neuron may be one: the point is a flat minimum if they can all be copies of neurons that stay. At zero
    loss the eigenvalues vanish, but splitting costs half the mean square of what it changes, of third
    order. A dead neuron always descends otherwise: the one-sided derivatives along the teachers, each
    times its norm, add up to -2 L at a stationary point, by Euler's theorem on homogeneous functions.
    But with a trained second layer a dead neuron of negative weight may stay, see `dead_stay`.
    Neurons that any other activation leaves out are not decided at a positive loss.
    """
    if len(network.W) == network.landscape.students:
        return MINIMUM
    if has_zero_loss(network.loss, network.landscape):
        return FLAT_MINIMUM if _flat_directions(network) else MINIMUM
    if not network.landscape.g.is_homogeneous:
        return UNDECIDED
    if dead_stay(network):
        return FLAT_MINIMUM
    best = stays.max(initial=-np.inf)
    return FLAT_MINIMUM if best > definite else SADDLE if best < -definite else UNDECIDED


def _flat_directions(network: Network) -> int:
    """Directions in which the Hessian of a generic student of this effective network vanishes, beyond its own.

    Those of scale between the layers left out. A further neuron of a homogeneous activation is a copy of one: norm
    moves between the two, and at zero loss they part at a cost of third order. Others are opposite pairs, or at
    rest; at a positive loss nothing is stationary that moves them.
    """
    landscape, rank = network.landscape, network.landscape.teacher_rank
    hidden, is_zero = landscape.students - len(network.W), has_zero_loss(network.loss, landscape)
    if not hidden or not len(network.W):  # neurons at rest where there is none to be a copy of have no Hessian
        return 0
    if landscape.g.is_homogeneous:
        return hidden * (rank if is_zero else 1)
    if not is_zero:
        return 0
    # At zero loss each pair, or all neurons at rest, bend the loss in as many directions as one neuron does.
    return (hidden // 2 if landscape.g.is_odd else hidden - 1) * rank


def examine(
    W: NDArray[np.float64], landscape: Landscape, tolerances: Tolerances, signs: NDArray[np.float64] | None = None
) -> StationaryPoint:
    """Verdicts and spectra of a polished stationary point W (K, r) in the span of the teachers.

    Spectra are those of the effective network; where it has fewer neurons than the student, the
    verdicts take the further directions of the student into account, and `flat_dimension` counts those
    in which the Hessian of the student vanishes: one for every further neuron (norm moves between
    copies), or r at zero loss; and with a trained second layer one more for every student (scale moves between its
    layers).
    """
    network = network_of(W, landscape, signs)
    g = landscape.g
    size, rank = network.W.size, landscape.teacher_rank
    at = curvature_of(landscape.equations, network.W, landscape.teacher_factor, network.second_layer_weights)
    spectrum = np.asarray(np.linalg.eigvalsh(at.hessian), np.float64)
    perpendicular = np.asarray(np.linalg.eigvalsh(at.above), np.float64)
    largest, definite = float(spectrum.max(initial=0.0)), tolerances.definite
    flat = np.abs(spectrum) <= definite * largest
    splits = bool(size) and landscape.merges
    splitting = splitting_of(at.H, at.C, network.W, g.own_weight) if splits else Splitting(np.zeros(0), np.zeros(0))
    lowest = np.minimum(*splitting)

    own = _sign_verdict(spectrum, largest, definite)
    if own == UNDECIDED and has_zero_loss(network.loss, landscape):  # flat to the digits there are: nothing is lower
        own = FLAT_MINIMUM
    if network.scale_directions:
        own = _worst(own, FLAT_MINIMUM)
    verdict = _worst(own, _hidden_verdict(network, splitting.inside, definite))
    above = _worst(
        verdict,
        _sign_verdict(perpendicular, largest, definite),
        _hidden_verdict(network, lowest, definite),
    )
    point = StationaryPoint(
        landscape=landscape,
        W=network.W,
        Q=network.Q,
        R=network.R,
        loss=network.loss,
        gradient_norm=float(np.linalg.norm(at.gradient)),
        verdict=verdict,
        verdict_above=above,
        anti_aligned=None if (order := orders_of(network.R, landscape)) is None else int(order),
        effective_students=len(network.W),
        hessian_min=float(spectrum.min(initial=np.inf)),
        hessian_max=float(spectrum.max(initial=-np.inf)),
        hessian_spectrum=spectrum[~flat],
        perpendicular_min=float(perpendicular.min(initial=np.inf)),
        perpendicular_spectrum=perpendicular,
        flat_dimension=int(flat.sum()) + _flat_directions(network) + network.scale_directions,
        splitting_min=float(splitting.inside.min()) if splits and rank > 1 else None,
        splitting_min_perpendicular=float(splitting.perpendicular.min()) if splits else None,
        radius=0.0,
        second_layer_weights=network.second_layer_weights,
    )
    return dataclasses.replace(point, radius=certified_radius(point, above=True))


def stays_merged(
    W: NDArray[np.float64],
    groups: NDArray[np.intp],
    landscape: Landscape,
    signs: NDArray[np.float64] | None = None,
    students: NDArray[np.float64] | None = None,
    above: bool = True,
) -> bool:
    """Whether no group (K,) of several students that make up one neuron of W (K_eff, r) opens a descent.

    In every dimension, or in the span of the teachers alone where students never leave it (not `above`), for a flat
    minimum of positive loss; at zero loss no group does. `signs` (K_eff,) of the neurons and those of `students` (K,)
    where the second layer is trained. Where dead neurons of negative weight stay, `dead_stay`, all S_i are negative;
    then such neurons also stay beside a single one of the neuron's sign: with shares b > 1 and 1 - b < 0 the form
    e S_i e (1/b + 1/(1 - b))/2 is positive. Two of its sign part.
    """
    network = network_of(W, landscape, signs)
    if has_zero_loss(network.loss, landscape):
        return True
    alive, sizes = groups >= 0, np.bincount(groups[groups >= 0], minlength=len(W))
    agree = (
        np.ones(len(groups), bool) if students is None or signs is None else students == np.append(signs, 0.0)[groups]
    )
    same = np.bincount(groups[alive & agree], minlength=len(W))
    V = jnp.asarray(landscape.teacher_factor)
    H, C = (as_numpy(f(landscape.g, W, V, signs)) for f in (compiled_hessian, compiled_perpendicular))
    splitting = splitting_of(H, C, W, landscape.g.own_weight)
    lowest = np.minimum(*splitting) if above else splitting.inside
    if not alive.all() or (same < sizes).any():  # what stays then stays because no direction ascends, see `dead_stay`
        negative = signs is not None and students is not None and bool((students[~alive] < 0).all())
        return negative and bool(lowest.max(initial=-np.inf) < 0 and (same == 1).all())
    return bool((lowest[sizes > 1] > 0).all())


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
