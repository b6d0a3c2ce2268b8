"""One row per start: what became of it. Every start keeps its row, finished or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from enumerator.points import StationaryPoint, orders_of
from enumerator.problem import Campaign, Landscape
from enumerator.stop_levels import STOPS


class Outcome(IntEnum):
    """What became of a start."""

    CONVERGED = 0
    SADDLE = 1
    UNFINISHED = 2
    DIVERGED = 3


@dataclass(frozen=True)
class Starts:
    """Arrays of length n, all as the lane retired.

    `point` is the position of the stationary point that the start ended in (-1: none), `distance` the
    Frobenius distance to it (NaN: none), `distance_error` its standard error (NaN but for one-pass SGD, where it
    fluctuates), `anti_aligned` the order of the lane (-1: undefined), `flow_time` NaN where the dynamics has none;
    Q (n, K, K), R (n, K, M), and `second_layer` (n, K) where it is trained, else (n, 0). The columns `stop_`
    (n, STOPS) tell what a solver would have reported that stops early, at each of the gradient norms and flow
    times of `enumerator.stop_levels` (NaN, and -1: the start was not there yet when it retired).
    """

    index: NDArray[np.int64]
    outcome: NDArray[np.int8]
    point: NDArray[np.int32]
    loss: NDArray[np.float64]
    gradient_norm: NDArray[np.float64]
    anti_aligned: NDArray[np.int32]
    flow_time: NDArray[np.float64]
    evaluations: NDArray[np.int64]
    distance: NDArray[np.float64]
    Q: NDArray[np.float64]
    R: NDArray[np.float64]
    stop_flow_time: NDArray[np.float64]
    stop_loss: NDArray[np.float64]
    stop_anti_aligned: NDArray[np.int32]
    distance_error: NDArray[np.float64]
    second_layer: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.index)


class Lingering(NamedTuple):
    """A saddle that a start, by its index, passed: when it came and went, how near, and the lowest gradient norm."""

    start: int
    point: int
    entered: float
    left: float
    distance: float
    gradient_norm: float


@dataclass(frozen=True)
class ShardResult:
    """Consecutive starts of a campaign, the stationary points that they ended in, and those where they lingered."""

    campaign: Campaign
    starts: Starts
    points: list[StationaryPoint]
    lingerings: list[Lingering] = field(default_factory=list)


# At an early stop a student shorter than this part of the root mean square teacher is left out of the order: more
# students than teachers leave stubs, with any direction, that the effective network will not have.
_SHORT = 0.1


def orders_of_long_students(W: NDArray[np.float64], landscape: Landscape) -> NDArray[np.int64]:
    """The orders (n,) of the students of W (n, K, D) that are not short; -1 where orders are undefined."""
    if not landscape.has_orders:
        return np.full(len(W), -1)
    long = np.sqrt((W * W).sum(axis=2)) > _SHORT * landscape.teacher_scale / np.sqrt(landscape.teachers)
    R = np.where(long[:, :, None], W[:, :, : landscape.teacher_rank], 0.0) @ landscape.teacher_factor.T
    orders = orders_of(R, landscape)
    assert orders is not None
    return orders


_TYPES = {
    "index": np.int64,
    "outcome": np.int8,
    "point": np.int32,
    "anti_aligned": np.int32,
    "evaluations": np.int64,
    "stop_anti_aligned": np.int32,
}


class StartRows:
    """Collects one row per retired lane, in any order."""

    def __init__(self, landscape: Landscape) -> None:
        self.landscape = landscape
        self.rows: list[dict[str, Any]] = []

    def add(self, lane: NDArray[np.float64], **row: Any) -> None:
        """A lane that retires, weights W (K, D) or [W | a | c]; overlaps and order are derived."""
        W, layer = (lane[:, :-2], lane[:, -2]) if self.landscape.equations.is_trained else (lane, np.zeros(0))
        R = W[:, : self.landscape.teacher_rank] @ self.landscape.teacher_factor.T
        order = orders_of(R, self.landscape)
        derived = {"anti_aligned": -1 if order is None else int(order), "distance_error": np.nan, "second_layer": layer}
        self.rows.append(derived | {"Q": W @ W.T, "R": R} | row)

    def to_starts(self) -> Starts:
        """The rows as columns, in the order of the start index."""
        self.rows.sort(key=lambda row: row["index"])
        K, M = self.landscape.students, self.landscape.teachers
        stops = dict.fromkeys(("stop_flow_time", "stop_loss", "stop_anti_aligned"), (-1, STOPS))
        layer = K if self.landscape.equations.is_trained else 0
        shapes = {"Q": (-1, K, K), "R": (-1, K, M), "second_layer": (len(self.rows), layer), **stops}
        return Starts(
            **{
                entry.name: np.array(
                    [row[entry.name] for row in self.rows], _TYPES.get(entry.name, np.float64)
                ).reshape(shapes.get(entry.name, (-1,)))
                for entry in fields(Starts)
            }
        )


def shard_result(
    campaign: Campaign, starts: Starts, lingerings: list[Lingering], point: Callable[[int], StationaryPoint]
) -> ShardResult:
    """Only the points that a start met, numbered by their first start; `point` gives one by its position."""
    lingerings = sorted(lingerings)
    met = [*starts.point[starts.point >= 0].tolist(), *(entry.point for entry in lingerings)]
    used = list(dict.fromkeys(met))
    numbers = np.full(max(used, default=-1) + 2, -1, np.int32)  # the last entry, -1, is for no point
    numbers[used] = np.arange(len(used))
    return ShardResult(
        campaign,
        replace(starts, point=numbers[starts.point]),
        [point(position) for position in used],
        [entry._replace(point=int(numbers[entry.point])) for entry in lingerings],
    )
