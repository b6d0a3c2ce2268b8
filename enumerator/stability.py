"""Second order: spectra, verdicts, splitting, and the ball around a minimum that provably flows into it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.effective import Network, effective_network, has_zero_loss
from enumerator.loss import as_numpy, exact_loss, gradient, hessian, perpendicular_block
from enumerator.problem import Landscape, Tolerances

MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE = "minimum", "flat-minimum", "undecided", "saddle"

# A student's cosine of largest magnitude counts as positive when a positive one comes this close
# (design, section 4): ties occur by symmetry, and rounding must not break them.
TIE = 1e-9


@dataclass(frozen=True, eq=False)
class StationaryPoint(Network):
    """A stationary point of an effective network in the span of the teachers, with its second-order verdicts.

    W (K_eff, r) are reduced weights in the basis of `landscape.teacher_factor`; Q (K_eff, K_eff) and
    R (K_eff, M) its overlaps. `radius` is the Frobenius distance within which the gradient flow, in
    any dimension, provably ends here (0 where nothing is proven).
    """

    gradient_norm: float
    verdict: str
    verdict_above: str
    anti_aligned: int | None
    effective_students: int
    hessian_min: float
    hessian_max: float
    hessian_spectrum: NDArray[np.float64]
    perpendicular_min: float
    perpendicular_spectrum: NDArray[np.float64]
    flat_dimension: int
    splitting_min: float | None
    splitting_min_perpendicular: float | None
    radius: float
    isotropy: str | None = None
    orbit_size_log10: float | None = None
    family: str | None = None
    second_layer_weights: NDArray[np.float64] | None = None


def anti_aligned(R: NDArray[np.float64]) -> int:
    """k1: students whose entry of largest magnitude in R (K, M), cosines with orthogonal teachers, is negative."""
    if R.size == 0:
        return 0
    scale = np.abs(R).max(axis=1)
    return int(np.count_nonzero(R.max(axis=1) < (1 - TIE) * scale))


def teacher_cosines(R: NDArray[np.float64], landscape: Landscape) -> NDArray[np.float64]:
    """R with each column divided by its teacher's norm: cosines up to a factor per student."""
    norms = np.sqrt(np.diag(landscape.T))
    return R / np.where(norms > 0, norms, np.inf)


def order_of(R: NDArray[np.float64], landscape: Landscape) -> int | None:
    """`anti_aligned` of the student with teacher overlaps R (K, M); None unless T is diagonal and a = a* = 1."""
    off_diagonal = landscape.T - np.diag(np.diag(landscape.T))
    if landscape.second_layer != "fixed" or off_diagonal.any():
        return None
    return anti_aligned(teacher_cosines(R, landscape))


def _sign_verdict(smallest: float, largest: float, definite: float) -> str:
    scale = definite * max(abs(largest), abs(smallest))
    if smallest > scale:
        return MINIMUM
    return SADDLE if smallest < -scale else UNDECIDED


def _worst(*verdicts: str) -> str:
    return max(verdicts, key=[MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE].index)


def hessian_lipschitz(norms: NDArray[np.float64], teacher_norms: NDArray[np.float64], radius: float) -> float:
    """Lipschitz constant of the Hessian (operator norm against Frobenius distance) in a ball around a student.

    A pair (u, v) contributes at most 3 sqrt(3)/(4 pi) |v|/|u|^2 |e|^3 to the third derivative along
    (e, 0) and |e|^2 |f|/(pi |u|) to its mixed term, whatever the angle (the extrema over directions
    and angle of the derivatives of the arc-cosine kernel; the test maximises them numerically). With
    x_i the share of neuron i in a unit direction, sum_i x_i^2 (A_i x_i + B_i sum_{j != i} x_j) is at
    most max_i sqrt(A_i^2 + (K - 1) B_i^2) by Cauchy and Schwarz. Infinite once a neuron may vanish.
    `norms` (K,) of the students at the centre, `teacher_norms` (M,), `radius` Frobenius.
    """
    shortest = norms - radius
    if len(norms) == 0 or shortest.min() <= 0:
        return np.inf if len(norms) else 0.0
    # The norms of the other neurons grow by sqrt(K - 1) radius in sum at the most.
    others = norms.sum() - norms + np.sqrt(len(norms) - 1) * radius + teacher_norms.sum()
    own = 3 * np.sqrt(3) / (4 * np.pi) * others / shortest**2
    mixed = 3 / (np.pi * shortest)
    return float(np.sqrt(own**2 + (len(norms) - 1) * mixed**2).max())


