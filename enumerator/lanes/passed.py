"""What a lane passes on its way: where it would have been stopped early, and where it lingered.

A lane is watched at every accepted step, whatever batch it is in: the first state below each gradient
norm and beyond each flow time is kept, and the state of lowest gradient wherever that was low and rose
again, as it does near a saddle. The host reads them when the lane retires.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Integer

from enumerator.stop_levels import FLOW_TIMES, GRADIENT_NORMS, STOPS

# Lingerings kept of a lane: one in 10,000 had three at K = 18, M = 17.
LINGERINGS = 4
# A gradient that has grown by this factor from its lowest will not return there: the lane leaves a saddle.
_LEAVES = 2.0


@struct.dataclass
class WatchedLane:
    """A lane of any dynamics with what it has passed.

    Entry k of `weights`, `gradient_norms`, `entered` and `left` is, for k < STOPS, the first state at that
    stop, with its flow time in both `entered` and `left`; for the next LINGERINGS entries a state of lowest gradient
    and the flow times between which the gradient was low; the last entry holds nothing.
    """

    lane: Any
    seen: Bool[Array, "*lanes E"]
    weights: Float[Array, "*lanes E1 K D"]
    gradient_norms: Float[Array, "*lanes E1"]
    entered: Float[Array, "*lanes E1"]
    left: Float[Array, "*lanes E1"]
    lowest: Float[Array, "*lanes K D"]
    lowest_norm: Float[Array, "*lanes"]
    low_since: Float[Array, "*lanes"]

    @property
    def W(self) -> Float[Array, "*lanes K D"]:
        """The state of the lane."""
        return self.lane.W

    @property
    def gradient_norm(self) -> Float[Array, "*lanes"]:
        """Its gradient norm."""
        return self.lane.gradient_norm

    @property
    def flow_time(self) -> Float[Array, "*lanes"]:
        """Its flow time."""
        return self.lane.flow_time

    @property
    def evaluations(self) -> Integer[Array, "*lanes"]:
        """Its evaluations of the gradient so far."""
        return self.lane.evaluations


def watch(lane: Any) -> WatchedLane:
    """A lane at its start."""
    entries = STOPS + LINGERINGS + 1
    # Of stated types: by weak ones the first call of a program would differ from the next, and both be compiled.
    none = jnp.full(entries, jnp.nan, jnp.float64)
    return WatchedLane(
        lane=lane,
        seen=jnp.zeros(entries - 1, bool),
        weights=jnp.zeros((entries, *lane.W.shape), jnp.float64),
        gradient_norms=none,
        entered=none,
        left=none,
        lowest=lane.W,
        lowest_norm=jnp.asarray(jnp.inf, jnp.float64),
        low_since=jnp.asarray(0.0, jnp.float64),
    )


def _written(
    watched: WatchedLane,
    new: Bool[Array, " n"],
    W: Float[Array, "K D"],
    gradient_norm: Float[Array, ""],
    entered: Float[Array, ""],
    left: Float[Array, ""],
) -> WatchedLane:
    """A state in the entry of the first one of `new` that is true; nowhere if none is."""
    entry = jnp.where(new.any(), jnp.argmax(new), len(watched.seen))
    return replace(
        watched,
        seen=watched.seen | (jnp.arange(len(watched.seen)) == entry),
        weights=watched.weights.at[entry].set(W),
        gradient_norms=watched.gradient_norms.at[entry].set(gradient_norm),
        entered=watched.entered.at[entry].set(entered),
        left=watched.left.at[entry].set(left),
    )


def watched_tick(
    tick: Callable[[Any], Any],
    norm: float | Float[Array, ""],
    low: float | Float[Array, ""] | None,
    watched: WatchedLane,
    moves: Bool[Array, ""] | None = None,
) -> WatchedLane:
    """One tick of the lane, then a look at where it is. At most one entry is written; a second one waits for a tick.

    `norm` is the unit of GRADIENT_NORMS, `low` the gradient norm below which a lane lingers, None for never (newton,
    whose tick would take 6% longer). `moves` tells whether the tick moves the lane, None that every one does: a lane
    that stays passes nothing.
    """
    lane = tick(watched.lane)
    slope, time = lane.gradient_norm, lane.flow_time
    if moves is not None:
        slope, time = jnp.where(moves, slope, jnp.nan), jnp.where(moves, time, jnp.nan)  # below and beyond nothing
    stops = jnp.concatenate([slope <= norm * np.array(GRADIENT_NORMS), time >= np.array(FLOW_TIMES)])  # false for NaN
    stopped = stops & ~watched.seen[:STOPS]
    if low is None:
        return replace(_written(watched, stopped, lane.W, slope, time, time), lane=lane)
    leaves = (watched.lowest_norm <= low) & (slope > _LEAVES * watched.lowest_norm)
    free = ~watched.seen[STOPS:]
    lingered = ~stopped.any()  # or nothing
    done = leaves & (lingered | ~free.any())
    new = jnp.concatenate([stopped, leaves & free & (jnp.cumsum(free) == 1)])
    is_lowest = slope < watched.lowest_norm
    return replace(
        _written(
            watched,
            new,
            W=jnp.where(lingered, watched.lowest, lane.W),
            gradient_norm=jnp.where(lingered, watched.lowest_norm, slope),
            entered=jnp.where(lingered, watched.low_since, time),
            left=time,
        ),
        lane=lane,
        lowest=jnp.where(is_lowest | done, lane.W, watched.lowest),
        lowest_norm=jnp.where(is_lowest | done, slope, watched.lowest_norm),
        low_since=jnp.where((slope > low) | done, time, watched.low_since),
    )
