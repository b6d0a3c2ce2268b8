"""The batch loop: lanes advance together, finished ones retire, fresh ones take their place. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from enumerator.basins import Basins
from enumerator.dynamics import stepper_for
from enumerator.equations import Equations
from enumerator.geometry import Teachers
from enumerator.invariance import projection
from enumerator.loss import fast_loss, teacher_constant
from enumerator.problem import Campaign, Dynamics, Tolerances
from enumerator.sampling import initial_weights, lane_width, start_classes
from enumerator.starts import Lingering, Outcome, ShardResult, StartRows, orders_of_long_students, shard_result
from enumerator.stops import STOPS
from enumerator.watch import WatchedLane, watch, watched_tick

__all__ = ["BatchShape", "Outcome", "ShardResult", "basins_in_hand", "batch_shape", "solve_shard", "solve_starts"]


@dataclass(frozen=True)
class BatchShape:
    """How many lanes advance together, and how many ticks pass between two looks from the host.

    No minimum depends on it. 64 lanes keep the matrices of a lane at K = M = 17 within the
    second-level cache of a core; 64 ticks keep the host's part small.
    """

    lanes: int = 64
    ticks: int = 64


def batch_shape(campaign: Campaign) -> BatchShape:
    """The default on a CPU; on an accelerator as many lanes as a quarter of its memory holds, at most 16,384."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return BatchShape()
    K, M, D = campaign.landscape.students, campaign.landscape.teachers, lane_width(campaign)
    # Two dozen matrices (K, D) of state, old and new, and a dozen (K, K + M) within an evaluation.
    lane_bytes = 8 * K * (24 * D + 12 * (K + M))
    memory = (device.memory_stats() or {}).get("bytes_limit", 8 << 30)
    lanes = int(min(16384, max(64, memory // 4 // lane_bytes)))
    return BatchShape(lanes=1 << (lanes.bit_length() - 1), ticks=64)


# The last lanes of a shard move into a batch of this size, so that a straggler does not drag empty lanes along. An
# eighth of a larger batch is filled, or read, at a time.
_LAST_LANES = 8


class _Kernels(NamedTuple):
    """The compiled functions of one dynamics, each over a batch of lanes.

    All take the teachers first. `empty` gives states to refill, `passed` what some of the lanes have passed: an entry
    per leaf of `_Passed`.
    """

    empty: Callable
    refill: Callable
    advance: Callable
    losses: Callable
    passed: Callable


class _Passed(NamedTuple):
    """What n lanes have passed, see `WatchedLane`, with the loss of each entry: of the device, or of numpy."""

    seen: Any
    entered: Any
    left: Any
    gradient_norms: Any
    weights: Any
    losses: Any


@lru_cache(maxsize=32)
def _kernels(
    dynamics: Dynamics, equations: Equations, tolerances: Tolerances, ticks: int, axes: int | None
) -> _Kernels:
    """`axes`: the number of teachers where they are the coordinate axes, which the program then knows."""
    stepper = stepper_for(dynamics, equations, tolerances)
    lingers = tolerances.linger_below if dynamics.name != "newton" else 0.0

    def start(V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.vmap(lambda c, w: watch(stepper.init(V, projection(c, V), w)))(classes, W)

    def refill(V: Teachers, classes: Array | None, states: Any, W: Array, lanes: Array) -> Any:
        return jax.tree.map(lambda old, new: old.at[lanes].set(new), states, start(V, classes, W))

    def advance(V: Teachers, classes: Array | None, states: Any) -> Any:
        norm = jnp.sqrt((V * V).sum() / len(V))

        def tick(classes: Array | None, watched: WatchedLane) -> WatchedLane:
            project = projection(classes, V)
            low = lingers * norm if lingers else None
            return watched_tick(lambda lane: stepper.tick(V, project, lane), norm, low, watched)

        return jax.lax.fori_loop(0, ticks, lambda _, s: jax.vmap(tick)(classes, s), states)

    def losses(V: Teachers, W: Array) -> Array:
        constant = teacher_constant(equations.g, V)
        if equations.is_trained:
            return jax.vmap(lambda x: fast_loss(equations.g, x[:, :-2], V, constant, x[:, -2]))(W)
        return jax.vmap(lambda w: fast_loss(equations.g, w, V, constant))(W)

    def empty(V: Teachers, classes: Array | None, W: Array) -> Any:
        return jax.tree.map(jnp.zeros_like, start(V, classes, W))  # the compiler drops all but the zeros

    def passed(V: Teachers, states: WatchedLane, lanes: Array) -> _Passed:
        entries = (states.seen, states.entered, states.left, states.gradient_norms, states.weights)
        seen, entered, left, norms, weights = (leaf[lanes] for leaf in entries)
        return _Passed(seen, entered, left, norms, weights, jax.vmap(lambda W: losses(V, W))(weights))

    def compiled(function: Callable, *donated: int) -> Callable:
        if axes is None:
            return jax.jit(function, donate_argnums=donated)
        V = np.eye(axes)
        return jax.jit(lambda _, *rest: function(V, *rest), donate_argnums=donated)

    return _Kernels(compiled(empty), compiled(refill, 2), compiled(advance, 2), compiled(losses), compiled(passed))


# What a worker has met in earlier shards of a campaign spares it work in the next; no outcome depends on it.
basins_in_hand = lru_cache(maxsize=2)(Basins)


class _Queue:
    """Initial weights of the starts that wait, drawn in blocks of one fixed shape; a start is known by its position."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], block: int) -> None:
        self.campaign, self.indices, self.block = campaign, indices, block
        self.drawn, self.taken = 0, 0
        self.weights = np.zeros((0, campaign.landscape.students, lane_width(campaign)))

    def __bool__(self) -> bool:
        return self.taken < len(self.indices)

    def take(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """At most `count` further starts: positions (n,), weights (n, K, D); fewer only when none are left."""
        while len(self.weights) < count and self.drawn < len(self.indices):
            wanted = self.indices[self.drawn : self.drawn + self.block]
            self.weights = np.concatenate([self.weights, initial_weights(self.campaign, wanted, self.block)])
            self.drawn += len(wanted)
        weights, self.weights = self.weights[:count], self.weights[count:]
        positions = np.arange(self.taken, self.taken + len(weights))
        self.taken += len(weights)
        return positions, weights


class _Batch:
    """The lanes: which start occupies which, by its position, and below which gradient norm to look at it next."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], shape: BatchShape) -> None:
        self.campaign, self.indices = campaign, indices
        self.V = jnp.asarray(campaign.landscape.teacher_factor)
        landscape = campaign.landscape
        axes = landscape.teachers if landscape.is_orthonormal else None
        self.kernels = _kernels(campaign.dynamics, landscape.equations, campaign.tolerances, shape.ticks, axes)
        self.basins = basins_in_hand(campaign)
        self.rows = StartRows(campaign.landscape)
        self.lingerings: list[Lingering] = []
        self.queue = _Queue(campaign, indices, 4 * shape.lanes)
        self.occupant = np.full(shape.lanes, -1, np.int64)
        self.block = max(_LAST_LANES, shape.lanes // 8)
        self.symmetries = start_classes(campaign, indices)
        self.look_below = np.zeros(shape.lanes)
        self.polish_below = np.zeros(shape.lanes)
        self.states: Any = None

    def fill(self) -> bool:
        """Put waiting starts into free lanes, or move the last ones into a smaller batch; False when none are left."""
        free = np.flatnonzero(self.occupant < 0)
        if len(free) and self.queue:
            positions, weights = self.queue.take(len(free))
            lanes = free[: len(positions)]
            self.occupant[lanes] = positions
            self._begin_looking(lanes)
            if self.states is None:
                like = np.broadcast_to(weights[0], (len(self.occupant), *weights[0].shape))
                self.states = self.kernels.empty(self.V, self._classes(), like)
            for first in range(0, len(lanes), self.block):
                few = np.resize(np.arange(first, min(first + self.block, len(lanes))), self.block)
                classes = self._classes(lanes[few])
                self.states = self.kernels.refill(self.V, classes, self.states, weights[few], lanes[few])
        elif not self.queue and len(free) >= len(self.occupant) - _LAST_LANES > 0:
            keep = np.argsort(self.occupant < 0, kind="stable")[:_LAST_LANES]
            self.states = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[keep]), self.states)
            self.occupant, self.look_below = self.occupant[keep], self.look_below[keep]
            self.polish_below = self.polish_below[keep]
        return bool((self.occupant >= 0).any())

    def _begin_looking(self, lanes: NDArray[np.intp]) -> None:
        self.look_below[lanes], self.polish_below[lanes] = self.basins.first_look, self.basins.first_polish

    def _classes(self, lanes: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.int32] | None:
        """The symmetry of the start of each of some lanes, if any start has one."""
        return None if self.symmetries is None else self.symmetries[np.maximum(self.occupant[lanes], 0)]

    def advance(self) -> int:
        """Let every lane do its ticks, then retire those whose end is known; returns their number."""
        self.states = self.kernels.advance(self.V, self._classes(), self.states)
        tolerances, states = self.campaign.tolerances, self.states
        norms, evaluations, flow_times = map(np.asarray, (states.gradient_norm, states.evaluations, states.flow_time))
        spent = (evaluations >= tolerances.max_evaluations) | (flow_times >= tolerances.max_flow_time)
        self._begin_looking(np.flatnonzero(norms > self.basins.first_look))  # again, where a lane has left a saddle
        calls = (norms <= self.look_below) | spent | ~np.isfinite(norms)
        attended = np.flatnonzero((self.occupant >= 0) & calls)
        if len(attended) == 0:
            return 0
        # Copies: the next call works in the memory of these states.
        weights = dict(zip(attended.tolist(), np.asarray(states.W)[attended], strict=True))
        losses = np.asarray(self.kernels.losses(self.V, states.W))
        retiring: dict[int, dict[str, Any]] = {}
        for lane in weights:
            row = {
                "index": int(self.indices[self.occupant[lane]]),
                "loss": float(losses[lane]),
                "gradient_norm": float(norms[lane]),
                "flow_time": float(flow_times[lane]),
                "evaluations": int(evaluations[lane]),
            }
            polishes = bool(norms[lane] <= self.polish_below[lane])
            end = self._end(weights[lane], row, bool(spent[lane]), polishes)
            if end is not None:
                retiring[lane] = row | end
            else:
                again = min(self.look_below[lane], norms[lane]) * tolerances.retry_factor
                self.look_below[lane] = max(again, self.basins.at_rest)
                if polishes:
                    again = norms[lane] * tolerances.newton_retry_factor
                    self.polish_below[lane] = max(again, self.basins.at_rest)
        for (lane, row), passed in zip(retiring.items(), self._passed(list(retiring)), strict=True):
            self.rows.add(weights[lane], **row, **self._stops(row["index"], passed))
            self.occupant[lane] = -1
        return len(retiring)

    def _end(self, W: NDArray[np.float64], row: dict[str, Any], spent: bool, polishes: bool) -> dict[str, Any] | None:
        """The outcome of a lane whose end is known or whose budget is spent; None if it is to go on."""
        finite = np.isfinite(row["gradient_norm"])
        found = self.basins.ends_in(W, row["loss"], row["gradient_norm"], polishes) if finite else None
        if found is not None:
            outcome = Outcome.CONVERGED if found.is_minimum else Outcome.SADDLE
        elif finite and not spent:
            return None
        else:
            outcome = Outcome.UNFINISHED if finite else Outcome.DIVERGED
        point, distance = (found.point, found.distance) if found else (-1, np.nan)
        return {"outcome": outcome, "point": point, "distance": distance}

    def _passed(self, lanes: list[int]) -> Iterator[_Passed]:
        """What each of some lanes has passed, fetched a few at a time: numbers, not arrays of the device."""
        for first in range(0, len(lanes), self.block):
            few = lanes[first : first + self.block]
            block = self.kernels.passed(self.V, self.states, np.resize(few, self.block))
            yield from map(_Passed, *(leaf[: len(few)] for leaf in jax.device_get(block)))

    def _stops(self, index: int, passed: _Passed) -> dict[str, Any]:
        """What a lane that retires was at each early stop; the saddles that it lingered on are noted."""
        landscape = self.campaign.landscape
        seen, entered, left, norms, weights, losses = passed
        stops = {
            "stop_flow_time": np.where(seen, entered[:-1], np.nan)[:STOPS],
            "stop_loss": np.where(seen, losses[:-1], np.nan)[:STOPS],
            "stop_anti_aligned": np.where(seen, orders_of_long_students(weights[:-1], landscape), -1)[:STOPS],
        }
        for entry in STOPS + np.flatnonzero(seen[STOPS:]):
            found = self.basins.lingered(weights[entry], float(losses[entry]))
            if found is not None:
                times = float(entered[entry]), float(left[entry])
                self.lingerings.append(Lingering(index, found.point, *times, found.distance, float(norms[entry])))
        return stops


def solve_starts(
    campaign: Campaign,
    indices: NDArray[np.int64],
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """Follow the starts with these indices (n,) to their ends. `progress` is told how many retired, as they do."""
    batch = _Batch(campaign, indices, shape or batch_shape(campaign))
    while batch.fill():
        retired = batch.advance()
        if progress is not None and retired:
            progress(retired)
    return shard_result(campaign, batch.rows.to_starts(), batch.lingerings, batch.basins.canonical)


def solve_shard(
    campaign: Campaign,
    first: int,
    last: int,
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """`solve_starts` for the consecutive starts [first, last): the unit of work and of commit."""
    return solve_starts(campaign, np.arange(first, last), shape, progress)
