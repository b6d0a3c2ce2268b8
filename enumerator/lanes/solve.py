"""The batch loop: lanes advance together, finished ones retire, fresh ones take their place. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.lanes.basins import Basins, End
from enumerator.lanes.finish import can_be_finished, finish
from enumerator.lanes.kernels import Passed, kernels_of
from enumerator.lanes.sampling import initial_weights, lane_width, start_classes
from enumerator.problem import Campaign
from enumerator.starts import Lingering, Outcome, ShardResult, StartRows, orders_of_long_students, shard_result
from enumerator.stops import STOPS
from enumerator.surroundings import check_jax

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


# What a worker has met in earlier shards of a campaign spares it work in the next; no outcome depends on it.
basins_in_hand = lru_cache(maxsize=2)(Basins)


class _Lanes:
    """Lanes that advance together, their states on the device: which start occupies which, by its position.

    `symmetries` are those of the starts, see `start_classes`.
    """

    is_transient = False

    def __init__(self, campaign: Campaign, symmetries: NDArray[np.int32] | None, shape: BatchShape) -> None:
        landscape = campaign.landscape
        self.campaign, self.symmetries = campaign, symmetries
        self.V = jnp.asarray(landscape.teacher_factor)
        axes = landscape.teachers if landscape.is_orthonormal else None
        self.kernels = kernels_of(
            campaign.dynamics, landscape.equations, campaign.tolerances, shape.ticks, axes, self.is_transient
        )
        self.occupant = np.full(shape.lanes, -1, np.int64)
        self.block = max(_LAST_LANES, shape.lanes // 8)
        nothing = np.zeros((shape.lanes, landscape.students, lane_width(campaign)))
        self.states = self.kernels.empty(self.V, self._classes(), nothing)

    def _classes(self, lanes: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.int32] | None:
        """The symmetry of the start of each of some lanes, if any start has one."""
        return None if self.symmetries is None else self.symmetries[np.maximum(self.occupant[lanes], 0)]

    def free(self) -> NDArray[np.intp]:
        """The lanes that no start occupies."""
        return np.flatnonzero(self.occupant < 0)

    def _blocks(self, count: int) -> Iterator[NDArray[np.intp]]:
        """The numbers below `count`, `block` at a time; the last ones again where they do not fill a block."""
        for first in range(0, count, self.block):
            yield np.resize(np.arange(first, min(first + self.block, count)), self.block)

    def begin(self, positions: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.intp]:
        """Put starts, by position (n,) and weights (n, K, D), into free lanes; returns these lanes."""
        lanes = self.free()[: len(positions)]
        self.occupant[lanes] = positions
        for few in self._blocks(len(lanes)):
            classes = self._classes(lanes[few])
            self.states = self.kernels.refill(self.V, classes, self.states, weights[few], lanes[few])
        return lanes

    def move_in(self, others: _Lanes, taken: NDArray[np.intp]) -> NDArray[np.intp]:
        """Put lanes that others hand over into free ones, as many as there are; returns these lanes."""
        lanes = self.free()[: len(taken)]
        taken = taken[: len(lanes)]
        self.occupant[lanes], others.occupant[taken] = others.occupant[taken], -1
        for few in self._blocks(len(lanes)):
            classes = self._classes(lanes[few])
            self.states = self.kernels.take_over(self.V, classes, self.states, others.states, taken[few], lanes[few])
        return lanes

    def tick(self) -> None:
        """Let every lane do its ticks."""
        self.states = self.kernels.advance(self.V, self._classes(), self.states)

    def shrink(self) -> NDArray[np.intp]:
        """Move the last lanes into a smaller batch, once they fit; returns the lanes that are left."""
        count = len(self.occupant)
        if not len(self.free()) >= count - _LAST_LANES > 0:
            return np.arange(count)
        keep = np.argsort(self.occupant < 0, kind="stable")[:_LAST_LANES]
        self.states = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[keep]), self.states)
        self.occupant = self.occupant[keep]
        return keep


class _Queue:
    """Initial weights of the starts that wait, drawn in blocks of one fixed shape; a start is known by its position."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], block: int) -> None:
        self.campaign, self.indices, self.block = campaign, indices, block
        self.drawn, self.taken = 0, 0
        self.weights = np.zeros((0, campaign.landscape.students, lane_width(campaign)))

    def __bool__(self) -> bool:
        return self.taken < len(self.indices)

    def fill(self, lanes: _Lanes) -> NDArray[np.intp]:
        """Put waiting starts into free lanes; returns these lanes, fewer than are free only when no start is left."""
        count = len(lanes.free())
        while len(self.weights) < count and self.drawn < len(self.indices):
            wanted = self.indices[self.drawn : self.drawn + self.block]
            self.weights = np.concatenate([self.weights, initial_weights(self.campaign, wanted, self.block)])
            self.drawn += len(wanted)
        weights, self.weights = self.weights[:count], self.weights[count:]
        positions = np.arange(self.taken, self.taken + len(weights))
        self.taken += len(weights)
        return lanes.begin(positions, weights)


