"""A small catalogue with minima, saddles and unfinished starts, and changes planted into its tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from enumerator.catalogue import Catalogue
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from enumerator.records import from_table, to_table
from enumerator.solve import solve_shard

# Symmetric starts, which end on saddles, and one that does not.
_STARTS = [np.full((4, 4), 0.1), 0.2 * np.ones((4, 4)) - 0.9 * np.eye(4), 0.5 * np.eye(4)]

# 200 starts with a spurious minimum; 40 of which some are given up; 3 given ones.
NEWTON = Campaign(Landscape(7, 7), Dynamics("newton"), InitialLaw(7))
FLOW = Campaign(Landscape(4, 4), law=InitialLaw(50), tolerances=Tolerances(max_evaluations=300))
GIVEN = Campaign(
    Landscape(4, 4), Dynamics("newton"), InitialLaw(Q=np.stack([W @ W.T for W in _STARTS]), R=np.stack(_STARTS))
)
SIZES = {NEWTON: 200, FLOW: 40, GIVEN: 3}


@cache
def solved(campaign: Campaign):
    """All starts of a campaign."""
    return solve_shard(campaign, 0, SIZES[campaign])


def build(folder: Path) -> Path:
    """The three campaigns in a new catalogue, complete."""
    atlas = Catalogue(folder, create=True)
    for campaign, size in SIZES.items():
        atlas.register(campaign, size, "cpu")
        atlas.commit_shard(solved(campaign), 0, size)
        atlas.finish(campaign.id)
    return folder


class _Atlas(Catalogue):
    folder: Path


def catalogue_at(folder: Path) -> _Atlas:
    """The catalogue, opened anew."""
    atlas = _Atlas(folder)
    atlas.folder = Path(folder)
    return atlas


def _partition(campaign: Campaign | None) -> tuple[str, str] | None:
    return None if campaign is None else ("campaign_id", campaign.id)


def rows_of(atlas: Catalogue, name: str, campaign: Campaign | None = None) -> list[dict]:
    """The rows of a table, or of one campaign in it."""
    table = atlas.store.open(name)
    return list(from_table(atlas.store.query(table, f"select * from {name}", _partition(campaign))))


def change(
    atlas: Catalogue, name: str, planted: Callable[[list[dict]], list[dict]], campaign: Campaign | None = None
) -> None:
    """Put changed rows in the place of all rows of a table, or of one campaign in it, past every check."""
    rows = planted(rows_of(atlas, name, campaign))
    atlas.store.rewrite(atlas.store.open(name), to_table(name, rows), _partition(campaign))
