"""The dynamics on offer, each as a state machine that the batch loop advances by one evaluation per tick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from enumerator.errors import InputError
from enumerator.flow import VectorField, gradient_flow
from enumerator.integrator import rkc_init, rkc_tick
from enumerator.invariance import Projection
from enumerator.loss import Derivatives, fast_derivatives, teacher_constant
from enumerator.newton import Model, newton_init, newton_tick
from enumerator.overlaps import check_feasible
from enumerator.problem import Campaign, Dynamics, Tolerances


class Stepper(NamedTuple):
    """Both functions take the teachers V (M, r), the projection of the lane's symmetry, and the lane.

    A tick costs one evaluation. The state is a pytree with W, gradient_norm, flow_time and
    evaluations; the rest is its own.
    """

    init: Callable[[Float[Array, "M r"], Projection, Float[Array, "K D"]], Any]
    tick: Callable[[Float[Array, "M r"], Projection, Any], Any]


def _gradient_flow(tolerances: Tolerances) -> Stepper:
    def field(V: Float[Array, "M r"], project: Projection) -> VectorField:
        rate = gradient_flow(V)
        return lambda W: project(rate(W))

    return Stepper(
        init=lambda V, project, W: rkc_init(field(V, project), W),
        tick=lambda V, project, state: rkc_tick(field(V, project), tolerances.step_error, state),
    )


def _newton(tolerances: Tolerances) -> Stepper:
    def model(V: Float[Array, "M r"], project: Projection) -> Model:
        constant = teacher_constant(V)

        def derivatives(W: Float[Array, "K D"], P: Float[Array, "K D"]) -> Derivatives:
            loss, gradient, product = fast_derivatives(W, V, P, constant)
            return Derivatives(loss, project(gradient), project(product))

        return derivatives

    def scale(V: Float[Array, "M r"]) -> Float[Array, ""]:
        return jnp.sqrt((V * V).sum())

    return Stepper(
        init=lambda V, project, W: newton_init(model(V, project), W, scale(V) / 4),
        tick=lambda V, project, state: newton_tick(model(V, project), scale(V), state),
    )


# A new dynamics is one function and one line here.
STEPPERS: dict[str, Callable[[Tolerances], Stepper]] = {"gradient-flow": _gradient_flow, "newton": _newton}


def stepper_for(dynamics: Dynamics, tolerances: Tolerances) -> Stepper:
    """The state machine of the dynamics; InputError where this version has none."""
    if dynamics.name not in STEPPERS:
        raise InputError(f"`dynamics` must be one of {', '.join(STEPPERS)} in this version, got {dynamics.name!r}.")
    return STEPPERS[dynamics.name](tolerances)


def check_solvable(campaign: Campaign) -> None:
    """Raise InputError for what the identity has a place for but no solver of this version enumerates.

    Also for given initial overlaps that no weights have, with row and eigenvalue.
    """
    stepper_for(campaign.dynamics, campaign.tolerances)
    landscape, law = campaign.landscape, campaign.law
    for name, offered in (("activation", "relu"), ("constraint", "none"), ("second_layer", "fixed")):
        value = getattr(landscape, name)
        if value != offered:
            raise InputError(f"`{name}` must be {offered} in this version, got {value!r}.")
    if law.Q is not None and law.R is not None:
        check_feasible(law.Q, law.R, landscape.T)
