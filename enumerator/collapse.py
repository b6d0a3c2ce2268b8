"""Lanes that end on a flat family: merging groups of students collapsed onto one effective network.

Parallel students merge algebraically, their angle falling like 1/t, and no ball around a point of the
family captures them. Instead: collapse each group onto the neuron that it becomes, and accept that end
if the loss falls monotonically on the straight way from the lane to the collapsed student.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.effective import groups_of
from enumerator.loss import gradient

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


@jax.jit
def _slopes(W: Float[Array, "K D"], target: Float[Array, "K D"], V: Float[Array, "M r"]) -> Float[Array, " n"]:
    """Rate of change of the loss per length at each of `_PLACES` on the way from W to `target`."""
    way = target - W
    rates = jax.vmap(lambda place: (gradient(W + place * way, V) * way).sum())(jnp.asarray(_PLACES))
    return rates / jnp.sqrt((way * way).sum())


def loss_falls(W: NDArray[np.float64], target: NDArray[np.float64], V: NDArray[np.float64], scale: float) -> bool:
    """Whether the loss falls all along the straight way from W (K, D) to `target` (K, D)."""
    if not (target - W).any():
        return True
    slopes = np.asarray(_slopes(jnp.asarray(W), jnp.asarray(target), jnp.asarray(V)))
    return bool((slopes <= _ROUNDING * scale).all())  # false for NaN


def nearest_groups(W: NDArray[np.float64], network: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each student of W (K, D) the neuron of the network (K_eff, r) at the smallest angle."""
    return np.argmax(W[:, : network.shape[1]] @ (network / np.linalg.norm(network, axis=1)[:, None]).T, axis=1)


def collapsed(
    W: NDArray[np.float64], network: NDArray[np.float64], groups: NDArray[np.intp]
) -> NDArray[np.float64] | None:
    """The student (K, D) that computes what the network (K_eff, r) does, nearest to W (K, D) in the groups (K,).

    Each neuron is shared out among its group by their components along it; students of no group (-1) and
    those that point away from theirs are dead. None if a neuron is left without a student.
    """
    target = np.zeros_like(W)
    for neuron, weights in enumerate(network):
        members = np.flatnonzero(groups == neuron)
        along = np.maximum(W[members, : len(weights)] @ weights, 0.0)
        if not along.sum() > 0:
            return None
        target[members, : len(weights)] = np.outer(along / along.sum(), weights)
    return target


def possible_groups(W: NDArray[np.float64], scale: float) -> list[NDArray[np.intp]]:
    """Groups (K,) of students that may be merging, coarsest first; none where all are far apart and alive."""
    found: list[NDArray[np.intp]] = []
    for tolerance in _TRIED:
        groups = groups_of(W, scale, tolerance)
        if groups.max(initial=-1) + 1 < len(W) and not any(np.array_equal(groups, other) for other in found):
            found.append(groups)
    return found
