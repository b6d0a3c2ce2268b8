"""Catalogues against a plain model: any interleaving of writers, merges, deletions, compactions and bundles."""

import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster.runs.plan import missing_shards
from enumerator.catalogue import store
from enumerator.catalogue.catalogue import Catalogue
from enumerator.errors import InputError
from enumerator.upkeep.bundle import export, import_bundle
from enumerator.upkeep.compaction import compact, delete
from enumerator.upkeep.merge import merge
from tests.support.stand_ins import make_campaign, make_point, make_result, same_loss

# Two campaigns share a landscape; the third has one of its own.
CAMPAIGNS = [make_campaign(), make_campaign(seed=1), make_campaign(students=2)]
LOSSES = (0.2, 0.5, 0.7)
PLACES = ("left", "right")
# Two handles for each catalogue, each of which remembers what it has read.
HANDLES = st.tuples(st.sampled_from(PLACES), st.integers(0, 1))
CAMPAIGN = st.sampled_from(range(len(CAMPAIGNS)))


def end_of(campaign: int, index: int) -> tuple[str, float | None]:
    """What becomes of a start: a function of campaign and index alone."""
    kind = (7 * index + campaign) % 5
    return ("unfinished", None) if kind == 4 else ("saddle", 0.3) if kind == 3 else ("converged", LOSSES[kind])


