"""Gradient flow, by the stabilised Runge-Kutta-Chebyshev method of `enumerator.dynamics.chebyshev`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.base import Stepper
from enumerator.dynamics.chebyshev import PROBE_LENGTH, SINGLE_PROBE_LENGTH, RKCState, rkc_init, rkc_tick
from enumerator.dynamics.symmetric_starts import Projection
from enumerator.dynamics.vector_field import VectorField, gradient_flow, in_single_precision, settled
from enumerator.loss.equations import Equations
from enumerator.problem import Dynamics, Tolerances


def stepper(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """dW/dt = -grad L(W), one stage of a step per tick; in single precision until it first falls to `single_above`."""
    field = partial(gradient_flow, equations)
    precise = _stepper(field, equations, tolerances, PROBE_LENGTH)
    if not tolerances.single_above:
        return precise
    single = _stepper(partial(in_single_precision, field), equations, tolerances, SINGLE_PROBE_LENGTH)
    return precise._replace(single=_until_small(single, tolerances))


def _stepper(
    rate_of: Callable[[Teachers], VectorField], equations: Equations, tolerances: Tolerances, probe_length: float
) -> Stepper:
    def field(V: Teachers, project: Projection) -> VectorField:
        rate = rate_of(V)
        return lambda W: project(rate(W))

    def tick(V: Teachers, project: Projection, state: RKCState) -> RKCState:
        return rkc_tick(field(V, project), tolerances.step_error, state, settled(equations), probe_length)

    return Stepper(init=lambda V, project, W: rkc_init(field(V, project), W, probe_length), tick=tick)


def _until_small(single: Stepper, tolerances: Tolerances) -> Stepper:
    """The stepper for lanes whose gradient is above `single_above`, and whose budget is not spent."""

    def lasts(V: Teachers, lane: RKCState) -> Bool[Array, ""]:
        is_large = lane.gradient_norm > tolerances.single_above * jnp.sqrt((V * V).sum())  # false for NaN
        return is_large & (lane.evaluations < tolerances.max_evaluations) & (lane.flow_time < tolerances.max_flow_time)

    def tick(V: Teachers, project: Projection, lane: RKCState) -> RKCState:
        goes_on = lasts(V, lane)
        return jax.tree.map(lambda new, old: jnp.where(goes_on, new, old), single.tick(V, project, lane), lane)

    return Stepper(init=single.init, tick=tick, lasts=lasts)
