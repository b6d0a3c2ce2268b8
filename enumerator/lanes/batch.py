"""Lanes that advance together on the device, the starts that wait for one, and lanes in single precision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.lanes.kernels import kernels_of
from enumerator.lanes.sampling import initial_weights, lane_width
from enumerator.problem import Campaign


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


class Lanes:
    """Lanes that advance together, their states on the device: which start occupies which, by its position.

    `symmetries` are those of the starts, see `start_classes`.
    """

    is_single = False

    def __init__(self, campaign: Campaign, symmetries: NDArray[np.int32] | None, shape: BatchShape) -> None:
        landscape = campaign.landscape
        self.campaign, self.symmetries = campaign, symmetries
        self.V = jnp.asarray(landscape.teacher_factor)
        axes = landscape.teachers if landscape.is_orthonormal else None
        self.kernels = kernels_of(
            campaign.dynamics, landscape.equations, campaign.tolerances, shape.ticks, axes, self.is_single
        )
        self.occupant = np.full(shape.lanes, -1, np.int64)
        self.block = max(_LAST_LANES, shape.lanes // 8)
        nothing = np.zeros((shape.lanes, landscape.students, lane_width(campaign)))
        self.states = self.kernels.empty(self.V, self._classes(), nothing)

    def _classes(self, lanes: NDArray[np.intp] | slice = slice(None)) -> NDArray[np.int32] | None:
        """The symmetry of the start of each of some lanes, if any start has one."""
        return None if self.symmetries is None else self.symmetries[np.maximum(self.occupant[lanes], 0)]

    @property
    def is_occupied(self) -> bool:
        """Whether a start is in any lane."""
        return bool((self.occupant >= 0).any())

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

    def move_in(self, others: Lanes, taken: NDArray[np.intp]) -> NDArray[np.intp]:
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
        fit = len(self.free()) >= count - _LAST_LANES > 0
        if not fit:
            return np.arange(count)
        keep = np.argsort(self.occupant < 0, kind="stable")[:_LAST_LANES]
        self.states = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)[keep]), self.states)
        self.occupant = self.occupant[keep]
        return keep


class Queue:
    """Initial weights of the starts that wait, drawn in blocks of one fixed shape; a start is known by its position."""

    def __init__(self, campaign: Campaign, indices: NDArray[np.int64], block: int) -> None:
        self.campaign, self.indices, self.block = campaign, indices, block
        self.drawn, self.taken = 0, 0
        self.weights = np.zeros((0, campaign.landscape.students, lane_width(campaign)))

    def __bool__(self) -> bool:
        return self.taken < len(self.indices)

    def supply(self, lanes: Lanes) -> NDArray[np.intp]:
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


class SinglePrecisionLanes(Lanes):
    """The lanes of a campaign in mixed precision until their gradient first falls below `single_above`.

    Which lanes are beside it, and when the host looks, makes no difference to a lane: one that has come down stays
    where it is until it is handed over.
    """

    is_single = True

    def __init__(
        self, campaign: Campaign, symmetries: NDArray[np.int32] | None, shape: BatchShape, queue: Queue
    ) -> None:
        super().__init__(campaign, symmetries, shape)
        self.queue = queue

    def __bool__(self) -> bool:
        return bool(self.queue) or self.is_occupied

    def supply(self, lanes: Lanes) -> NDArray[np.intp]:
        """Hand over lanes until less than an eighth of the others is free, or none is left; returns those filled.

        Neither of the two batches then advances with many lanes that do nothing: here, all that have come down are
        handed over first, and starts that wait take their place.
        """
        enough = max(1, len(lanes.occupant) // 8)

        def goes_on() -> bool:
            return bool(self) and len(lanes.free()) >= enough

        filled = [self._hand_over(lanes)]
        while goes_on():
            if not self.queue:
                self.shrink()
            self.tick()
            filled.append(self._hand_over(lanes))
        return np.concatenate(filled)

    def _hand_over(self, lanes: Lanes) -> NDArray[np.intp]:
        """Begin starts that wait, then hand over lanes that have come down; returns those filled."""
        self.queue.supply(self)
        lasts = np.asarray(self.kernels.lasts(self.V, self.states))
        return lanes.move_in(self, np.flatnonzero((self.occupant >= 0) & ~lasts))
