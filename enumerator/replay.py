"""One start again, with its trajectory."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from enumerator.dynamics.base import Stepper, handed_over
from enumerator.dynamics.implicit import STEP_COST, implicit_flow
from enumerator.dynamics.steppers import stepper_for
from enumerator.dynamics.symmetric_starts import Projection, projection
from enumerator.errors import InputError
from enumerator.lanes.batch import BatchShape
from enumerator.lanes.sampling import initial_weights, start_classes
from enumerator.lanes.solve import solve_starts
from enumerator.loss.overlaps import lift
from enumerator.loss.population import compiled_gradient, exact_loss
from enumerator.loss.second_layer import EXTRA
from enumerator.problem import Campaign
from enumerator.process_checks import check_jax
from enumerator.sgd.one_pass import trajectories

# One row for each accepted step, or for each of a hundred flow times of one-pass SGD. Q and R are flat, row-major, as
# everywhere in the catalogue; second_layer is null where it is fixed.
SCHEMA = pa.schema(
    [
        pa.field("evaluations", pa.int64(), nullable=False),
        pa.field("flow_time", pa.float64()),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("gradient_norm", pa.float64(), nullable=False),
        pa.field("Q", pa.list_(pa.float64()), nullable=False),
        pa.field("R", pa.list_(pa.float64()), nullable=False),
        pa.field("second_layer", pa.list_(pa.float64())),
    ]
)


def replay(campaign: Campaign, index: int) -> pa.Table:
    """The trajectory of a start as the solver walked it, from its initial overlaps to where it retired.

    One row of `SCHEMA` for each accepted step. Raises InputError if there is no start of that index.
    """
    last = len(campaign.law.Q) if campaign.law.Q is not None else None
    if index < 0 or (last is not None and index >= last):
        limit = "" if last is None else f" and below {last}"
        raise InputError(f"`index` must be that of a start, 0 or more{limit}, got {index}.")
    check_jax()
    indices = np.array([index])
    if campaign.dynamics.is_noisy:
        return _noisy(campaign, indices)
    retired = solve_starts(campaign, indices, BatchShape(lanes=1, ticks=64)).starts
    V = jnp.asarray(campaign.landscape.teacher_factor)
    classes = start_classes(campaign, indices)
    project = projection(None if classes is None else jnp.asarray(classes[0]), V)
    stepper = stepper_for(campaign.dynamics, campaign.landscape.equations, campaign.tolerances)
    first, last = stepper.single or stepper, int(retired.evaluations[0])
    state = jax.jit(lambda W: first.init(V, project, W))(jnp.asarray(initial_weights(campaign, indices)[0]))
    passed = [(state.W, state.evaluations, state.flow_time, state.gradient_norm)]
    state = _walk(campaign, first, project, state, last, passed)
    if first is not stepper:
        state = jax.jit(lambda lane: handed_over(stepper, V, project, lane))(state)
        state = _walk(campaign, stepper, project, state, last, passed)
    if int(state.evaluations) < last:
        _go_on(campaign, state, last, passed)
    return pa.Table.from_pylist([_row(campaign, *entry) for entry in passed], schema=SCHEMA)


def _walk(campaign: Campaign, stepper: Stepper, project: Projection, state: Any, last: int, passed: list[tuple]) -> Any:
    """Advance a lane to `last` evaluations, or until it no longer lasts, or the budget of explicit steps is spent.

    Each accepted step is added to `passed`.

    An entry of `passed` is weights (K, D), evaluations, flow time and gradient norm.
    """

    @jax.jit
    def ticks(state: Any) -> Any:
        def step(before: Any, _: None) -> Any:
            after = stepper.tick(V, project, before)
            return after, (after.W, after.evaluations, after.flow_time, after.gradient_norm)

        return jax.lax.scan(step, state, length=64)

    V, tolerances = jnp.asarray(campaign.landscape.teacher_factor), campaign.tolerances

    def goes_on() -> bool:
        is_spent = state.evaluations >= tolerances.max_evaluations or state.flow_time >= tolerances.max_flow_time
        has_arrived = int(state.evaluations) >= last
        lasts = stepper.lasts is None or bool(stepper.lasts(V, state))
        return lasts and not has_arrived and not is_spent

    while goes_on():
        state, trace = ticks(state)
        for entry in zip(*map(np.asarray, trace), strict=True):
            if entry[1] <= last and not np.array_equal(entry[0], passed[-1][0]):
                passed.append(entry)
    return state


def _go_on(campaign: Campaign, state: Any, last: int, passed: list[tuple]) -> None:
    """Follow a lane whose explicit steps are spent by implicit ones, to `last` evaluations."""
    for at in implicit_flow(campaign.landscape, np.asarray(state.W), float(state.flow_time)):
        evaluations = int(state.evaluations) + STEP_COST * at.steps
        passed.append((at.X, evaluations, at.flow_time, at.gradient_norm))
        if evaluations >= last:
            return


# Rows of a run of one-pass SGD, which has no accepted steps: evenly spaced flow times.
_INTERVALS = 100


def _noisy(campaign: Campaign, indices: NDArray[np.int64]) -> pa.Table:
    """The run of one-pass SGD, `evaluations` counting its updates."""
    path, V = trajectories(campaign, indices, _INTERVALS), campaign.landscape.teacher_factor
    rows = []
    for time, Q, R in zip(path.flow_time, path.Q[0], path.R[0], strict=True):
        W = np.concatenate(lift(Q, R, V), axis=1)
        slope = compiled_gradient(campaign.landscape.g, jnp.asarray(W), jnp.asarray(V))
        updates = round(time * campaign.law.dimension / (campaign.dynamics.step or 1.0))
        rows.append(_row(campaign, W, updates, time, np.linalg.norm(np.asarray(slope))))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _row(campaign: Campaign, W: Any, evaluations: Any, flow_time: Any, norm: Any) -> dict[str, Any]:
    weights, layer, V = np.asarray(W), None, campaign.landscape.teacher_factor
    if campaign.landscape.second_layer == "trained":
        weights, layer = weights[:, :-EXTRA], weights[:, -EXTRA]
    return {
        "evaluations": int(evaluations),
        "flow_time": float(flow_time) if np.isfinite(flow_time) else None,
        "loss": exact_loss(campaign.landscape.g, weights, V, layer),
        "gradient_norm": float(norm),
        "Q": (weights @ weights.T).ravel(),
        "R": (weights[:, : V.shape[1]] @ V.T).ravel(),
        "second_layer": layer,
    }
