"""Lanes that end on a flat family: merging groups of students collapsed onto one effective network.

Parallel students merge algebraically, their angle falling like 1/t, and no ball around a point of the
family captures them. Instead: collapse each group onto the neuron that it becomes, and accept that end
if the loss falls monotonically on the straight way from the lane to the collapsed student.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from enumerator.activations.base import Activation
from enumerator.loss.population import SecondLayer, gradient
from enumerator.minima.effective import agreeing, groups_of
from enumerator.points import Student

# The way is looked at in these places, more closely at its end, where the slope vanishes like a square.
_PLACES = (0.0, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98)
# Slopes of the loss below this part of the norm of the teachers are the rounding of the gradient (3e-15).
_ROUNDING = 1e-14
# A lane farther from the collapsed student, over the norm of the teachers, is not collapsed yet: a third of
# the distance between zero loss and the nearest spurious minimum met (0.32 at K = 18, M = 17; 0.45 at K = M = 17).
NEAR = 0.1
# Angles (as distances of unit vectors) below which students are tried as one group, and norms over that
# of the teachers below which they are tried as dead: whether a try is right is checked, not assumed.
_TRIED = (0.3, 0.1, 0.03, 0.01)


@partial(jax.jit, static_argnums=0)
def _slopes(
    g: Activation, W: Float[Array, "K D"], target: Float[Array, "K D"], V: Float[Array, "M r"], a: SecondLayer
) -> Float[Array, " n"]:
    """Rate of change of the loss per length at each of `_PLACES` on the way from W to `target`."""
    way = target - W
    rates = jax.vmap(lambda place: (gradient(g, W + place * way, V, a) * way).sum())(jnp.asarray(_PLACES))
    return rates / jnp.sqrt((way * way).sum())


def loss_falls(student: Student, target: NDArray[np.float64]) -> bool:
    """Whether the loss falls all along the straight way from a student (K, D) to `target` (K, D)."""
    landscape, W = student.landscape, student.W
    if not (target - W).any():
        return True
    V = jnp.asarray(landscape.teacher_factor)
    slopes = np.asarray(_slopes(landscape.g, jnp.asarray(W), jnp.asarray(target), V, student.second_layer_weights))
    return bool((slopes <= _ROUNDING * landscape.teacher_scale).all())  # false for NaN


def nearest_groups(W: NDArray[np.float64], network: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each student of W (K, D) the neuron of the network (K_eff, r) at the smallest angle."""
    return np.argmax(W[:, : network.shape[1]] @ (network / np.linalg.norm(network, axis=1)[:, None]).T, axis=1)


def collapsed(student: Student, network: Student, groups: NDArray[np.intp]) -> NDArray[np.float64] | None:
    """Weights (K, D) that compute what the network (K_eff, r) does, nearest to the student's in the groups (K,).

    Each neuron is shared out among its group by their components along it; students of no group (-1) and those that
    point away from theirs are dead. Students of the other sign than their neuron keep their components, and the rest
    make up for them. None if a neuron is left without a student.
    """
    W = student.W
    target = np.zeros_like(W)
    agree = agreeing(student, network, groups)
    for neuron, weights in enumerate(network.W):
        members = np.flatnonzero(groups == neuron)
        along = np.maximum(W[members, : len(weights)] @ weights, 0.0) / (weights @ weights)
        own = agree[members]
        if not along[own].sum() > 0:
            return None
        along[own] *= (1 + along[~own].sum()) / along[own].sum()
        target[members, : len(weights)] = np.outer(along, weights)
    return target


def assigned(W: NDArray[np.float64], network: NDArray[np.float64], cancels: bool) -> NDArray[np.float64]:
    """The student (K, D) near W (K, D) that computes what the network (K_eff, r) does, where none merge.

    Each neuron is the student nearest to it, as they are assigned. The others vanish, but where opposite ones cancel
    (`cancels`) two and two become opposite, and one that is left over vanishes.
    """
    target = np.zeros_like(W)
    full = np.pad(network, ((0, 0), (0, W.shape[1] - network.shape[1])))
    cost = ((W[:, None] - full[None]) ** 2).sum(axis=2)
    students, neurons = linear_sum_assignment(cost)
    target[students] = full[neurons]
    left = [row for row in range(len(W)) if row not in set(students.tolist())]
    while cancels and len(left) > 1:
        first = left.pop(0)
        other = min(left, key=lambda row: float(np.linalg.norm(W[first] + W[row])))
        left.remove(other)
        target[first] = (W[first] - W[other]) / 2
        target[other] = -target[first]
    return target


def nearest_member(student: Student, network: Student) -> NDArray[np.float64] | None:
    """Weights (K, D) near the student's that compute what the network (K_eff, r) does; None where none are near."""
    landscape, W, signs = student.landscape, student.W, student.second_layer_weights
    if not landscape.g.is_homogeneous:
        return assigned(W, network.W, landscape.g.is_odd)
    groups = nearest_groups(W, network.W)
    if signs is None:
        return collapsed(student, network, groups)
    norms, neurons = np.linalg.norm(W, axis=1), network.W[groups]
    along = (W[:, : neurons.shape[1]] * neurons).sum(axis=1) / np.linalg.norm(neurons, axis=1)
    # Students of both signs that cancel each other, wherever they point.
    stray = (along < np.cos(_TRIED[0]) * norms) & (norms > _TRIED[-1] * landscape.teacher_scale)
    target = collapsed(student, network, np.where(stray, -1, groups))
    return None if target is None else target + _cancelling(np.where(stray[:, None], W, 0.0), signs)


def _cancelling(W: NDArray[np.float64], signs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Students near W (K, D) in groups of one direction each whose signed sum is zero; those of zero norm stay so."""
    units = W / np.maximum(np.linalg.norm(W, axis=1), np.finfo(float).tiny)[:, None]
    target, groups = np.zeros_like(W), groups_of(units, 1.0, _TRIED[0])
    for group in range(groups.max(initial=-1) + 1):
        members = np.flatnonzero(groups == group)
        direction = W[members].sum(axis=0)
        direction = direction / np.linalg.norm(direction)
        along = np.maximum(W[members] @ direction, 0.0)
        sums = [along[signs[members] == sign].sum() for sign in (1.0, -1.0)]
        if min(sums) > 0:
            middle = np.sqrt(sums[0] * sums[1])
            along = along * middle / np.where(signs[members] > 0, sums[0], sums[1])
            target[members] = np.outer(along, direction)
    return target


def possible_groups(W: NDArray[np.float64], scale: float) -> list[NDArray[np.intp]]:
    """Groups (K,) of students that may be merging, coarsest first; none where all are far apart and alive."""
    found: list[NDArray[np.intp]] = []
    for tolerance in _TRIED:
        groups = groups_of(W, scale, tolerance)
        if groups.max(initial=-1) + 1 < len(W) and not any(np.array_equal(groups, other) for other in found):
            found.append(groups)
    return found
