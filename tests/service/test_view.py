"""The service's view of a moment: what it counts on from the moment before is what it would count anew."""

from datetime import timedelta

from cluster.service import view as views
from cluster.service.view import Clock, Moments
from enumerator.catalogue.selection import TALLY
from enumerator.catalogue.store import Store
from enumerator.storage.sql import run
from enumerator.upkeep.compaction import compact
from tests.support.stand_ins import commit, make_campaign, new_catalogue


def test_starts_are_counted_on_from_the_moment_before(tmp_path, monkeypatch):
    counted = []

    def counting(query, data, *rest, **options):
        if query == TALLY:
            counted.append(len(data["starts"].files))
        return run(query, data, *rest, **options)

    monkeypatch.setattr(views, "run", counting)
    atlas, campaigns = new_catalogue(tmp_path / "atlas"), [make_campaign(seed=0), make_campaign(seed=1)]
    for campaign in campaigns:
        atlas.register(campaign, 10, "cpu")
    store = Store(tmp_path / "atlas", create=False, storage_options=None)
    clock, moments = Clock(store), Moments(store)

    def check() -> None:
        tally = moments.view(clock.now()).tally()
        fresh = run(TALLY, {"starts": atlas.store.dataset(atlas.store.open("starts"))})
        rows = [sorted(map(tuple, (row.values() for row in table.to_pylist())), key=repr) for table in (tally, fresh)]
        assert rows[0] == rows[1]

    check()
    for shard in range(4):
        for campaign in campaigns:
            commit(atlas, campaign, 10 * shard, 10 * shard + 10, [0.1, 0.2 + 0.1 * shard])
        check()
        check()
    # Each time the two files that are new, and nothing where nothing is.
    assert counted == [0, 2, 2, 2, 2]
    compact(atlas, timedelta(days=1))
    check()
    assert counted[5:] == [len(atlas.store.dataset(atlas.store.open("starts")).files)]
