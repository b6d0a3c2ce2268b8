"""The effective network: what is left of a student when parallel neurons are merged and dead ones dropped."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.spatial.distance import cdist

from enumerator.activations.base import Activation
from enumerator.loss.population import one_sided_derivative, one_sided_gradient
from enumerator.points import Network, Student
from enumerator.problem import Landscape

# Two neurons of a polished stationary point are parallel, and one is dead, below this angle and
# norm over that of the teachers: far above the rounding of a polished point (1e-10), far below any angle between two
# neurons of an isolated minimum (no two of these come closer than 0.1 in the published ones).
PARALLEL = 1e-6


def groups_of(W: NDArray[np.float64], scale: float, tolerance: float = PARALLEL) -> NDArray[np.intp]:
    """The group (K,) of each student: parallel ones share one, -1 is for dead ones; a group's longest comes first.

    Parallel means a distance of the unit vectors to that of the longest of at most `tolerance`, dead a
    norm of at most `tolerance` times `scale`, the norm of the teachers.
    """
    norms = np.linalg.norm(W, axis=1)
    groups = np.full(len(W), -1, np.intp)
    alive = np.flatnonzero(norms > tolerance * scale)
    rows = alive[np.argsort(-norms[alive], kind="stable")]
    units = W[rows] / norms[rows, None]
    near = cdist(units, units) <= tolerance
    leaders: list[int] = []
    for k in range(len(rows)):
        led = np.flatnonzero(near[k, leaders])
        groups[rows[k]] = led[0] if led.size else len(leaders)
        if not led.size:
            leaders.append(k)
    return groups


def merged(W: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """The sums (K_eff, D) of the students of W (K, D) in each group; those in none (-1) are dropped."""
    sums = np.zeros((groups.max(initial=-1) + 1, W.shape[1]))
    np.add.at(sums, groups[groups >= 0], W[groups >= 0])
    return sums


def merged_student(student: Student, groups: NDArray[np.intp]) -> Student:
    """`merged` neurons (K_eff, D): students of either sign add up, and the longer sum decides the sign of a neuron."""
    W, signs = student.W, student.second_layer_weights
    if signs is None:
        return Student(student.landscape, merged(W, groups), None)
    sums, grouped = merged(signs[:, None] * W, groups), groups >= 0
    along = np.zeros(len(sums))
    np.add.at(along, groups[grouped], (sums[groups[grouped]] * W[grouped]).sum(axis=1))
    own = np.where(along < 0, -1.0, 1.0)
    return Student(student.landscape, own[:, None] * sums, own)


def agreeing(student: Student, network: Student, groups: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which students (K,) have the sign of the neuron of their group; all, where the second layer is fixed."""
    signs, own = student.second_layer_weights, network.second_layer_weights
    if signs is None:
        return np.ones(len(student.W), bool)
    # Those of no group, -1, find the last sign: it counts for nothing.
    return signs == (1.0 if own is None else np.append(own, 1.0)[groups])


def effective_network(W: NDArray[np.float64], scale: float, tolerance: float = PARALLEL) -> NDArray[np.float64]:
    """Rows of W (K, D) with parallel ones summed and dead ones dropped: (K_eff, D), the same function for ReLU."""
    return merged(W, groups_of(W, scale, tolerance))


