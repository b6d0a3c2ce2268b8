"""The vector fields: each maps reduced weights to their rate of change."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from enumerator.activations.base import Activation
from enumerator.activations.geometry import Teachers
from enumerator.loss.equations import Equations
from enumerator.loss.population import fast_gradient, fast_layer_gradients
from enumerator.loss.second_layer import balanced

# Reduced weights (K, D) to their rate of change.
VectorField = Callable[[Float[Array, "K D"]], Float[Array, "K D"]]


def gradient_flow(equations: Equations, V: Teachers) -> VectorField:
    """dW/dt = -grad L(W), which closes on the overlaps: dR/dt = -(C R - B T), dQ/dt = -(C Q - B R^T) + transpose.

    On a manifold the gradient is the tangent part, at the nearest point of the manifold: the stages of a step leave
    it, and what they would have seen there is no part of the flow.
    """
    g, manifold, _ = equations
    if equations.is_trained:
        return _layered_flow(g, V)
    if manifold.is_free:
        return lambda W: -fast_gradient(g, W, V)

    def rate(W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        on = manifold.retract(W)
        return -manifold.tangent(on, fast_gradient(g, on, V))

    return rate


def _layered_flow(g: Activation, V: Teachers) -> VectorField:
    """The flow of lanes [W | a | c], see `second_layer`: both layers descend, the balance c stays."""

    def rate(X: Float[Array, "K X"]) -> Float[Array, "K X"]:
        slope, layer = fast_layer_gradients(g, X[:, :-2], V, X[:, -2])
        return -jnp.concatenate([slope, layer[:, None], jnp.zeros_like(layer)[:, None]], axis=1)

    return rate


def in_single_precision(field: Callable[[Teachers], VectorField], V: Teachers) -> VectorField:
    """A vector field evaluated in float32, of states and with a result in float64: error 3e-7 of |W|.

    Products are of full precision on every device: GPUs else round their factors to ten bits, an error of 5e-4.
    """

    def rate(W: Float[Array, "K D"]) -> Float[Array, "K D"]:
        with jax.default_matmul_precision("highest"):
            return field(V.astype(np.float32))(W.astype(jnp.float32)).astype(jnp.float64)

    return rate


def settled(equations: Equations) -> VectorField:
    """Maps the end of a step to what the flow conserves: onto the manifold, or to the balance of the layers."""
    return balanced if equations.is_trained else equations.manifold.retract
