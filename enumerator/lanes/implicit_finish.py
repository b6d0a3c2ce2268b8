"""A lane that explicit steps do not bring to its end: by implicit ones, with the same proof of where it ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from enumerator.dynamics.implicit import STEP_COST, FlowPoint, Lane, implicit_flow
from enumerator.lanes.ends import Basins, End
from enumerator.loss.population import exact_loss
from enumerator.loss.second_layer import EXTRA
from enumerator.problem import Campaign
from enumerator.starts import orders_of_long_students
from enumerator.stop_levels import FLOW_TIMES, GRADIENT_NORMS

# Entries of the weights beyond which no lane is followed: so large a Hessian takes a tenth of a second to diagonalise.
LARGEST = 800
# Part of `Basins.at_rest` below which a gradient is rounding: a lane that no proof holds there never will be.
_ROUNDING = 1e-3


def can_be_finished(campaign: Campaign) -> bool:
    """Whether implicit steps follow the dynamics of a campaign: gradient flow of students that merge, not too large."""
    landscape = campaign.landscape
    entries = landscape.students * (landscape.teacher_rank + landscape.students)
    return campaign.dynamics.name == "gradient-flow" and landscape.merges and entries <= LARGEST


@dataclass
class Finish:
    """Where a lane ends, None if it does not: X (K, D), or (K, D + 2), and what its row says; the stops it passed.

    `stops` are flow time, loss and order at the stops (by position in `stop_levels`) that the lane had not yet passed.
    """

    X: Lane
    row: dict[str, Any]
    end: End | None = None
    stops: dict[int, tuple[float, float, int]] = field(default_factory=dict)


def finish(campaign: Campaign, basins: Basins, X: Lane, row: dict[str, Any]) -> Finish:
    """Follow a lane X on, from what its row says, until its end is known or its evaluations are spent once more."""
    tolerances = campaign.tolerances
    found = Finish(X, dict(row))
    look_below, polish_below = basins.first_look, basins.first_polish
    for at in implicit_flow(campaign.landscape, X, row["flow_time"]):
        found.X, norm = at.X, at.gradient_norm
        found.row |= {
            "loss": _loss(campaign, at.X),
            "gradient_norm": norm,
            "flow_time": at.flow_time,
            "evaluations": row["evaluations"] + STEP_COST * at.steps,
        }
        _note_stops(campaign, found, at)
        if norm > basins.first_look:
            look_below, polish_below = basins.first_look, basins.first_polish
        elif norm <= look_below:
            polishes = norm <= polish_below
            found.end = basins.ends_in(at.X, found.row["loss"], norm, polishes)
            if found.end is not None:
                return found
            look_below = max(norm * tolerances.retry_factor, basins.at_rest)
            polish_below = max(norm * tolerances.newton_retry_factor, basins.at_rest) if polishes else polish_below
        is_rounding = norm <= _ROUNDING * basins.at_rest
        is_spent = STEP_COST * at.steps >= tolerances.max_evaluations
        if is_rounding or is_spent:
            return found
    return found


def _loss(campaign: Campaign, X: Lane) -> float:
    landscape = campaign.landscape
    W, layer = (X[:, :-EXTRA], X[:, -EXTRA]) if landscape.equations.is_trained else (X, None)
    return exact_loss(landscape.g, W, landscape.teacher_factor, layer)


def _note_stops(campaign: Campaign, found: Finish, at: FlowPoint) -> None:
    """Note the stops that are passed for the first time."""
    unit = campaign.landscape.teacher_scale / np.sqrt(campaign.landscape.teachers)
    passed = [at.gradient_norm <= unit * norm for norm in GRADIENT_NORMS]
    passed += [at.flow_time >= time for time in FLOW_TIMES]
    new = [stop for stop, is_passed in enumerate(passed) if is_passed and stop not in found.stops]
    if new:
        order = int(orders_of_long_students(at.X[None], campaign.landscape)[0])
        found.stops |= dict.fromkeys(new, (at.flow_time, found.row["loss"], order))
