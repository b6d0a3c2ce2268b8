"""Gradient descent with a given step: step by step what gradient descent on weights does, in any dimension.

W <- W - step grad L(W) combines rows of W and V, so the lifted weights follow the d-dimensional ones exactly.
Constrained students go along the gradient on the manifold, and are projected onto it after each step.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Integer

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.base import Stepper
from enumerator.dynamics.symmetric_starts import Projection
from enumerator.dynamics.vector_field import VectorField, gradient_flow
from enumerator.loss.equations import Equations
from enumerator.problem import Dynamics, Tolerances


@struct.dataclass
class DescentState:
    """A lane: the point, minus its gradient, and counters; flow time is step times updates."""

    W: Float[Array, "*lanes K D"]
    rate: Float[Array, "*lanes K D"]
    gradient_norm: Float[Array, "*lanes"]
    flow_time: Float[Array, "*lanes"]
    evaluations: Integer[Array, "*lanes"]


def _state(field: VectorField, W: Float[Array, "K D"], step: float, evaluations: Integer[Array, ""]) -> DescentState:
    rate = field(W)
    norm = jnp.sqrt((rate * rate).sum())
    return DescentState(W, rate, norm, step * (evaluations - 1).astype(jnp.float64), evaluations)


def stepper(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """One update per tick."""
    step = dynamics.step or 0.0

    def field(V: Teachers, project: Projection) -> VectorField:
        rate = gradient_flow(equations, V)
        return lambda W: project(rate(W))

    def tick(V: Teachers, project: Projection, state: DescentState) -> DescentState:
        return _state(
            field(V, project), equations.manifold.retract(state.W + step * state.rate), step, state.evaluations + 1
        )

    return Stepper(init=lambda V, project, W: _state(field(V, project), W, step, jnp.asarray(1, jnp.int32)), tick=tick)
