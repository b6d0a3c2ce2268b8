"""The batch loop: lanes advance together, finished ones retire, fresh ones take their place. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from enumerator.lanes.batch import BatchShape, Lanes, Queue, SinglePrecisionLanes, batch_shape
from enumerator.lanes.ends import Basins, End
from enumerator.lanes.implicit_finish import can_be_finished, finish
from enumerator.lanes.kernels import Passed
from enumerator.lanes.sampling import FEWEST_DRAWN, start_classes
from enumerator.problem import Campaign
from enumerator.process_checks import check_jax
from enumerator.starts import Lingering, Outcome, ShardResult, StartRows, orders_of_long_students, shard_result
from enumerator.stop_levels import STOPS

# What a worker has met in earlier shards of a campaign spares it work in the next; no outcome depends on it.
basins_in_hand = lru_cache(maxsize=2)(Basins)

# Flow time, loss and order at the early stops that a lane passed while it was finished, by position.
LateStops = dict[int, tuple[float, float, int]]


@dataclass
class _Look:
    """A lane, by its number, that the host looks at: its weights, and what its row says so far.

    `is_spent`: its budget of explicit steps is. `late` are the stops that it passed while it was finished.
    """

    lane: int
    W: NDArray[np.float64]
    row: dict[str, Any]
    is_spent: bool
    late: LateStops = field(default_factory=dict)

    @property
    def has_diverged(self) -> bool:
        """Whether the lane has no gradient."""
        return not np.isfinite(self.row["gradient_norm"])


def _ended(end: End) -> dict[str, Any]:
    """The columns of a start that ends in a stationary point."""
    outcome = Outcome.CONVERGED if end.is_minimum else Outcome.SADDLE
    return {"outcome": outcome, "point": end.basin.position, "distance": end.distance}


def _without_end(outcome: Outcome) -> dict[str, Any]:
    """The columns of a start that ends nowhere."""
    return {"outcome": outcome, "point": -1, "distance": np.nan}


class _RetiringLanes(Lanes):
    """The lanes that may retire, and below which gradient norm to look at each of them next."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], shape: BatchShape) -> None:
        symmetries = start_classes(campaign, indices)
        super().__init__(campaign, symmetries, shape)
        self.indices = indices
        self.basins = basins_in_hand(campaign)
        self.can_finish = can_be_finished(campaign)
        self.rows = StartRows(campaign.landscape)
        self.lingerings: list[Lingering] = []
        queue = Queue(campaign, indices, max(FEWEST_DRAWN, 4 * shape.lanes))
        is_mixed = campaign.tolerances.single_above > 0
        self.source = SinglePrecisionLanes(campaign, symmetries, shape, queue) if is_mixed else queue
        self.look_below = np.zeros(shape.lanes)
        self.polish_below = np.zeros(shape.lanes)

    def restock(self) -> None:
        """Put starts into the free lanes; once none waits, move the last lanes into a smaller batch."""
        if not self.source:
            keep = self.shrink()
            self.look_below, self.polish_below = self.look_below[keep], self.polish_below[keep]
        elif len(self.free()):
            self._begin_looking(self.source.supply(self))

    def _begin_looking(self, lanes: NDArray[np.intp]) -> None:
        self.look_below[lanes], self.polish_below[lanes] = self.basins.first_look, self.basins.first_polish

    def _look_later(self, look: _Look, polished: bool) -> None:
        """Look at a lane again, and polish it again if it was, only once its gradient is lower."""
        tolerances, norm, lane = self.campaign.tolerances, look.row["gradient_norm"], look.lane
        again = min(self.look_below[lane], norm) * tolerances.retry_factor
        self.look_below[lane] = max(again, self.basins.at_rest)
        if polished:
            self.polish_below[lane] = max(norm * tolerances.newton_retry_factor, self.basins.at_rest)

    def advance(self) -> int:
        """Let every lane do its ticks, then retire those whose end is known; returns their number."""
        self.tick()
        retired = [look for look in self._looks() if self._retires(look)]
        for look, passed in zip(retired, self._passed([look.lane for look in retired]), strict=True):
            self.rows.add(look.W, **look.row, **self._stops(look.row["index"], passed, look.late))
            self.occupant[look.lane] = -1
        return len(retired)

    def _looks(self) -> list[_Look]:
        """The lanes to look at: of a gradient that is low enough, or none, or of a budget that is spent."""
        tolerances, states = self.campaign.tolerances, self.states
        norms, evaluations, flow_times = map(np.asarray, (states.gradient_norm, states.evaluations, states.flow_time))
        self._begin_looking(np.flatnonzero(norms > self.basins.first_look))  # again, where a lane has left a saddle
        is_spent = (evaluations >= tolerances.max_evaluations) | (flow_times >= tolerances.max_flow_time)
        calls = (norms <= self.look_below) | is_spent | ~np.isfinite(norms)
        attended = np.flatnonzero((self.occupant >= 0) & calls)
        if len(attended) == 0:
            return []
        weights = np.asarray(states.W)[attended]  # a copy: the next call works in the memory of these states
        losses = np.asarray(self.kernels.losses(self.V, states.W))
        rows = (
            {
                "index": int(self.indices[self.occupant[lane]]),
                "loss": float(losses[lane]),
                "gradient_norm": float(norms[lane]),
                "flow_time": float(flow_times[lane]),
                "evaluations": int(evaluations[lane]),
            }
            for lane in attended
        )
        return [
            _Look(lane, W, row, bool(is_spent[lane]))
            for lane, W, row in zip(attended.tolist(), weights, rows, strict=True)
        ]

    def _retires(self, look: _Look) -> bool:
        """Whether a lane has come to its end, which its row then tells; if not, it is looked at later."""
        polishes = bool(look.row["gradient_norm"] <= self.polish_below[look.lane])
        end = self._end(look, polishes)
        if end is None:
            self._look_later(look, polishes)
            return False
        look.row |= end
        return True

    def _end(self, look: _Look, polishes: bool) -> dict[str, Any] | None:
        """The outcome of a lane whose end is known or whose budget is spent; None if it is to go on."""
        if look.has_diverged:
            return _without_end(Outcome.DIVERGED)
        found = self.basins.ends_in(look.W, look.row["loss"], look.row["gradient_norm"], polishes)
        if found is None and look.is_spent and self._can_finish(look.lane):
            found = self._finish(look)
        if found is not None:
            return _ended(found)
        return _without_end(Outcome.UNFINISHED) if look.is_spent else None

    def _can_finish(self, lane: int) -> bool:
        """Whether implicit steps may go on with a lane: not if its start has a symmetry, which they would not keep."""
        if not self.can_finish or self.symmetries is None:
            return self.can_finish
        classes = self.symmetries[self.occupant[lane]]
        return len(np.unique(classes)) == classes.size

    def _finish(self, look: _Look) -> End | None:
        """Go on with a lane by implicit steps; where it ends, None if it does not."""
        last = finish(self.campaign, self.basins, look.W, look.row)
        look.W, look.row, look.late = last.X, last.row, last.stops
        return last.end

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
                saddle, norm = found.basin.position, float(norms[entry])
                self.lingerings.append(Lingering(index, saddle, *times, found.distance, norm))
        return stops


def solve_starts(
    campaign: Campaign,
    indices: NDArray[np.int64],
    shape: BatchShape | None = None,
    progress: Callable[[int], None] | None = None,
) -> ShardResult:
    """Follow the starts with these indices (n,) to their ends. `progress` is told how many retired, as they do."""
    check_jax()
    lanes = _RetiringLanes(campaign, indices, shape or batch_shape(campaign))
    lanes.restock()
    while lanes.is_occupied:
        retired = lanes.advance()
        if progress is not None and retired:
            progress(retired)
        lanes.restock()
    return shard_result(campaign, lanes.rows.to_starts(), lanes.lingerings, lambda at: lanes.basins[at].canonical)