class _Transient(_Lanes):
    """The lanes of a campaign in mixed precision until their gradient first falls below `single_above`.

    Which lanes are beside it, and when the host looks, makes no difference to a lane: one that has come down stays
    where it is until it is handed over.
    """

    is_transient = True

    def __init__(
        self, campaign: Campaign, symmetries: NDArray[np.int32] | None, shape: BatchShape, queue: _Queue
    ) -> None:
        super().__init__(campaign, symmetries, shape)
        self.queue = queue

    def __bool__(self) -> bool:
        return bool(self.queue) or bool((self.occupant >= 0).any())

    def fill(self, lanes: _Lanes) -> NDArray[np.intp]:
        """Hand over lanes until less than an eighth of the others is free, or none is left; returns those filled.

        Neither of the two batches then advances with many lanes that do nothing: here, all that have come down are
        handed over first, and starts that wait take their place.
        """
        enough, filled = max(1, len(lanes.occupant) // 8), []
        while True:
            self.queue.fill(self)
            lasts = np.asarray(self.kernels.lasts(self.V, self.states))
            filled.append(lanes.move_in(self, np.flatnonzero((self.occupant >= 0) & ~lasts)))
            if not self or len(lanes.free()) < enough:
                return np.concatenate(filled)
            if not self.queue:
                self.shrink()
            self.tick()


# Flow time, loss and order at the early stops that a lane passed while it was finished, by position.
LateStops = dict[int, tuple[float, float, int]]


def _ended(end: End) -> dict[str, Any]:
    """The columns of a start that ends in a stationary point."""
    outcome = Outcome.CONVERGED if end.is_minimum else Outcome.SADDLE
    return {"outcome": outcome, "point": end.point, "distance": end.distance}


class _Batch(_Lanes):
    """The lanes that may retire, and below which gradient norm to look at each of them next."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], shape: BatchShape) -> None:
        symmetries = start_classes(campaign, indices)
        super().__init__(campaign, symmetries, shape)
        self.indices = indices
        self.basins = basins_in_hand(campaign)
        self.can_finish = can_be_finished(campaign)
        self.rows = StartRows(campaign.landscape)
        self.lingerings: list[Lingering] = []
        queue = _Queue(campaign, indices, 4 * shape.lanes)
        is_mixed = campaign.tolerances.single_above > 0
        self.source = _Transient(campaign, symmetries, shape, queue) if is_mixed else queue
        self.look_below = np.zeros(shape.lanes)
        self.polish_below = np.zeros(shape.lanes)

    def fill(self) -> bool:
        """Fill free lanes, or move the last ones into a smaller batch; False when no start is left."""
        if not self.source:
            keep = self.shrink()
            self.look_below, self.polish_below = self.look_below[keep], self.polish_below[keep]
        elif len(self.free()):
            self._begin_looking(self.source.fill(self))
        return bool((self.occupant >= 0).any())

    def _begin_looking(self, lanes: NDArray[np.intp]) -> None:
        self.look_below[lanes], self.polish_below[lanes] = self.basins.first_look, self.basins.first_polish

    def advance(self) -> int:
        """Let every lane do its ticks, then retire those whose end is known; returns their number."""
        self.tick()
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
        late: dict[int, LateStops] = {}
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
            if end is not None and end["outcome"] == Outcome.UNFINISHED and self._can_finish(lane):
                last = finish(self.campaign, self.basins, weights[lane], row)
                weights[lane], row, late[lane] = last.X, last.row, last.stops
                end = end if last.end is None else _ended(last.end)
            if end is not None:
                retiring[lane] = row | end
            else:
                again = min(self.look_below[lane], norms[lane]) * tolerances.retry_factor
                self.look_below[lane] = max(again, self.basins.at_rest)
                if polishes:
                    again = norms[lane] * tolerances.newton_retry_factor
                    self.polish_below[lane] = max(again, self.basins.at_rest)
        for (lane, row), passed in zip(retiring.items(), self._passed(list(retiring)), strict=True):
            self.rows.add(weights[lane], **row, **self._stops(row["index"], passed, late.get(lane, {})))
            self.occupant[lane] = -1
        return len(retiring)

    def _end(self, W: NDArray[np.float64], row: dict[str, Any], spent: bool, polishes: bool) -> dict[str, Any] | None:
        """The outcome of a lane whose end is known or whose budget is spent; None if it is to go on."""
        finite = np.isfinite(row["gradient_norm"])
        found = self.basins.ends_in(W, row["loss"], row["gradient_norm"], polishes) if finite else None
        if found is not None:
            return _ended(found)
        if finite and not spent:
            return None
        return {"outcome": Outcome.UNFINISHED if finite else Outcome.DIVERGED, "point": -1, "distance": np.nan}

    def _can_finish(self, lane: int) -> bool:
        """Whether implicit steps may go on with a lane: not if its start has a symmetry, which they would not keep."""
        if not self.can_finish or self.symmetries is None:
            return self.can_finish
        classes = self.symmetries[self.occupant[lane]]
        return len(np.unique(classes)) == classes.size

    def _passed(self, lanes: list[int]) -> Iterator[Passed]:
        """What each of some lanes has passed, fetched a few at a time: numbers, not arrays of the device."""
        for first in range(0, len(lanes), self.block):
            few = lanes[first : first + self.block]
            block = self.kernels.passed(self.V, self.states, np.resize(few, self.block))
            yield from map(Passed, *(leaf[: len(few)] for leaf in jax.device_get(block)))

    def _stops(self, index: int, passed: Passed, late: LateStops) -> dict[str, Any]:
        """What a lane that retires was at each early stop; the saddles that it lingered on are noted."""
        landscape = self.campaign.landscape
        seen, entered, left, norms, weights, losses = passed
        stops = {
            "stop_flow_time": np.where(seen, entered[:-1], np.nan)[:STOPS],
            "stop_loss": np.where(seen, losses[:-1], np.nan)[:STOPS],
            "stop_anti_aligned": np.where(seen, orders_of_long_students(weights[:-1], landscape), -1)[:STOPS],
        }
        for stop in late.keys() - set(np.flatnonzero(seen[:STOPS]).tolist()):
            for name, value in zip(stops, late[stop], strict=True):
                stops[name][stop] = value
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
    check_jax()
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
