"""A small catalogue with minima, saddles and unfinished starts, and changes planted into its tables."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.records import from_table, to_table
from enumerator.follow import follow_shard
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances

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
    return follow_shard(campaign, 0, SIZES[campaign])


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


def point(atlas, name="minima"):
    """A spurious point: of the minima, that of S6 x S1."""
    return next(row for row in rows_of(atlas, name) if row["loss"] > 1e-3)


def swap(entries, size):
    """A matrix with its first row exchanged for its last."""
    matrix = entries.reshape(-1, size).copy()
    matrix[[0, -1]] = matrix[[-1, 0]]
    return matrix.ravel()


def permuted(atlas, row):
    """The same point, students and teachers in another order, under another name, 2e-10 off in its loss."""
    order = np.random.default_rng(3).permutation(7)
    Q, R = row["Q"].reshape(7, 7)[np.ix_(order, order)], row["R"].reshape(7, 7)[order][:, order[::-1]]
    names = {"minimum_id": "m-0123456789abcdef", "label": row["label"] + "-2"}
    return row | names | {"Q": Q.ravel(), "R": R.ravel(), "loss": row["loss"] + 2e-10}


def plant_another_end(atlas):
    """A start moved to the other minimum, with a loss and a distance that fit there: nothing stored betrays it."""
    first, second = (
        next(r for r in rows_of(atlas, "starts", NEWTON) if (r["loss"] > 1e-3) == spurious)
        for spurious in (True, False)
    )
    names = ("minimum_id", "loss", "distance", "gradient_norm", "anti_aligned")
    copied = {name: first[name] for name in (*names, "stop_loss", "stop_flow_time", "stop_anti_aligned")}
    index = second["start_index"]
    change(atlas, "starts", lambda rows: [r | (copied if r["start_index"] == index else {}) for r in rows], NEWTON)
    return index
