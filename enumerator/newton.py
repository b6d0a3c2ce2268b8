"""Newton's method: a trust-region Newton-CG as dynamics of its own, and the polish of stationary points.

Trust region with truncated conjugate gradients: Steihaug (1983); Nocedal & Wright (2006), algorithms
4.1 and 7.2. As dynamics it is a state machine like the integrator: each tick evaluates loss, gradient
and one Hessian product at one point, either for a step of conjugate gradients or to judge a trial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Integer
from numpy.typing import NDArray

from enumerator.activations.base import Activation
from enumerator.loss import Derivatives, SecondLayer, compiled_gradient, compiled_hessian, gradient, hessian

# Loss, gradient and Hessian product at a point along a direction.
Model = Callable[[Float[Array, "K D"], Float[Array, "K D"]], Derivatives]

_ACCEPT, _GOOD = 0.1, 0.75  # ratios of true to predicted decrease: Nocedal & Wright, algorithm 4.1
# A predicted decrease below this part of the squared norm of the teachers, and of the loss, is rounding of
# the loss: such a step is judged good.
_LOSS_ROUNDING = 1e-13


@struct.dataclass
class NewtonState:
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


def newton_init(model: Model, W: Float[Array, "K D"], radius: float | Float[Array, ""]) -> NewtonState:
    """A lane at its start, with the given first trust radius (Frobenius, reduced weights)."""
    at = model(W, jnp.zeros_like(W))
    return NewtonState(
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


def _conjugate_gradient(state: NewtonState, product: Float[Array, "K D"], forcing: Float[Array, ""]) -> NewtonState:
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


def _judge(state: NewtonState, trial: Derivatives, largest: float | Float[Array, ""]) -> NewtonState:
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


def newton_tick(model: Model, scale: float | Float[Array, ""], state: NewtonState) -> NewtonState:
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


def polish(
    g: Activation, W: Float[Array, "K r"], V: Float[Array, "M r"], a: SecondLayer = None, iterations: int = 12
) -> tuple[Float[Array, "K r"], Float[Array, ""]]:
    """Newton's method on grad L = 0 from nearby, in the span of the teachers: the point and its gradient norm.

    Plain Newton with the closed-form Hessian, which finds saddles as well as minima; stops when the
    gradient norm no longer falls below half. Whether it converged, and to what, the caller decides.
    """

    def norm_at(x: Float[Array, "K r"]) -> tuple[Float[Array, "K r"], Float[Array, ""]]:
        slope = gradient(g, x, V, a)
        return slope, jnp.sqrt(_dot(slope, slope))

    def body(carry: tuple) -> tuple:
        x, slope, norm, _, count = carry
        step = jnp.linalg.solve(hessian(g, x, V, a).reshape(x.size, x.size), slope.ravel()).reshape(x.shape)
        new_slope, new_norm = norm_at(x - step)
        better = new_norm < norm  # false for NaN: the point stays
        x, slope = jnp.where(better, x - step, x), jnp.where(better, new_slope, slope)
        return x, slope, jnp.where(better, new_norm, norm), new_norm < 0.5 * norm, count + 1

    def goes_on(carry: tuple) -> Bool[Array, ""]:
        return carry[3] & (carry[4] < iterations)

    slope, norm = norm_at(W)
    x, _, norm, _, _ = jax.lax.while_loop(goes_on, body, (W, slope, norm, jnp.asarray(True), 0))
    return x, norm


# Compiled once per activation and shape.
compiled_polish = jax.jit(polish, static_argnums=0)
# The damping of the first step, an eigenvalue, by which it grows or falls, and beyond which nothing is found.
_FIRST_DAMPING, _DAMPS, _MOST_DAMPING = 1e-4, 5.0, 10.0
# Part of a step at which its curvature is probed, and the largest correction for it, over half the step: the values of
# Transtrum & Sethna (2012), section 4.
_PROBED, _MOST_BEND = 0.1, 0.75
# The norm is given up that has not halved in so many steps: it halves in two or three where there is a point to reach.
_PATIENCE = 6
# A norm below this part of that of the teachers has few digits left; when it no longer falls by half it has none.
_ROUNDING = 1e-12


def nearest_stationary(
    g: Activation,
    W: NDArray[np.float64],
    V: NDArray[np.float64],
    a: NDArray[np.float64] | None = None,
    iterations: int = 60,
) -> tuple[NDArray[np.float64], float]:
    """The stationary point that the norm of the gradient leads to from W (K, r), and that norm there.

    Levenberg-Marquardt on |grad L|^2 (Nocedal & Wright 2006, section 10.3) with the symmetric Hessian diagonalised,
    and with the geodesic acceleration of Transtrum & Sethna (2012, arXiv:1201.5885): it reaches minima and saddles
    alike, also near-degenerate ones, to which curved valleys lead, and where plain Newton steps overshoot. Ten to
    thirty times the cost of `polish`. The norm may also come to rest elsewhere: the caller decides.
    """
    x, teachers, damping = W, jnp.asarray(V), _FIRST_DAMPING
    rounding = _ROUNDING * float(np.linalg.norm(V))

    def slope(point: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
        rate = np.asarray(compiled_gradient(g, jnp.asarray(point), teachers, a))
        return rate, float(np.linalg.norm(rate))

    at, norm = slope(x)
    norms = [norm]
    for _ in range(iterations):
        H = np.asarray(compiled_hessian(g, jnp.asarray(x), teachers, a)).reshape(x.size, x.size)
        values, vectors = np.linalg.eigh(H)
        while damping <= _MOST_DAMPING:
            inverse = values / (values**2 + damping**2)
            step = -(vectors @ (inverse * (vectors.T @ at.ravel()))).reshape(x.shape)
            # The gradient along the step is at + H step + bend/2: what its curvature adds to the way.
            change = (slope(x + _PROBED * step)[0] - at) / _PROBED - (H @ step.ravel()).reshape(x.shape)
            bend = -(vectors @ (inverse * (vectors.T @ (2 * change / _PROBED).ravel()))).reshape(x.shape)
            bend = bend if norm > rounding else np.zeros_like(bend)  # which would be a difference of roundings
            new_at, new_norm = slope(x + step + bend / 2)
            if new_norm < norm and 2 * np.linalg.norm(bend) <= _MOST_BEND * np.linalg.norm(step):
                x, at, norm, damping = x + step + bend / 2, new_at, new_norm, damping / _DAMPS
                break
            damping *= _DAMPS
        else:
            break
        norms.append(norm)
        if norm > 0.5 * norms[-2] and norm <= rounding:
            break
        if len(norms) > _PATIENCE and norm > 0.5 * norms[-1 - _PATIENCE]:
            break
    return x, norm


def distance_by_newton(
    g: Activation, W: NDArray[np.float64], V: NDArray[np.float64], a: NDArray[np.float64] | None, definite: float
) -> float:
    """Length of Newton's step from W (K, D), the shortest: how far a family of stationary points is to first order.

    Eigenvalues of at most the part `definite` of the largest vanish.
    """
    at, teachers = jnp.asarray(W), jnp.asarray(V)
    slope = np.asarray(compiled_gradient(g, at, teachers, a)).ravel()
    H = np.asarray(compiled_hessian(g, at, teachers, a)).reshape(W.size, W.size)
    return float(np.linalg.norm(np.linalg.lstsq(H, slope, rcond=definite)[0]))
