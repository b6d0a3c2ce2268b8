"""Runge-Kutta-Chebyshev integration with error control per lane, one evaluation of the vector field per tick.

The second-order stabilised method of Sommeijer, Shampine & Verwer (1998), "RKC: an explicit solver
for parabolic PDEs". Its stability interval grows like 0.65 s^2 with the number of stages s, so a slow
manifold costs the square root of what an ordinary explicit method pays. A lane is a small state
machine: each tick takes in the rate at one stage, whatever stage of whatever method the neighbouring
lanes of the batch are in, so that no evaluation is wasted on waiting; and evaluates the next. So the
rate passes from tick to tick through memory: what a compiler would else evaluate anew for each use.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Integer

from enumerator.dynamics.vector_field import VectorField

# Numbers of stages on offer: about a fifth apart, so that at most a tenth of the stages is surplus.
STAGE_COUNTS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60, 72, 86, 103, 124, 150, 180, 200)
_DAMPING = 2 / 13  # epsilon of the paper: damps the stage polynomial by 2/3 inside the interval
_SAFETY = 0.8
_SHRINK, _GROW = 0.1, 5.0  # step ratios: one bad estimate neither stalls nor derails a lane

# The stiffness is estimated by a nonlinear power iteration, as in the RKC code: one probe at W + delta v
# after each rejection and every so many accepted steps, from the vector v of the last one.
PROBE_LENGTH = 1e-6  # of the norm of W: rounding 1e-9 of the product, truncation 1e-6
SINGLE_PROBE_LENGTH = 3e-4  # for a field in float32: rounding 1e-3, truncation 3e-4
_PROBE_PERIOD = 10
_FIRST_PROBES = 4
_PROBE_SAFETY = 1.2  # the power iteration approaches the largest eigenvalue from below


class _Method(NamedTuple):
    """Coefficients (s + 1, 4) of mu, nu, mu~, gamma~ for every stage, and the stability bound beta."""

    coefficients: np.ndarray
    stability: float


def _method(stages: int) -> _Method:
    """Coefficients of the s-stage formula from Chebyshev polynomials and their derivatives at w0."""
    w0 = 1 + _DAMPING / stages**2
    T, dT, ddT = np.zeros((3, stages + 1))
    T[:2], dT[1] = (1, w0), 1
    for j in range(2, stages + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        dT[j] = 2 * T[j - 1] + 2 * w0 * dT[j - 1] - dT[j - 2]
        ddT[j] = 4 * dT[j - 1] + 2 * w0 * ddT[j - 1] - ddT[j - 2]
    w1 = dT[stages] / ddT[stages]
    b = np.empty(stages + 1)
    b[2:] = ddT[2:] / dT[2:] ** 2
    b[0], b[1] = b[2], 1 / w0
    a = 1 - b * T
    coefficients = np.zeros((stages + 1, 4))
    coefficients[1, 2] = b[1] * w1
    for j in range(2, stages + 1):
        weight = 2 * b[j] * w1 / b[j - 1]
        coefficients[j] = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2], weight, -a[j - 1] * weight
    return _Method(coefficients, float((w0 + 1) * ddT[stages] / dT[stages]))


_GOLDEN = (np.sqrt(5) - 1) / 2
_METHODS = [_method(stages) for stages in STAGE_COUNTS]
_COEFFICIENTS = np.concatenate([method.coefficients for method in _METHODS])
_OFFSETS = np.cumsum([0, *(len(method.coefficients) for method in _METHODS[:-1])]).astype(np.int32)
_STABILITY = np.array([method.stability for method in _METHODS])


@struct.dataclass
class RKCState:
    """A lane: the last accepted point and its rate, the two latest stages of the step under way, counters.

    `stage_rate` is the rate at `stage`, which the next tick takes in; `stage_number` 0 means that this is a probe
    of the stiffness, along `probe` (unit Frobenius norm), and `steps_to_probe` counts down to the next (below zero:
    probes in a row).
    """

    W: Float[Array, "*lanes K D"]
    rate: Float[Array, "*lanes K D"]
    stage: Float[Array, "*lanes K D"]
    stage_rate: Float[Array, "*lanes K D"]
    previous: Float[Array, "*lanes K D"]
    probe: Float[Array, "*lanes K D"]
    stiffness: Float[Array, "*lanes"]
    steps_to_probe: Integer[Array, "*lanes"]
    step: Float[Array, "*lanes"]
    method: Integer[Array, "*lanes"]
    stage_number: Integer[Array, "*lanes"]
    error: Float[Array, "*lanes"]
    gradient_norm: Float[Array, "*lanes"]
    flow_time: Float[Array, "*lanes"]
    evaluations: Integer[Array, "*lanes"]


def _norm(x: Float[Array, "K D"]) -> Float[Array, ""]:
    return jnp.sqrt((x * x).sum())


def _choose_method(
    step: Float[Array, ""], stiffness: Float[Array, ""], evaluations: Integer[Array, ""]
) -> tuple[Float[Array, ""], Integer[Array, ""], Float[Array, ""]]:
    """The step (cut to the largest stable one), the fewest stages that are stable, and the first stage's weight.

    Many stages hardly damp the modes at the crests of their polynomial. Where the largest step is taken again and
    again it varies by half, by the golden ratio from one to the next, so that no mode sits on a crest.
    """
    stability = jnp.asarray(_STABILITY)
    longest = _STABILITY[-1] * (1 - 0.5 * ((evaluations.astype(jnp.float64) * _GOLDEN) % 1.0)) / stiffness
    step = jnp.minimum(step, longest)
    method = jnp.minimum(jnp.searchsorted(stability, step * stiffness), len(_METHODS) - 1).astype(jnp.int32)
    return step, method, jnp.asarray(_COEFFICIENTS)[jnp.asarray(_OFFSETS)[method] + 1, 2]


def _probe_point(W: Float[Array, "K D"], probe: Float[Array, "K D"], length: float) -> Float[Array, "K D"]:
    return W + (length * _norm(W)) * probe


def rkc_init(field: VectorField, W: Float[Array, "K D"], probe_length: float = PROBE_LENGTH) -> RKCState:
    """A lane at time zero, about to probe the stiffness along its rate."""
    rate = field(W)
    speed = _norm(rate)
    zero = jnp.zeros_like(speed)
    probe = rate / jnp.maximum(speed, np.finfo(np.float64).tiny)
    stage = _probe_point(W, probe, probe_length)
    return RKCState(
        W=W,
        rate=rate,
        stage=stage,
        stage_rate=field(stage),
        previous=W,
        probe=probe,
        stiffness=zero,
        steps_to_probe=jnp.asarray(1 - _FIRST_PROBES, jnp.int32),
        step=zero,
        method=jnp.asarray(0, jnp.int32),
        stage_number=jnp.asarray(0, jnp.int32),
        error=jnp.ones_like(speed),
        gradient_norm=speed,
        flow_time=zero,
        evaluations=jnp.asarray(2, jnp.int32),
    )


def _step_ratio(
    error: Float[Array, ""], previous_error: Float[Array, ""], accepted: Bool[Array, ""]
) -> Float[Array, ""]:
    """Next step over this one: the predictive controller of the RKC code, plain after a rejection."""
    finite = jnp.isfinite(error)
    error = jnp.where(finite, jnp.maximum(error, 1e-10), 1e10)
    plain = _SAFETY * error ** (-1 / 3)
    predictive = plain * (previous_error / error) ** (1 / 3)
    ratio = jnp.where(accepted, jnp.minimum(plain, predictive), plain)
    return jnp.clip(ratio, _SHRINK, jnp.where(accepted, _GROW, 1.0))


def _error(state: RKCState, tolerance: float) -> Float[Array, ""]:
    """The local error of the step that ends at the current stage, over what is allowed.

    0.8 (y_n - y_n+1) + 0.4 h (f_n + f_n+1) is the error estimate of the paper.
    """
    estimate = 0.8 * (state.W - state.stage) + 0.4 * state.step * (state.rate + state.stage_rate)
    return _norm(estimate) / (tolerance * _norm(state.stage))


def _probed_stiffness(
    state: RKCState, probed: Bool[Array, ""], probe_length: float
) -> tuple[Float[Array, "K D"], Float[Array, ""]]:
    """The direction of the next probe, and the stiffness: those of the state, or what the probe has told."""
    change = state.stage_rate - state.rate
    growth = _norm(change)
    probe = jnp.where(probed, change / jnp.maximum(growth, np.finfo(np.float64).tiny), state.probe)
    estimated = _PROBE_SAFETY * growth / (probe_length * _norm(state.W))
    # Never below one half, a diagonal block of the Hessian of a neuron at rest: no step runs away.
    return probe, jnp.where(probed, jnp.maximum(estimated, 0.5), state.stiffness)


def _countdown(
    state: RKCState, probed: Bool[Array, ""], finished: Bool[Array, ""], accepted: Bool[Array, ""]
) -> Integer[Array, ""]:
    """Steps to the next probe: none after a rejection."""
    countdown = jnp.where(finished, jnp.where(accepted, state.steps_to_probe - 1, 0), state.steps_to_probe)
    return jnp.where(probed, jnp.where(countdown < 0, countdown + 1, _PROBE_PERIOD), countdown)


def _next_stage(state: RKCState, stages: Integer[Array, ""]) -> Float[Array, "K D"]:
    """The next stage of the step under way, of `stages`."""
    row = jnp.asarray(_OFFSETS)[state.method] + jnp.minimum(state.stage_number + 1, stages)
    mu, nu, mu_rate, gamma_rate = jnp.asarray(_COEFFICIENTS)[row]
    next_stage = (1 - mu - nu) * state.W + mu * state.stage + nu * state.previous
    return next_stage + state.step * (mu_rate * state.stage_rate + gamma_rate * state.rate)


def rkc_tick(
    field: VectorField,
    tolerance: float,
    state: RKCState,
    settle: VectorField = lambda W: W,
    probe_length: float = PROBE_LENGTH,
) -> RKCState:
    """From the rate at the current stage form the next one, or judge the step and begin another; evaluate there.

    `tolerance` bounds the estimated local error of a step over the norm of W. `settle` maps an accepted point to where
    the field has been evaluated for it: onto a manifold. `probe_length`, over the norm of W, is for its precision.
    """
    rate = state.stage_rate
    stages = jnp.asarray(STAGE_COUNTS, jnp.int32)[state.method]
    probed = state.stage_number == 0
    finished = state.stage_number >= stages
    error = _error(state, tolerance)
    accepted = finished & (error <= 1)  # a NaN is no error below one: the step is rejected
    W = jnp.where(accepted, settle(state.stage), state.W)
    base_rate = jnp.where(accepted, rate, state.rate)

    probe, stiffness = _probed_stiffness(state, probed, probe_length)
    countdown = _countdown(state, probed, finished, accepted)
    probes = (finished | probed) & (countdown <= 0)
    begins = (finished | probed) & ~probes

    wanted = jnp.where(finished, state.step * _step_ratio(error, state.error, accepted), state.step)
    wanted = jnp.where(wanted > 0, wanted, 1 / stiffness)
    step, method, weight = _choose_method(wanted, stiffness, state.evaluations)

    next_stage = _next_stage(state, stages)
    first_stage = jnp.where(probes, _probe_point(W, probe, probe_length), W + weight * step * base_rate)
    stage = jnp.where(begins | probes, first_stage, next_stage)
    return RKCState(
        W=W,
        rate=base_rate,
        stage=stage,
        stage_rate=field(stage),
        previous=jnp.where(begins, W, state.stage),
        probe=probe,
        stiffness=stiffness,
        steps_to_probe=countdown,
        step=jnp.where(begins, step, jnp.where(probes, wanted, state.step)),
        method=jnp.where(begins, method, state.method),
        stage_number=jnp.where(probes, 0, jnp.where(begins, 1, state.stage_number + 1)),
        error=jnp.where(accepted, jnp.maximum(error, 1e-4), state.error),
        gradient_norm=jnp.where(accepted, _norm(rate), state.gradient_norm),
        flow_time=jnp.where(accepted, state.flow_time + state.step, state.flow_time),
        evaluations=state.evaluations + 1,
    )
