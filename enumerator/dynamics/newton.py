"""Trust-region Newton as dynamics: fast to many minima, with frequencies of its own."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.base import Stepper
from enumerator.dynamics.symmetric_starts import Projection
from enumerator.dynamics.trust_region import Model, trust_region_init, trust_region_tick
from enumerator.errors import InputError
from enumerator.loss.equations import Equations
from enumerator.loss.population import Derivatives, fast_derivatives, teacher_constant
from enumerator.problem import Dynamics, Tolerances


def stepper(dynamics: Dynamics, equations: Equations, tolerances: Tolerances) -> Stepper:
    """One conjugate-gradient step, or the judgement of a trial point, per tick."""
    g = equations.g
    if not equations.manifold.is_free or equations.is_trained:
        raise InputError("`dynamics` newton goes with constraint none and second layer fixed: use gradient-flow.")

    def model(V: Teachers, project: Projection) -> Model:
        constant = teacher_constant(g, V)

        def derivatives(W: Float[Array, "K D"], P: Float[Array, "K D"]) -> Derivatives:
            loss, gradient, product = fast_derivatives(g, W, V, P, constant)
            return Derivatives(loss, project(gradient), project(product))

        return derivatives

    def scale(V: Teachers) -> Float[Array, ""]:
        return jnp.sqrt((V * V).sum())

    return Stepper(
        init=lambda V, project, W: trust_region_init(model(V, project), W, scale(V) / 4),
        tick=lambda V, project, state: trust_region_tick(model(V, project), scale(V), state),
    )