def basin_radius(smallest: float, norms: NDArray[np.float64], teacher_norms: NDArray[np.float64]) -> float:
    """Radius of a ball in which the gradient flow ends at its centre, a minimum with smallest eigenvalue `smallest`.

    With Lipschitz constant L(rho) of the Hessian in the ball, the gradient at distance s has the
    component at least s (smallest - L s/2) towards the centre: positive while s < 2 smallest/L(rho),
    so the distance falls. No second stationary point lies in the ball. Found by bisection, less a
    tenth for the rounding of the centre. 0 if `smallest` is not positive.
    """
    if smallest <= 0 or len(norms) == 0:
        return 0.0
    low, high = 0.0, float(norms.min())
    for _ in range(60):
        middle = (low + high) / 2
        if middle * hessian_lipschitz(norms, teacher_norms, middle) <= 2 * smallest:
            low = middle
        else:
            high = middle
    return 0.9 * low


class Splitting(NamedTuple):
    """Lowest eigenvalue of each S_i = H_ii - I/2 orthogonally to w_i (K,): in the span (infinite if r = 1), and alpha.

    Negative: duplicating that neuron opens a descent; positive: its parallel copies stay together
    (Fukumizu & Amari 2000; design, "Splitting").
    """

    inside: NDArray[np.float64]
    perpendicular: NDArray[np.float64]


def splitting_of(H: NDArray[np.float64], C: NDArray[np.float64], W: NDArray[np.float64]) -> Splitting:
    """The splitting eigenvalues of a stationary point from H (K, r, K, r), C (K, K) and W (K, r)."""
    K, r = W.shape
    inside = np.full(K, np.inf)
    for i in range(K if r > 1 else 0):
        complement = np.linalg.svd(W[i][None])[2][1:]
        block = complement @ (H[i, :, i] - 0.5 * np.eye(r)) @ complement.T
        inside[i] = np.linalg.eigvalsh(block)[0]
    return Splitting(inside, np.diag(C) - 0.5)


_hessian, _perpendicular, _gradient = map(jax.jit, (hessian, perpendicular_block, gradient))


def network_of(W: NDArray[np.float64], landscape: Landscape) -> Network:
    """The effective network of reduced weights W (K, r) in the span of the teachers, with overlaps and loss."""
    network = effective_network(W, landscape.teacher_scale)
    loss = exact_loss(network, landscape.teacher_factor)
    return Network(landscape, network, network @ network.T, network @ landscape.teacher_factor.T, loss)


def _hidden_verdict(network: Network, stays: NDArray[np.float64], definite: float) -> str:
    """Verdict on the directions that the full student has beyond its effective network.

    `stays` (K_eff,) says from which splitting eigenvalue on the copies of each neuron stay together. Every
    other neuron may be one: the point is a flat minimum if they can all be copies of neurons that stay. At zero
    loss the eigenvalues vanish, but splitting costs half the mean square of what it changes, of third
    order. A dead neuron always descends otherwise: the one-sided derivatives along the teachers, each
    times its norm, add up to -2 L at a stationary point, by Euler's theorem on homogeneous functions.
    """
    if len(network.W) == network.landscape.students:
        return MINIMUM
    if has_zero_loss(network.loss, network.landscape):
        return FLAT_MINIMUM
    best = stays.max(initial=-np.inf)
    return FLAT_MINIMUM if best > definite else SADDLE if best < -definite else UNDECIDED


