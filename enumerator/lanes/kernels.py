"""The compiled functions of the batch loop: one program each for a dynamics and the shapes of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.base import handed_over
from enumerator.dynamics.steppers import stepper_for, transient_for
from enumerator.dynamics.symmetric_starts import projection
from enumerator.lanes.watch import WatchedLane, watch, watched_tick
from enumerator.loss.equations import Equations
from enumerator.loss.population import fast_loss, teacher_constant
from enumerator.problem import Dynamics, Tolerances


class Kernels(NamedTuple):
    """The compiled functions of one dynamics, each over a batch of lanes.

    All take the teachers first. `empty` gives states to fill: `refill` begins lanes at given weights, `take_over` goes
    on with lanes that a transient hands over, which keep what they have passed. `lasts` tells which lanes a transient
    keeps. `passed` is what some of the lanes have passed: an entry per leaf of `Passed`.
    """

    empty: Callable
    refill: Callable
    take_over: Callable
    advance: Callable
    lasts: Callable
    losses: Callable
    passed: Callable


class Passed(NamedTuple):
    """What n lanes have passed, see `WatchedLane`, with the loss of each entry: of the device, or of numpy."""

    seen: Any
    entered: Any
    left: Any
    gradient_norms: Any
    weights: Any
    losses: Any


@lru_cache(maxsize=32)
def kernels_of(
    dynamics: Dynamics,
    equations: Equations,
    tolerances: Tolerances,
    ticks: int,
    axes: int | None,
    is_transient: bool,
) -> Kernels:
    """`axes`: the number of teachers where they are the coordinate axes, which the program then knows.

    `is_transient`: those of the transient; InputError if the dynamics has none.
    """
    stepper = (transient_for if is_transient else stepper_for)(dynamics, equations, tolerances)
    lingers = tolerances.linger_below if dynamics.name != "newton" else 0.0

    def start(V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.vmap(lambda c, w: watch(stepper.init(V, projection(c, V), w)))(classes, W)

    def refill(V: Teachers, classes: Array | None, states: Any, W: Array, lanes: Array) -> Any:
        return jax.tree.map(lambda old, new: old.at[lanes].set(new), states, start(V, classes, W))

    def take_over(V: Teachers, classes: Array | None, states: Any, others: Any, taken: Array, lanes: Array) -> Any:
        moved = jax.tree.map(lambda leaf: leaf[taken], others)
        lane = jax.vmap(lambda c, lane: handed_over(stepper, V, projection(c, V), lane))(classes, moved.lane)
        return jax.tree.map(lambda old, new: old.at[lanes].set(new), states, replace(moved, lane=lane))

    def advance(V: Teachers, classes: Array | None, states: Any) -> Any:
        norm = jnp.sqrt((V * V).sum() / len(V))

        def tick(classes: Array | None, watched: WatchedLane) -> WatchedLane:
            project = projection(classes, V)
            low = lingers * norm if lingers else None
            moves = None if stepper.lasts is None else stepper.lasts(V, watched.lane)
            return watched_tick(partial(stepper.tick, V, project), norm, low, watched, moves)

        return jax.lax.fori_loop(0, ticks, lambda _, s: jax.vmap(tick)(classes, s), states)

    def lasts(V: Teachers, states: WatchedLane) -> Array:
        if stepper.lasts is None:
            return jnp.ones_like(states.gradient_norm, bool)
        return jax.vmap(partial(stepper.lasts, V))(states.lane)

    def losses(V: Teachers, W: Array) -> Array:
        constant = teacher_constant(equations.g, V)
        if equations.is_trained:
            return jax.vmap(lambda x: fast_loss(equations.g, x[:, :-2], V, constant, x[:, -2]))(W)
        return jax.vmap(lambda w: fast_loss(equations.g, w, V, constant))(W)

    def empty(V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.tree.map(jnp.zeros_like, start(V, classes, W))  # the compiler drops all but the zeros

    def passed(V: Teachers, states: WatchedLane, lanes: Array) -> Passed:
        entries = (states.seen, states.entered, states.left, states.gradient_norms, states.weights)
        seen, entered, left, norms, weights = (leaf[lanes] for leaf in entries)
        return Passed(seen, entered, left, norms, weights, jax.vmap(lambda W: losses(V, W))(weights))

    def compiled(function: Callable, *donated: int) -> Callable:
        if axes is None:
            return jax.jit(function, donate_argnums=donated)
        V = np.eye(axes)
        return jax.jit(lambda _, *rest: function(V, *rest), donate_argnums=donated)

    return Kernels(
        compiled(empty),
        compiled(refill, 2),
        compiled(take_over, 2),
        compiled(advance, 2),
        compiled(lasts),
        compiled(losses),
        compiled(passed),
    )
