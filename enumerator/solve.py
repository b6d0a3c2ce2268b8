"""The batch loop: lanes advance together, finished ones retire, fresh ones take their place. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable
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
from enumerator.invariance import projection
from enumerator.loss import fast_loss, teacher_constant
from enumerator.problem import Campaign, Dynamics, Tolerances
from enumerator.sampling import initial_weights, lane_width, start_classes
from enumerator.starts import Lingering, Outcome, ShardResult, StartRows, order_of_long_students, shard_result
from enumerator.watch import STOPS, WatchedLane, watch, watched_tick

__all__ = ["BatchShape", "Outcome", "ShardResult", "batch_shape", "solve_shard", "solve_starts"]


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


# The last lanes of a shard move into a batch of this size, so that a straggler does not drag empty lanes along.
_LAST_LANES = 8


class _Kernels(NamedTuple):
    """The compiled functions of one dynamics, each over a batch of lanes; `empty` gives states to refill."""

    empty: Callable
    refill: Callable
    advance: Callable
    losses: Callable


@lru_cache(maxsize=32)
def _kernels(dynamics: Dynamics, tolerances: Tolerances, ticks: int) -> _Kernels:
    stepper = stepper_for(dynamics, tolerances)
    lingers = tolerances.linger_below if dynamics.name == "gradient-flow" else 0.0

    def start(V: Array, classes: Array | None, W: Array) -> Any:
        return jax.vmap(lambda c, w: watch(stepper.init(V, projection(c, V), w)))(classes, W)

    def refill(V: Array, classes: Array | None, states: Any, W: Array, fresh: Array) -> Any:
        def choose(new: Array, old: Array) -> Array:
            return jnp.where(fresh.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(choose, start(V, classes, W), states)

    def advance(V: Array, classes: Array | None, states: Any) -> Any:
        norm = jnp.sqrt((V * V).sum() / len(V))

        def tick(classes: Array | None, watched: WatchedLane) -> WatchedLane:
            project = projection(classes, V)
            return watched_tick(lambda lane: stepper.tick(V, project, lane), norm, lingers * norm, watched)

        return jax.lax.fori_loop(0, ticks, lambda _, s: jax.vmap(tick)(classes, s), states)

    def losses(V: Array, W: Array) -> Array:
        constant = teacher_constant(V)
        return jax.vmap(lambda w: fast_loss(w, V, constant))(W)

    def empty(V: Array, classes: Array | None, W: Array) -> Any:
        return jax.tree.map(jnp.zeros_like, start(V, classes, W))  # the compiler drops all but the zeros

    return _Kernels(*map(jax.jit, (empty, refill, advance, losses)))


# What a worker has met in earlier shards of a campaign spares it work in the next; no outcome depends on it.
_basins = lru_cache(maxsize=2)(Basins)


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
        self.kernels = _kernels(campaign.dynamics, campaign.tolerances, shape.ticks)
        self.basins = _basins(campaign)
        self.rows = StartRows(campaign.landscape)
        self.lingerings: list[Lingering] = []
        self.queue = _Queue(campaign, indices, 4 * shape.lanes)
        self.occupant = np.full(shape.lanes, -1, np.int64)
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
            block = np.broadcast_to(weights[0], (len(self.occupant), *weights[0].shape)).copy()
            block[lanes] = weights
            self.occupant[lanes] = positions
            self._begin_looking(lanes)
            if self.states is None:
                self.states = self.kernels.empty(self.V, self._classes(), block)
            fresh = np.isin(np.arange(len(self.occupant)), lanes)
            self.states = self.kernels.refill(self.V, self._classes(), self.states, block, fresh)
        elif not self.queue and len(free) >= len(self.occupant) - _LAST_LANES > 0:
            keep = np.argsort(self.occupant < 0, kind="stable")[:_LAST_LANES]
            self.states = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[keep]), self.states)
            self.occupant, self.look_below = self.occupant[keep], self.look_below[keep]
            self.polish_below = self.polish_below[keep]
        return bool((self.occupant >= 0).any())

    def _begin_looking(self, lanes: NDArray[np.intp]) -> None:
        self.look_below[lanes], self.polish_below[lanes] = self.basins.first_look, self.basins.first_polish

    def _classes(self) -> NDArray[np.int32] | None:
        """The symmetry of every lane's start, if any start has one."""
        return None if self.symmetries is None else self.symmetries[np.maximum(self.occupant, 0)]

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
        losses, weights = np.asarray(self.kernels.losses(self.V, states.W)), np.asarray(states.W)
        retired = 0
        for lane in attended.tolist():
            row = {
                "index": int(self.indices[self.occupant[lane]]),
                "loss": float(losses[lane]),
                "gradient_norm": float(norms[lane]),
                "flow_time": float(flow_times[lane]),
                "evaluations": int(evaluations[lane]),
            }
            if self._retires(lane, weights[lane], row, bool(spent[lane])):
                self.occupant[lane] = -1
                retired += 1
            else:
                again = min(self.look_below[lane], norms[lane]) * tolerances.retry_factor
                self.look_below[lane] = max(again, self.basins.at_rest)
                if norms[lane] <= self.polish_below[lane]:
                    again = norms[lane] * tolerances.newton_retry_factor
                    self.polish_below[lane] = max(again, self.basins.at_rest)
        return retired

    def _retires(self, lane: int, W: NDArray[np.float64], row: dict[str, Any], spent: bool) -> bool:
        """Enter the row of a lane whose end is known or whose budget is spent; False if it is to go on."""
        finite = np.isfinite(row["gradient_norm"])
        polishes = row["gradient_norm"] <= self.polish_below[lane]
        found = self.basins.ends_in(W, row["loss"], row["gradient_norm"], polishes) if finite else None
        if found is not None:
            outcome = Outcome.CONVERGED if found.is_minimum else Outcome.SADDLE
        elif finite and not spent:
            return False
        else:
            outcome = Outcome.UNFINISHED if finite else Outcome.DIVERGED
        point, distance = (found.point, found.distance) if found else (-1, np.nan)
        self.rows.add(W, outcome=outcome, point=point, distance=distance, **row, **self._passed(lane, row["index"]))
        return True

    def _passed(self, lane: int, index: int) -> dict[str, Any]:
        """What a lane that retires was at each early stop; the saddles that it lingered on are noted."""
        states = self.states
        seen, entered, left = (np.asarray(leaf[lane]) for leaf in (states.seen, states.entered, states.left))
        stops = {
            "stop_flow_time": np.where(seen, entered[:-1], np.nan)[:STOPS],
            "stop_loss": np.full(STOPS, np.nan),
            "stop_anti_aligned": np.full(STOPS, -1),
        }
        if not seen.any():
            return stops
        weights, norms = np.asarray(states.weights[lane]), np.asarray(states.gradient_norms[lane])
        losses = np.asarray(self.kernels.losses(self.V, weights))
        for stop in np.flatnonzero(seen[:STOPS]):
            stops["stop_loss"][stop] = losses[stop]
            order = order_of_long_students(weights[stop], self.campaign.landscape)
            stops["stop_anti_aligned"][stop] = -1 if order is None else order
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
