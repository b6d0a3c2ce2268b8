"""Gradient flow, by the stabilised Runge-Kutta-Chebyshev method of `enumerator.integrator`."""

from __future__ import annotations

from enumerator.dynamics.base import Stepper
from enumerator.equations import Equations
from enumerator.flow import VectorField, gradient_flow, settled
from enumerator.geometry import Teachers
from enumerator.integrator import rkc_init, rkc_tick
from enumerator.invariance import Projection
from enumerator.problem import Dynamics, Tolerances


def stepper(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """dW/dt = -grad L(W), one stage of a step per tick."""

    def field(V: Teachers, project: Projection) -> VectorField:
        rate = gradient_flow(equations, V)
        return lambda W: project(rate(W))

    return Stepper(
        init=lambda V, project, W: rkc_init(field(V, project), W),
        tick=lambda V, project, state: rkc_tick(field(V, project), tolerances.step_error, state, settled(equations)),
    )
