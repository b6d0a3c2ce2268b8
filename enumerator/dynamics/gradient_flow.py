"""Gradient flow, by the stabilised Runge-Kutta-Chebyshev method of `enumerator.integrator`."""

from __future__ import annotations

from collections.abc import Callable

from enumerator.dynamics.base import Stepper
from enumerator.equations import Equations
from enumerator.flow import VectorField, gradient_flow, in_single_precision, settled
from enumerator.geometry import Teachers
from enumerator.integrator import PROBE_LENGTH, SINGLE_PROBE_LENGTH, RKCState, rkc_init, rkc_tick
from enumerator.invariance import Projection
from enumerator.problem import Dynamics, Tolerances


def stepper(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """dW/dt = -grad L(W), one stage of a step per tick; above `single_above` the gradient in single precision."""
    precise = _stepper(lambda V: gradient_flow(equations, V), equations, tolerances, PROBE_LENGTH)
    if not tolerances.single_above:
        return precise

    def single(V: Teachers) -> VectorField:
        return in_single_precision(lambda V: gradient_flow(equations, V), V)

    return precise._replace(transient=_stepper(single, equations, tolerances, SINGLE_PROBE_LENGTH))


def _stepper(
    rate_of: Callable[[Teachers], VectorField], equations: Equations, tolerances: Tolerances, probe_length: float
) -> Stepper:
    def field(V: Teachers, project: Projection) -> VectorField:
        rate = rate_of(V)
        return lambda W: project(rate(W))

    def tick(V: Teachers, project: Projection, state: RKCState) -> RKCState:
        return rkc_tick(field(V, project), tolerances.step_error, state, settled(equations), probe_length)

    return Stepper(init=lambda V, project, W: rkc_init(field(V, project), W, probe_length), tick=tick)