def examine(W: NDArray[np.float64], landscape: Landscape, tolerances: Tolerances) -> StationaryPoint:
    """Verdicts and spectra of a polished stationary point W (K, r) in the span of the teachers.

    Spectra are those of the effective network; where it has fewer neurons than the student, the
    verdicts take the further directions of the student into account, and `flat_dimension` counts those
    in which the Hessian of the student vanishes: one for every further neuron (norm moves between
    copies), or r at zero loss.
    """
    network = network_of(W, landscape)
    V = jnp.asarray(landscape.teacher_factor)
    size, rank = network.W.size, landscape.teacher_rank
    H = as_numpy(_hessian(network.W, V)) if size else np.zeros((0, rank, 0, rank))
    C = as_numpy(_perpendicular(network.W, V)) if size else np.zeros((0, 0))
    slope = float(np.linalg.norm(as_numpy(_gradient(network.W, V)))) if size else 0.0
    spectrum = np.asarray(np.linalg.eigvalsh(H.reshape(size, size)), np.float64)
    perpendicular = np.asarray(np.linalg.eigvalsh(C), np.float64)
    largest, definite = float(spectrum.max(initial=0.0)), tolerances.definite
    flat = np.abs(spectrum) <= definite * largest
    splitting = splitting_of(H, C, network.W)
    lowest = np.minimum(*splitting)

    own = _sign_verdict(spectrum.min(initial=largest), largest, definite)
    verdict = _worst(own, _hidden_verdict(network, splitting.inside, definite))
    above = _worst(
        verdict,
        _sign_verdict(perpendicular.min(initial=largest), largest, definite),
        _hidden_verdict(network, lowest, definite),
    )
    hidden = landscape.students - len(network.W)
    point = StationaryPoint(
        landscape=landscape,
        W=network.W,
        Q=network.Q,
        R=network.R,
        loss=network.loss,
        gradient_norm=slope,
        verdict=verdict,
        verdict_above=above,
        anti_aligned=order_of(network.R, landscape),
        effective_students=len(network.W),
        hessian_min=float(spectrum.min(initial=np.inf)),
        hessian_max=float(spectrum.max(initial=-np.inf)),
        hessian_spectrum=spectrum[~flat],
        perpendicular_min=float(perpendicular.min(initial=np.inf)),
        perpendicular_spectrum=perpendicular,
        flat_dimension=int(flat.sum()) + hidden * (rank if has_zero_loss(network.loss, landscape) else 1),
        splitting_min=float(splitting.inside.min()) if size and rank > 1 else None,
        splitting_min_perpendicular=float(splitting.perpendicular.min()) if size else None,
        radius=0.0,
    )
    return dataclasses.replace(point, radius=certified_radius(point, above=True))


def stays_merged(W: NDArray[np.float64], groups: NDArray[np.intp], landscape: Landscape) -> bool:
    """Whether no group (K,) of several students that make up one neuron of W (K_eff, r) opens a descent.

    In every dimension, for a flat minimum of positive loss; at zero loss no group does.
    """
    network = network_of(W, landscape)
    if has_zero_loss(network.loss, landscape):
        return True
    V = jnp.asarray(landscape.teacher_factor)
    splitting = splitting_of(as_numpy(_hessian(W, V)), as_numpy(_perpendicular(W, V)), W)
    copied = np.bincount(groups[groups >= 0], minlength=len(W)) > 1
    return bool((np.minimum(*splitting)[copied] > 0).all() and (groups >= 0).all())


def certified_radius(point: StationaryPoint, above: bool) -> float:
    """The basin radius of a minimum in the span, or (`above`) in every dimension; 0 unless existence is proven too.

    Existence by Newton-Kantorovich: with gradient g, smallest eigenvalue l and Lipschitz constant L,
    L |g| <= l^2/2 puts an exact stationary point within 2 |g|/l of the stored one (Ortega 1968).
    """
    if point.verdict != MINIMUM or (above and point.verdict_above != MINIMUM):
        return 0.0
    smallest = min(point.hessian_min, point.perpendicular_min) if above else point.hessian_min
    radius = basin_radius(smallest, point.norms, point.teacher_norms)
    exists = hessian_lipschitz(point.norms, point.teacher_norms, radius) * point.gradient_norm <= smallest**2 / 2
    return radius if exists else 0.0
