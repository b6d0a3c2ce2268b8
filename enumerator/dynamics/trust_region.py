"""A trust-region Newton-CG as a state machine: the dynamics `newton`.

Trust region with truncated conjugate gradients: Steihaug (1983); Nocedal & Wright (2006), algorithms
4.1 and 7.2. As dynamics it is a state machine like the integrator: each tick evaluates loss, gradient
and one Hessian product at one point, either for a step of conjugate gradients or to judge a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Integer

from enumerator.loss.population import (
    Derivatives,
)

# Loss, gradient and Hessian product at a point along a direction.
Model = Callable[[Float[Array, "K D"], Float[Array, "K D"]], Derivatives]

_ACCEPT, _GOOD = 0.1, 0.75  # ratios of true to predicted decrease: Nocedal & Wright, algorithm 4.1
# A predicted decrease below this part of the squared norm of the teachers, and of the loss, is rounding of
# the loss: such a step is judged good.
_LOSS_ROUNDING = 1e-13


@struct.dataclass
class TrustRegionState:
    """A lane: the point with its loss and gradient, the trust radius, and conjugate gradients under way.

    `at` is what was evaluated for the next tick: at the trial point when `judging`, else along the direction.
    """

    W: Float[Array, "*lanes K D"]
    loss: Float[Array, "*lanes"]
    gradient: Float[Array, "*lanes K D"]
    radius: Float[Array, "*lanes"]
    step: Float[Array, "*lanes K D"]
    residual: Float[Array, "*lanes K D"]
    direction: Float[Array, "*lanes K D"]
    model_decrease: Float[Array, "*lanes"]
    judging: Bool[Array, "*lanes"]
    inner: Integer[Array, "*lanes"]
    at: Derivatives
    gradient_norm: Float[Array, "*lanes"]
    flow_time: Float[Array, "*lanes"]
    evaluations: Integer[Array, "*lanes"]


def _dot(x: Float[Array, "K D"], y: Float[Array, "K D"]) -> Float[Array, ""]:
    return (x * y).sum()


def trust_region_init(model: Model, W: Float[Array, "K D"], radius: float | Float[Array, ""]) -> TrustRegionState:
    """A lane at its start, with the given first trust radius (Frobenius, reduced weights)."""
    at = model(W, jnp.zeros_like(W))
    return TrustRegionState(
        W=W,
        loss=at.loss,
        gradient=at.gradient,
        radius=jnp.full_like(at.loss, radius),
        step=jnp.zeros_like(W),
        residual=-at.gradient,
        direction=-at.gradient,
        model_decrease=jnp.zeros_like(at.loss),
        judging=jnp.asarray(False),
        inner=jnp.asarray(0, jnp.int32),
        at=model(W, -at.gradient),
        gradient_norm=jnp.sqrt(_dot(at.gradient, at.gradient)),
        flow_time=jnp.full_like(at.loss, jnp.nan),
        evaluations=jnp.asarray(2, jnp.int32),
    )


def _to_boundary(
    step: Float[Array, "K D"], direction: Float[Array, "K D"], radius: Float[Array, ""]
) -> Float[Array, ""]:
    """tau >= 0 with |step + tau direction| = radius."""
    a, b = _dot(direction, direction), _dot(step, direction)
    c = jnp.minimum(_dot(step, step) - radius**2, 0.0)
    return -c / jnp.maximum(b + jnp.sqrt(b * b - a * c), 1e-300)


def _conjugate_gradient(
    state: TrustRegionState, product: Float[Array, "K D"], forcing: Float[Array, ""]
) -> TrustRegionState:
    """One step of truncated conjugate gradients; it leads to a trial at the boundary or when solved."""
    old = _dot(state.residual, state.residual)
    curvature = _dot(state.direction, product)
    length = old / jnp.where(curvature > 0, curvature, 1.0)
    inside = state.step + length * state.direction
    leaves = (curvature <= 0) | (_dot(inside, inside) >= state.radius**2)
    length = jnp.where(leaves, _to_boundary(state.step, state.direction, state.radius), length)
    residual = state.residual - length * product
    new = _dot(residual, residual)
    solved = (new <= (forcing * state.gradient_norm) ** 2) | (state.inner + 1 >= state.W.size)
    return replace(
        state,
        step=state.step + length * state.direction,
        residual=residual,
        direction=residual + (new / jnp.maximum(old, 1e-300)) * state.direction,
        model_decrease=state.model_decrease + length * old - 0.5 * length**2 * curvature,
        judging=leaves | solved,
        inner=state.inner + 1,
    )


def _judge(state: TrustRegionState, trial: Derivatives, largest: float | Float[Array, ""]) -> TrustRegionState:
    """Accept or reject the trial point by the ratio of true to predicted decrease; conjugate gradients begin anew.

    `largest` is the norm of the teachers, the largest trust radius.
    """
    rounding = state.model_decrease <= _LOSS_ROUNDING * (largest**2 + jnp.abs(state.loss))
    ratio = jnp.where(rounding, 1.0, (state.loss - trial.loss) / jnp.maximum(state.model_decrease, 1e-300))
    accepted = ratio > _ACCEPT  # false for NaN
    length = jnp.sqrt(_dot(state.step, state.step))
    at_boundary = length >= 0.99 * state.radius
    radius = jnp.where(accepted, state.radius, 0.25 * length)
    radius = jnp.where((ratio > _GOOD) & at_boundary, jnp.minimum(2 * state.radius, largest), radius)
    new_gradient = jnp.where(accepted, trial.gradient, state.gradient)
    return replace(
        state,
        W=jnp.where(accepted, state.W + state.step, state.W),
        loss=jnp.where(accepted, trial.loss, state.loss),
        gradient=new_gradient,
        radius=radius,
        step=jnp.zeros_like(state.step),
        residual=-new_gradient,
        direction=-new_gradient,
        model_decrease=jnp.zeros_like(state.loss),
        judging=jnp.asarray(False),
        inner=jnp.asarray(0, jnp.int32),
        gradient_norm=jnp.sqrt(_dot(new_gradient, new_gradient)),
    )


def trust_region_tick(model: Model, scale: float | Float[Array, ""], state: TrustRegionState) -> TrustRegionState:
    """A step of conjugate gradients, or the judgement of the trial point they led to; then the next evaluation.

    `scale` is the norm of the teachers: the unit of the gradient in the forcing term
    min(1/2, sqrt(|gradient|/scale)) (superlinear convergence) and the largest trust radius.
    """
    forcing = jnp.minimum(0.5, jnp.sqrt(state.gradient_norm / scale))
    judged = _judge(state, state.at, scale)
    advanced = _conjugate_gradient(state, state.at.hessian_product, forcing)
    merged = jax.tree.map(lambda a, b: jnp.where(state.judging, a, b), judged, advanced)
    at = model(jnp.where(merged.judging, merged.W + merged.step, merged.W), merged.direction)
    return replace(merged, at=at, evaluations=state.evaluations + 1)