class Catalogues(RuleBasedStateMachine):
    """Two catalogues; of each the model knows the ends of the starts by campaign, and the points by landscape."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="model-"))
        self.atlas = {
            (place, k): Catalogue(self.folder / place, create=True, matcher=same_loss)
            for place in PLACES
            for k in (0, 1)
        }
        self.starts: dict[str, dict[int, set[int]]] = {place: {} for place in PLACES}
        self.points: dict[str, set[tuple[str, float]]] = {place: set() for place in PLACES}
        self.names: dict[tuple[str, str], str] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize()
    def register_all(self):
        for handle in self.atlas:
            for campaign in range(len(CAMPAIGNS)):
                self.register(handle, campaign, 5)

    @rule(handle=HANDLES, campaign=CAMPAIGN, size=st.integers(1, 9))
    def register(self, handle, campaign, size):
        record = self.atlas[handle].register(CAMPAIGNS[campaign], size, "cpu")
        assert record.starts == len(self.starts[handle[0]].setdefault(campaign, set()))

    @rule(handles=st.lists(HANDLES, min_size=2, max_size=4), campaign=CAMPAIGN, first=st.integers(0, 20))
    def commit_in_turn(self, handles, campaign, first):
        for k, handle in enumerate(handles):  # shards that overlap, by handles that know of each other or not
            self.commit(handle, campaign, first + 3 * k, 5)

    @rule(handle=HANDLES, campaign=CAMPAIGN, first=st.integers(0, 20), length=st.integers(1, 8))
    def commit(self, handle, campaign, first, length):
        place, last = handle[0], first + length
        landscape = CAMPAIGNS[campaign].landscape
        ends = [end_of(campaign, index) for index in range(first, last)]
        used = sorted({end for end in ends if end[1] is not None})
        # Rounding that differs from writer to writer, as that of batches does.
        points = [
            make_point(landscape, loss + 1e-13 * first, "saddle" if kind == "saddle" else "minimum")
            for kind, loss in used
        ]
        ended = [used.index(end) if end[1] is not None else -1 for end in ends]
        result = make_result(CAMPAIGNS[campaign], first, last, points, ended)
        if campaign not in self.starts[place]:
            with pytest.raises(InputError, match="register it first"):
                self.atlas[handle].commit_shard(result, first, last)
            return
        stored = self.starts[place][campaign]
        new = set(range(first, last)) - stored
        assert self.atlas[handle].commit_shard(result, first, last).starts == len(new)
        stored |= new
        if new:
            self.points[place] |= {(landscape.id, loss) for _, loss in used}

    @rule(handle=HANDLES, other=st.integers(0, 1))
    def merge(self, handle, other):
        place, source = handle[0], PLACES[1 - PLACES.index(handle[0])]
        summary = merge(self.atlas[handle], self.atlas[source, other])
        self.add(place, self.starts[source], self.points[source])
        assert summary.disagreeing == 0

    def add(self, place, starts, points):
        for campaign, indices in starts.items():
            self.starts[place].setdefault(campaign, set()).update(indices)
        self.points[place] |= points

    @rule(handle=HANDLES, campaign=CAMPAIGN)
    def delete(self, handle, campaign):
        stored = self.starts[handle[0]].pop(campaign, None)
        if stored is None:
            with pytest.raises(InputError, match="no campaign"):
                delete(self.atlas[handle], CAMPAIGNS[campaign].id)
        else:
            assert delete(self.atlas[handle], CAMPAIGNS[campaign].id) == len(stored)

    @precondition(lambda self: any(any(stored.values()) for stored in self.starts.values()))
    @rule(handle=HANDLES)
    def compact(self, handle):
        compact(self.atlas[handle], timedelta(0))

    @rule(handle=HANDLES, other=HANDLES, campaign=st.none() | CAMPAIGN)
    def export_and_import(self, handle, other, campaign):
        place, file = other[0], self.folder / "bundle.tar"
        starts, points = self.starts[place], self.points[place]
        if campaign is not None:
            if campaign not in starts:
                return
            starts = {campaign: starts[campaign]}
            home = CAMPAIGNS[campaign].landscape.id
            ends = {end_of(campaign, index)[1] for index in starts[campaign]}
            points = {(home, loss) for loss in ends if loss is not None}
        chosen = () if campaign is None else (CAMPAIGNS[campaign].id,)
        rows = export(self.atlas[other], file, chosen)
        assert rows["starts"] == sum(map(len, starts.values()))
        import_bundle(self.atlas[handle], file)
        self.add(handle[0], starts, points)

    @invariant()
    def holds_what_the_model_holds(self):
        for (place, handle), atlas in self.atlas.items():
            expected = sorted(
                (CAMPAIGNS[campaign].id, index, *end_of(campaign, index))
                for campaign, indices in self.starts[place].items()
                for index in indices
            )
            found = atlas.sql(
                "select campaign_id, start_index, outcome, round(loss_there, 10) from starts left join "
                "(select minimum_id, loss as loss_there from (from minima union all from saddles)) as p "
                "on p.minimum_id = coalesce(starts.minimum_id, saddle_id) order by all"
            )
            assert list(zip(*(column.to_pylist() for column in found.columns), strict=True)) == expected
            rows = atlas.sql("select * from (from minima union all from saddles)").to_pylist()
            assert len(rows) == len({row["minimum_id"] for row in rows}) == len({row["label"] for row in rows})
            assert {(row["landscape_id"], round(row["loss"], 10)) for row in rows} == self.points[place]
            assert len(rows) == len(self.points[place])
            now = {(place, row["minimum_id"]): row["label"] for row in rows}
            assert self.names | now == now | self.names, "a label has changed"
            self.names |= now
            for campaign, indices in self.starts[place].items():
                if handle == 0:
                    missing = missing_shards(40, 7, atlas.done(CAMPAIGNS[campaign].id))
                    covered = np.concatenate([np.arange(*shard) for shard in missing])
                    assert sorted([*covered.tolist(), *indices]) == list(range(40))


def check(examples: int, steps: int, monkeypatch) -> None:
    monkeypatch.setattr(store, "FILES_TO_JOIN", 4)
    run_state_machine_as_test(
        Catalogues,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
            derandomize=examples < 20,
        ),
    )


def test_catalogues_hold_what_a_plain_model_holds(monkeypatch):
    check(4, 10, monkeypatch)


@pytest.mark.slow
def test_catalogues_hold_what_a_plain_model_holds_at_length(monkeypatch):
    check(60, 40, monkeypatch)
