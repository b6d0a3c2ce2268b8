"""Second order: spectra, verdicts, and the splitting of merged neurons."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.loss.population import as_numpy, compiled_hessian, compiled_perpendicular, exact_loss
from enumerator.minima.balls import certified_radius
from enumerator.minima.curvature import curvature_of
from enumerator.minima.effective import agreeing, dead_stay, reduced
from enumerator.points import (
    FLAT_MINIMUM,
    MINIMUM,
    SADDLE,
    UNDECIDED,
    Network,
    StationaryPoint,
    Student,
    has_zero_loss,
    orders_of,
)
from enumerator.problem import Tolerances


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


def network_of(student: Student) -> Network:
    """The effective network of a student (K, r + p) in the span of the teachers, with overlaps and loss."""
    network = reduced(student)
    landscape, W, own = network.landscape, network.W, network.second_layer_weights
    loss = exact_loss(landscape.g, W, landscape.teacher_factor, own)
    R = W[:, : landscape.teacher_rank] @ landscape.teacher_factor.T
    return Network(landscape, W, own, W @ W.T, R, loss)


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


def _verdicts(
    network: Network,
    spectrum: NDArray[np.float64],
    perpendicular: NDArray[np.float64],
    splitting: Splitting,
    definite: float,
) -> tuple[str, str]:
    """The verdict in the span of the teachers, and that in every dimension, from the eigenvalues of both kinds."""
    largest = float(spectrum.max(initial=0.0))
    own = _sign_verdict(spectrum, largest, definite)
    if own == UNDECIDED and has_zero_loss(network.loss, network.landscape):
        own = FLAT_MINIMUM  # flat to the digits there are: nothing is lower
    if network.scale_directions:
        own = _worst(own, FLAT_MINIMUM)
    verdict = _worst(own, _hidden_verdict(network, splitting.inside, definite))
    beyond = _sign_verdict(perpendicular, largest, definite)
    return verdict, _worst(verdict, beyond, _hidden_verdict(network, np.minimum(*splitting), definite))


def examine(student: Student, tolerances: Tolerances) -> StationaryPoint:
    """Verdicts and spectra of a polished stationary point W (K, r) in the span of the teachers.

    Spectra are those of the effective network; where it has fewer neurons than the student, the
    verdicts take the further directions of the student into account, and `flat_dimension` counts those
    in which the Hessian of the student vanishes: one for every further neuron (norm moves between
    copies), or r at zero loss; and with a trained second layer one more for every student (scale moves between its
    layers).
    """
    network, landscape = network_of(student), student.landscape
    at = curvature_of(landscape.equations, network.W, landscape.teacher_factor, network.second_layer_weights)
    spectrum = np.asarray(np.linalg.eigvalsh(at.hessian), np.float64)
    perpendicular = np.asarray(np.linalg.eigvalsh(at.above), np.float64)
    flat = np.abs(spectrum) <= tolerances.definite * float(spectrum.max(initial=0.0))
    splits, splitting = bool(network.W.size) and landscape.merges, Splitting(np.zeros(0), np.zeros(0))
    if splits:
        splitting = splitting_of(at.H, at.C, network.W, landscape.g.own_weight)
    verdict, above = _verdicts(network, spectrum, perpendicular, splitting, tolerances.definite)
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
        splitting_min=float(splitting.inside.min()) if splits and landscape.teacher_rank > 1 else None,
        splitting_min_perpendicular=float(splitting.perpendicular.min()) if splits else None,
        radius=0.0,
        second_layer_weights=network.second_layer_weights,
    )
    return dataclasses.replace(point, radius=certified_radius(point, above=True))


def stays_merged(student: Student, network: Student, groups: NDArray[np.intp], above: bool) -> bool:
    """Whether no group (K,) of several students that make up one neuron of the network (K_eff, r) opens a descent.

    In every dimension, or in the span of the teachers alone where students never leave it (not `above`), for a flat
    minimum of positive loss; at zero loss no group does. Where dead neurons of negative weight stay, `dead_stay`, all
    S_i are negative; then such neurons also stay beside a single one of the neuron's sign: with shares b > 1 and
    1 - b < 0 the form e S_i e (1/b + 1/(1 - b))/2 is positive. Two of its sign part.
    """
    landscape, W, signs = network.landscape, network.W, student.second_layer_weights
    if has_zero_loss(network_of(network).loss, landscape):
        return True
    alive, sizes = groups >= 0, np.bincount(groups[groups >= 0], minlength=len(W))
    same = np.bincount(groups[alive & agreeing(student, network, groups)], minlength=len(W))
    V, own = jnp.asarray(landscape.teacher_factor), network.second_layer_weights
    H, C = (as_numpy(f(landscape.g, W, V, own)) for f in (compiled_hessian, compiled_perpendicular))
    splitting = splitting_of(H, C, W, landscape.g.own_weight)
    lowest = np.minimum(*splitting) if above else splitting.inside
    if not alive.all() or (same < sizes).any():  # what stays then stays because no direction ascends, see `dead_stay`
        negative = signs is not None and bool((signs[~alive] < 0).all())
        return negative and bool(lowest.max(initial=-np.inf) < 0 and (same == 1).all())
    return bool((lowest[sizes > 1] > 0).all())
