"""The compiled functions of the batch loop: one program each for a dynamics and the shapes of a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array

from enumerator.activations.geometry import Teachers
from enumerator.dynamics.base import Stepper, handed_over
from enumerator.dynamics.steppers import single_precision_for, stepper_for
from enumerator.dynamics.symmetric_starts import projection
from enumerator.lanes.passed import WatchedLane, watch, watched_tick
from enumerator.loss.equations import Equations
from enumerator.loss.population import fast_loss, teacher_constant
from enumerator.problem import Dynamics, Tolerances


class Kernels(NamedTuple):
    """The compiled functions of one dynamics, each over a batch of lanes.

    All take the teachers first. `empty` gives states to fill: `refill` begins lanes at given weights, `take_over` goes
    on with lanes in single precision that are handed over, which keep what they have passed. `lasts` tells which lanes
    stay in single precision. `passed` is what some of the lanes have passed: an entry per leaf of `Passed`.
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


@dataclass(frozen=True, eq=False)
class _Programs:
    """The functions of `Kernels`, to be compiled. `lingers`: gradient norm below which a lane does, in its unit."""

    stepper: Stepper
    equations: Equations
    ticks: int
    lingers: float

    def _start(self, V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.vmap(lambda c, w: watch(self.stepper.init(V, projection(c, V), w)))(classes, W)

    def empty(self, V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.tree.map(jnp.zeros_like, self._start(V, classes, W))  # the compiler drops all but the zeros

    def refill(self, V: Teachers, classes: Array | None, states: Any, W: Array, lanes: Array) -> Any:
        return jax.tree.map(lambda old, new: old.at[lanes].set(new), states, self._start(V, classes, W))

    def take_over(
        self, V: Teachers, classes: Array | None, states: Any, others: Any, taken: Array, lanes: Array
    ) -> Any:
        moved = jax.tree.map(lambda leaf: leaf[taken], others)
        lane = jax.vmap(lambda c, lane: handed_over(self.stepper, V, projection(c, V), lane))(classes, moved.lane)
        return jax.tree.map(lambda old, new: old.at[lanes].set(new), states, replace(moved, lane=lane))

    def advance(self, V: Teachers, classes: Array | None, states: Any) -> Any:
        norm = jnp.sqrt((V * V).sum() / len(V))

        def tick(classes: Array | None, watched: WatchedLane) -> WatchedLane:
            project = projection(classes, V)
            low = self.lingers * norm if self.lingers else None
            moves = None if self.stepper.lasts is None else self.stepper.lasts(V, watched.lane)
            return watched_tick(partial(self.stepper.tick, V, project), norm, low, watched, moves)

        return jax.lax.fori_loop(0, self.ticks, lambda _, s: jax.vmap(tick)(classes, s), states)

    def lasts(self, V: Teachers, states: WatchedLane) -> Array:
        if self.stepper.lasts is None:
            return jnp.ones_like(states.gradient_norm, bool)
        return jax.vmap(partial(self.stepper.lasts, V))(states.lane)

    def losses(self, V: Teachers, W: Array) -> Array:
        constant = teacher_constant(self.equations.g, V)
        if self.equations.is_trained:
            return jax.vmap(lambda x: fast_loss(self.equations.g, x[:, :-2], V, constant, x[:, -2]))(W)
        return jax.vmap(lambda w: fast_loss(self.equations.g, w, V, constant))(W)

    def passed_entries(self, _: Teachers, states: WatchedLane, lanes: Array) -> list[Array]:
        entries = (states.seen, states.entered, states.left, states.gradient_norms, states.weights)
        return [leaf[lanes] for leaf in entries]

    def passed_losses(self, V: Teachers, weights: Array) -> Array:
        return jax.vmap(lambda W: self.losses(V, W))(weights)


@lru_cache(maxsize=32)
def kernels_of(
    dynamics: Dynamics, equations: Equations, tolerances: Tolerances, ticks: int, axes: int | None, is_single: bool
) -> Kernels:
    """`axes`: the number of teachers where they are the coordinate axes, which the program then knows.

    `is_single`: those of lanes in single precision; InputError if the dynamics has none.
    """
    stepper = (single_precision_for if is_single else stepper_for)(dynamics, equations, tolerances)
    lingers = tolerances.linger_below if dynamics.name != "newton" else 0.0
    programs = _Programs(stepper, equations, ticks, lingers)

    def compiled(function: Callable, *donated: int) -> Callable:
        if axes is None:
            return jax.jit(function, donate_argnums=donated)
        V = np.eye(axes)
        return jax.jit(lambda _, *rest: function(V, *rest), donate_argnums=donated)

    entries, losses_of = compiled(programs.passed_entries), compiled(programs.passed_losses)

    def passed(V: Teachers, states: WatchedLane, lanes: ArrayLike) -> Passed:
        # Two programs: that of the losses is then the same for a large batch and a small one.
        seen, entered, left, norms, weights = entries(V, states, lanes)
        return Passed(seen, entered, left, norms, weights, losses_of(V, weights))

    return Kernels(
        compiled(programs.empty),
        compiled(programs.refill, 2),
        compiled(programs.take_over, 2),
        compiled(programs.advance, 2),
        compiled(programs.lasts),
        compiled(programs.losses),
        passed,
    )
