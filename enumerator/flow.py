"""The vector fields: each maps reduced weights to their rate of change."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Array, Float

from enumerator.loss import fast_gradient

# Reduced weights (K, D) to their rate of change.
VectorField = Callable[[Float[Array, "K D"]], Float[Array, "K D"]]


def gradient_flow(V: Float[Array, "M r"]) -> VectorField:
    """dW/dt = -grad L(W), which closes on the overlaps: dR/dt = -(C R - B T), dQ/dt = -(C Q - B R^T) + transpose."""
    return lambda W: -fast_gradient(W, V)
