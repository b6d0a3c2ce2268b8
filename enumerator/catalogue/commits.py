"""What a catalogue tells of a campaign and of a commit, and what it checks before one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enumerator.errors import SolverError
from enumerator.starts import Outcome, ShardResult


@dataclass(frozen=True)
class CampaignRecord:
    """What the catalogue holds of a campaign: its shard size, fixed at creation, and the number of starts stored."""

    campaign_id: str
    landscape_id: str
    shard_size: int
    starts: int


@dataclass(frozen=True)
class CommitSummary:
    """What a commit added; all zero if the shard was there. `point_ids` names the points of the result, in order."""

    starts: int
    new_minima: int
    new_saddles: int
    point_ids: tuple[str, ...]


def check_verdicts(result: ShardResult) -> None:
    """Raise SolverError unless every loss is finite, and starts name a point that fits their outcome."""
    for point in result.points:
        if not np.isfinite(point.loss):
            raise SolverError(f"a point of {result.campaign.id} has the loss {point.loss}.")
    starts, points = result.starts, result.points
    for outcome, point in set(zip(starts.outcome.tolist(), starts.point.tolist(), strict=True)):
        if outcome in (Outcome.CONVERGED, Outcome.SADDLE):
            is_there = 0 <= point < len(points)
            if not is_there or (points[point].verdict == "saddle") != (outcome == Outcome.SADDLE):
                raise SolverError(f"starts of {result.campaign.id} with outcome {outcome} name point {point} wrongly.")
