"""The effective network: what is left of a student when parallel neurons are merged and dead ones dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from enumerator.loss import one_sided_derivative, one_sided_gradient
from enumerator.problem import Landscape

# Two neurons of a polished stationary point are parallel, and one is dead, below this angle and
# norm over that of the teachers: far above the rounding of a polished point (1e-10), far below any angle between two
# neurons of an isolated minimum (no two of these come closer than 0.1 in the published ones).
PARALLEL = 1e-6


@dataclass(frozen=True, eq=False)
class Network:
    """A student in the span of the teachers: reduced weights W (K, r), overlaps Q (K, K) and R (K, M), its loss."""

    landscape: Landscape
    W: NDArray[np.float64]
    Q: NDArray[np.float64]
    R: NDArray[np.float64]
    loss: float

    @property
    def norms(self) -> NDArray[np.float64]:
        """Norms of the students (K,)."""
        return np.linalg.norm(self.W, axis=1)

    @property
    def teacher_norms(self) -> NDArray[np.float64]:
        """Norms of the teachers (M,)."""
        return np.sqrt(np.diag(self.landscape.T))


# A loss below this part of the largest squared norm of a teacher is zero up to rounding (1e-15 per pair of neurons).
ZERO_LOSS = 1e-12


def has_zero_loss(loss: float, landscape: Landscape) -> bool:
    """Whether a student of this loss is the teacher: all such stationary points of a landscape are one class."""
    return loss <= ZERO_LOSS * landscape.overlap_scale


def groups_of(W: NDArray[np.float64], scale: float, tolerance: float = PARALLEL) -> NDArray[np.intp]:
    """The group (K,) of each student: parallel ones share one, -1 is for dead ones; a group's longest comes first.

    Parallel means a distance of the unit vectors to that of the longest of at most `tolerance`, dead a
    norm of at most `tolerance` times `scale`, the norm of the teachers.
    """
    norms = np.linalg.norm(W, axis=1)
    groups = np.full(len(W), -1, np.intp)
    leaders: list[NDArray[np.float64]] = []
    alive = np.flatnonzero(norms > tolerance * scale)
    for row in alive[np.argsort(-norms[alive], kind="stable")]:
        direction = W[row] / norms[row]
        near = [k for k, leader in enumerate(leaders) if np.linalg.norm(direction - leader) <= tolerance]
        groups[row] = near[0] if near else len(leaders)
        if not near:
            leaders.append(direction)
    return groups


def merged(W: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """The sums (K_eff, D) of the students of W (K, D) in each group; those in none (-1) are dropped."""
    sums = np.zeros((groups.max(initial=-1) + 1, W.shape[1]))
    np.add.at(sums, groups[groups >= 0], W[groups >= 0])
    return sums


def effective_network(W: NDArray[np.float64], scale: float, tolerance: float = PARALLEL) -> NDArray[np.float64]:
    """Rows of W (K, D) with parallel ones summed and dead ones dropped: (K_eff, D), the same function for ReLU."""
    return merged(W, groups_of(W, scale, tolerance))


def zero_loss_network(landscape: Landscape) -> NDArray[np.float64] | None:
    """The effective network of the teachers (K_eff, r), which stands for zero loss; None if it has too many neurons."""
    network = effective_network(landscape.teacher_factor, landscape.teacher_scale)
    return network if len(network) <= landscape.students else None


def release_dead(W: NDArray[np.float64], V: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Students W (K, D), each neuron of zero norm moved by 1e-9 `scale` along its steepest descent if there is one.

    At zero norm the loss has one-sided derivatives only: the flow leaves along the direction u in
    which the one-sided derivative is lowest, or the neuron stays at rest where none is negative. All
    dead neurons of a student leave along the same direction. u is found by descent on the unit
    sphere from every teacher and from minus every student.
    """
    dead = np.flatnonzero(~W.any(axis=1))
    if len(dead) == 0:
        return W
    alive = W[W.any(axis=1)]
    starts = np.concatenate([np.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1]))), -alive])
    starts = starts[np.linalg.norm(starts, axis=1) > 0]
    # In units of the teachers' norm, so that where the descent stops does not depend on the unit of length.
    candidates = [_descend_on_sphere(u / np.linalg.norm(u), alive / scale, V / scale) for u in starts]
    slopes = [one_sided_derivative(u, alive, V) for u in candidates]
    best = int(np.argmin(slopes))
    if slopes[best] >= 0:
        return W
    released = W.copy()
    released[dead] = 1e-9 * scale * candidates[best]
    return released


def _descend_on_sphere(
    u: NDArray[np.float64], alive: NDArray[np.float64], V: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Local minimum on the unit sphere of the one-sided derivative of a new neuron along u (D,)."""

    def slope(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        length = np.linalg.norm(x)
        value, rate = one_sided_derivative(x, alive, V), one_sided_gradient(x, alive, V)
        return value, (rate - (rate @ x) * x / length**2) / length

    return minimize(slope, u, jac=True, method="BFGS").x