def cancelled(W: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Rows of W (K, D) without opposite pairs: the same function for an odd activation."""
    kept: list[NDArray[np.float64]] = []
    for row in W:
        near = [k for k, other in enumerate(kept) if np.linalg.norm(row + other) <= PARALLEL * scale]
        if near:
            kept.pop(near[0])
        else:
            kept.append(row)
    return np.array(kept).reshape(-1, W.shape[1])


def reduced(student: Student) -> Student:
    """The effective network (K_eff, D) of a student (K, D), by what the activation allows."""
    landscape, W = student.landscape, student.W
    if not landscape.equations.manifold.is_free:  # no constrained student can vanish, or take over another's norm
        return Student(landscape, W, None)
    if not landscape.g.is_homogeneous:
        kept = cancelled(W, landscape.teacher_scale) if landscape.g.is_odd else W
        alive = np.linalg.norm(kept, axis=1) > PARALLEL * landscape.teacher_scale
        return Student(landscape, kept[alive] if landscape.g.vanishes_at_rest else kept, None)
    network = merged_student(student, groups_of(W, landscape.teacher_scale))
    alive = np.linalg.norm(network.W, axis=1) > PARALLEL * landscape.teacher_scale  # opposite signs may cancel
    own = network.second_layer_weights
    return Student(landscape, network.W[alive], None if own is None else own[alive])


def zero_loss_network(landscape: Landscape) -> Student | None:
    """The effective network of the teachers (K_eff, r), which stands for zero loss; None if no student computes it."""
    manifold, V = landscape.equations.manifold, landscape.teacher_factor
    if not manifold.is_free:
        fits = landscape.students == landscape.teachers and manifold.deviation(landscape.T) <= PARALLEL
        return Student(landscape, manifold.project(V), None) if fits else None
    network = reduced(Student(landscape, V, np.ones(len(V)) if landscape.equations.is_trained else None))
    left = landscape.students - len(network.W)
    return network if left == 0 or (left > 0 and landscape.g.vanishes_at_rest) else None


def release_dead(W: NDArray[np.float64], landscape: Landscape) -> NDArray[np.float64]:
    """Students W (K, D), each neuron of zero norm moved along its steepest descent if there is one.

    It is moved by 1e-9 of the norm of the teachers; a smooth activation has a gradient there, and needs no help.
    At zero norm the loss has one-sided derivatives only: the flow leaves along the direction u in which the
    one-sided derivative is lowest, or the neuron stays at rest where none is negative. All dead neurons of a
    student leave along the same direction. u is found by descent on the unit sphere from every teacher and
    from minus every student.
    """
    dead = np.flatnonzero(~W.any(axis=1))
    if len(dead) == 0 or not landscape.merges:
        return W
    g, V, scale = landscape.g, landscape.teacher_factor, landscape.teacher_scale
    alive = W[W.any(axis=1)]
    starts = np.concatenate([np.pad(V, ((0, 0), (0, W.shape[1] - V.shape[1]))), -alive])
    starts = starts[np.linalg.norm(starts, axis=1) > 0]
    # In units of the teachers' norm, so that where the descent stops does not depend on the unit of length.
    candidates = [_descend_on_sphere(g, u / np.linalg.norm(u), alive / scale, V / scale) for u in starts]
    slopes = [one_sided_derivative(g, u, alive, V) for u in candidates]
    best = int(np.argmin(slopes))
    if slopes[best] >= 0:
        return W
    released = W.copy()
    released[dead] = 1e-9 * scale * candidates[best]
    return released


# Where the rate of the loss along a new neuron is compared with zero: it is zero to rounding along the students
# themselves, and falls from there like the square of the angle, which the descent finds to 1e-6.
_NO_RATE = 1e-9
# Angles off the students from which the descent begins, beside the teachers.
_OFF = 0.3


def dead_stay(network: Network) -> bool:
    """Whether a dead neuron of negative second-layer weight stays dead: no direction (of 2 K_eff + M tried) descends.

    With a second layer trained from a negative balance |w|^2 - a^2 a neuron keeps its sign. At w = 0 the loss changes
    by a h(u)|w| along u, h the one-sided derivative for a = 1: the neuron stays if h <= 0 everywhere.
    h vanishes along the students, where its curvature is that of S_i: so all of these are negative then.
    """
    landscape, W, a = network.landscape, network.W, network.second_layer_weights
    if a is None:
        return False
    if not len(W):  # the loss rises along every direction in which the teachers are not all zero
        return True
    scale, V = landscape.teacher_scale, landscape.teacher_factor
    units = W / np.linalg.norm(W, axis=1)[:, None]
    mean = V.mean(axis=0)
    starts = [*V, *(units + _OFF * np.roll(units, 1, axis=0)), *(units - _OFF * mean)]
    starts = [u / np.linalg.norm(u) for u in starts if np.linalg.norm(u) > 0]
    ends = [_descend_on_sphere(landscape.g, u, W / scale, V / scale, a, -1.0) for u in starts]
    rates = [one_sided_derivative(landscape.g, u, W / scale, V / scale, a) for u in ends]
    return max(rates) <= _NO_RATE


def _descend_on_sphere(
    g: Activation,
    u: NDArray[np.float64],
    alive: NDArray[np.float64],
    V: NDArray[np.float64],
    a: NDArray[np.float64] | None = None,
    sign: float = 1.0,
) -> NDArray[np.float64]:
    """Local minimum on the unit sphere of the one-sided derivative of a new neuron along u (D,), times its sign."""

    def slope(x: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        length = np.linalg.norm(x)
        value, rate = one_sided_derivative(g, x, alive, V, a), one_sided_gradient(g, x, alive, V, a)
        return sign * value, sign * (rate - (rate @ x) * x / length**2) / length

    return minimize(slope, u, jac=True, method="BFGS").x
