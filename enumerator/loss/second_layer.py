"""A second layer a (K,) that is trained too, of homogeneous activations.

A lane is X (K, D + 2) = [W | a | c]. The flow conserves the balance c = |w|^2 - a^2 of each neuron, which is carried
along, and restored after each step without a change of the neuron's output. That output depends on (a, w) through
u = |a| w and the sign of a alone, and the loss at u has the same stationary points as at (a, w): the gradients are
dL/dw = |a| dL/du and dL/da = sign(a) w.dL/du. So everything about minima is said of the *normal form*, neurons u with
second-layer weights +-1. On it the flow is du/dt = -(a^2 I + w w^T) dL/du, which descends as well, but elsewhere.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from enumerator.activations.geometry import at_least_tiny

# Columns of a lane beside those of W.
EXTRA = 2


def lane_of(W: NDArray[np.float64], a: NDArray[np.float64]) -> NDArray[np.float64]:
    """X (..., K, D + 2) of weights W (..., K, D) and a (..., K)."""
    balance = (W**2).sum(axis=-1) - a**2
    return np.concatenate([W, a[..., None], balance[..., None]], axis=-1)


def balanced(X: Float[Array, "K X"]) -> Float[Array, "K X"]:
    """The lane with the same u = |a| w and the balance in its last column: a^2 = (s - c)/2, s^2 = c^2 + 4 |u|^2."""
    W, a, c = X[:, :-2], X[:, -2], X[:, -1]
    norms = jnp.sqrt((W * W).sum(axis=1))
    product = jnp.abs(a) * norms
    s = jnp.sqrt(c * c + 4 * product * product)
    larger = (s + jnp.abs(c)) / 2
    smaller = product * product / at_least_tiny(larger)  # no cancellation: their product is |u|^2
    layer = jnp.sqrt(jnp.where(c > 0, smaller, larger))
    length = jnp.sqrt(jnp.where(c > 0, larger, smaller))
    direction = W / at_least_tiny(norms)[:, None]
    return jnp.concatenate([length[:, None] * direction, (jnp.sign(a) * layer)[:, None], c[:, None]], axis=1)


def normal_form(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Neurons u (K, D) and second-layer weights +-1 (K,) of a lane X (K, D + 2)."""
    W, a = X[:, :-2], X[:, -2]
    return np.abs(a)[:, None] * W, np.where(a < 0, -1.0, 1.0)


def stretch_of(X: NDArray[np.float64]) -> float:
    """A bound on the eigenvalues of what turns the gradient in u into its rate of change, at a lane X (K, D + 2)."""
    W, a = X[:, :-2], X[:, -2]
    return float((a**2 + (W**2).sum(axis=1)).max())
