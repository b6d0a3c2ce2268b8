"""Starts counted: every start in the denominator, samples apart, and the same by plain Python."""

import dataclasses
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from enumerator.errors import InputError
from enumerator.problem import Dynamics
from enumerator.statistics import (
    accumulation,
    compare,
    distributions,
    fit_mean,
    fit_share,
    frequencies,
    samples,
    trend,
    unseen,
)
from tests.support.stand_ins import commit, make_campaign, make_point, make_result, new_catalogue

FLOW = make_campaign(3, 3)
SEED = dataclasses.replace(FLOW, seed=1)
NEWTON = dataclasses.replace(FLOW, dynamics=Dynamics("newton"))
WIDE = make_campaign(4, 3)
# Where the 40 starts of FLOW end: minima 0, 1, 2 with 20, 9 and 1 hits, 4 on a saddle, 4 unfinished, 2 diverged.
ENDED = np.random.default_rng(0).permutation([0] * 20 + [1] * 9 + [2] + [3] * 4 + [-1] * 4 + [-2] * 2)


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    atlas = new_catalogue(tmp_path_factory.mktemp("statistics") / "atlas")
    for campaign in (FLOW, SEED, NEWTON, WIDE):
        atlas.register(campaign, 64, "cpu")
    orders = {"anti_aligned": 0}, {"anti_aligned": 1}, {"anti_aligned": 1}
    points = [make_point(FLOW.landscape, loss, **order) for loss, order in zip((0.0, 0.1, 0.2), orders, strict=True)]
    points.append(make_point(FLOW.landscape, 0.15, "saddle"))
    # In two shards, the later one first: hits come in the order of indices all the same.
    atlas.commit_shard(make_result(FLOW, 20, 40, points, ENDED[20:]), 20, 40)
    atlas.commit_shard(make_result(FLOW, 0, 20, points, ENDED[:20]), 0, 20)
    atlas.commit_shard(make_result(SEED, 0, 10, points[:1], [0] * 10), 0, 10)
    # The same starts as FLOW: the first ten that ended in minimum 1 end in 0.
    newton = ENDED.copy()
    newton[np.flatnonzero(ENDED == 1)] = 0
    atlas.commit_shard(make_result(NEWTON, 0, 40, points, newton), 0, 40)
    commit(atlas, WIDE, 0, 10, losses=[0.05, 0.3])
    return atlas


def test_every_start_is_in_the_denominator(atlas):
    rows = frequencies(atlas, campaign=FLOW.id).to_pylist()
    assert {row["starts"] for row in rows} == {40}
    assert sum(row["hits"] for row in rows) == 40
    found = [(row["outcome"], row["loss"], row["hits"], row["frequency"]) for row in rows]
    assert found == [
        ("converged", 0.0, 20, 0.5),
        ("converged", 0.1, 9, 0.225),
        ("converged", 0.2, 1, 0.025),
        ("saddle", 0.15, 4, 0.1),
        ("unfinished", None, 4, 0.1),
        ("diverged", None, 2, 0.05),
    ]


def test_by_order_and_by_outcome(atlas):
    rows = frequencies(atlas, by="order", campaign=FLOW.id).to_pylist()
    assert [(row["outcome"], row["anti_aligned"], row["hits"]) for row in rows] == [
        ("converged", 0, 20), ("converged", 1, 10), ("saddle", None, 4), ("unfinished", None, 4), ("diverged", None, 2),
    ]  # fmt: skip
    rows = frequencies(atlas, by="outcome", campaign=SEED.id).to_pylist()
    assert [(row["outcome"], row["hits"]) for row in rows] == [
        ("converged", 10), ("saddle", 0), ("unfinished", 0), ("diverged", 0),
    ]  # fmt: skip


def test_minima_that_no_start_reached_have_an_upper_end(atlas):
    rows = frequencies(atlas, campaign=SEED.id).to_pylist()
    assert [row["hits"] for row in rows] == [10, 0, 0]
    # 0 of 10: 1 - 0.025^(1/10).
    assert rows[1]["exact_high"] == pytest.approx(1 - 0.025**0.1)


def test_frequency_per_copy(atlas):
    (row, *_, last) = frequencies(atlas, campaign=SEED.id).to_pylist()
    assert row["frequency_per_copy_log10"] == pytest.approx(np.log10(1.0 / 10**1.5))
    assert last["frequency_per_copy_log10"] is None


def test_only_seeds_are_counted_together(atlas):
    found = [(s.students, s.dynamics, s.law, s.starts, len(s.campaign_ids)) for s in samples(atlas)]
    assert found == [
        (3, "gradient-flow", "d=10 scale=1", 50, 2),
        (3, "newton", "d=10 scale=1", 40, 1),
        (4, "gradient-flow", "d=10 scale=1", 10, 1),
    ]
    assert [s.starts for s in samples(atlas, pool_seeds=False, dynamics="gradient-flow", students=3)] in (
        [40, 10],
        [10, 40],
    )
    assert [s.starts for s in samples(atlas, campaign=[SEED.id, NEWTON.id])] == [10, 40]


def test_a_condition_conditions(atlas):
    rows = frequencies(atlas, campaign=FLOW.id, where="outcome = 'converged' -- and no other").to_pylist()
    assert {row["starts"] for row in rows} == {30}
    with pytest.raises(InputError, match="condition on the columns of table starts"):
        frequencies(atlas, where="nothing = 1")


def test_places_of_first_hits(atlas):
    """In the order of indices, whatever the order of shards, and whatever is left out."""
    for where, kept in ((None, ENDED), ("start_index % 3 = 0", ENDED[::3])):
        (sample,) = samples(atlas, campaign=FLOW.id, where=where)
        firsts = {row["loss"]: row["first"] for row in sample.ends() if row["hits"]}
        expected = {loss: int(np.argmax(kept == k)) for k, loss in enumerate((0.0, 0.1, 0.2)) if (kept == k).any()}
        assert firsts == expected


def test_accumulation_counts_what_was_found(atlas):
    table = accumulation(atlas, campaign=FLOW.id)
    for starts, found in zip(table["starts"].to_pylist(), table["found"].to_pylist(), strict=True):
        assert found == len({end for end in ENDED[:starts] if end in (0, 1, 2)})
    assert table["expected"][-1].as_py() == 3


def test_unseen_counts(atlas):
    (row,) = unseen(atlas, campaign=FLOW.id, more=1000).to_pylist()
    assert (row["starts"], row["in_no_minimum"], row["minima"], row["hit_once"]) == (40, 10, 3, 1)
    assert row["missing_mass"] == 1 / 40
    assert row["missing_low"] is None and "no valid interval" in row["note"] and "no prediction beyond" in row["note"]
    assert "do not quote" not in row["note"], "there is nothing to quote"
    even, odd = ENDED[::2], ENDED[1::2]
    (sample,) = samples(atlas, campaign=FLOW.id)
    assert sample.held_out() == (20, sum(end in (0, 1, 2) and end not in even for end in odd))


@pytest.mark.parametrize(("rare", "is_told"), [(19, True), (20, False)])
def test_a_prediction_from_few_rare_minima_is_not_to_be_quoted_alone(tmp_path, rare, is_told):
    campaign, atlas = make_campaign(), new_catalogue(tmp_path / "atlas")
    points = [make_point(campaign.landscape, 0.01 * (k + 1)) for k in range(rare + 1)]
    ended = [*range(1, rare + 1), *[0] * (100 - rare)]
    atlas.register(campaign, 100, "cpu")
    atlas.commit_shard(make_result(campaign, 0, 100, points, ended), 0, 100)
    (row,) = unseen(atlas, more=50).to_pylist()
    assert row["hit_once"] == rare and row["new_low"] is not None
    told = f"no valid interval: {rare} minima were hit once or twice, 20 are needed; "
    told += "do not quote new_minima without its interval"
    assert row["note"] == (told if is_told else None)


def test_distributions_against_numpy(atlas):
    table = distributions(atlas, of="flow_time", by="outcome", campaign=FLOW.id)
    starts = atlas.starts(campaign=FLOW.id).to_pylist()
    for row in table.to_pylist():
        times = [start["flow_time"] for start in starts if start["outcome"] == row["outcome"]]
        assert row["starts"] == len(times)
        assert [row["q05"], row["median"], row["largest"]] == pytest.approx(list(np.quantile(times, [0.05, 0.5, 1])))
    with pytest.raises(InputError, match="`of` must be one of loss, flow_time"):
        distributions(atlas, of="colour")


def test_comparison_of_the_same_starts(atlas):
    rows = {row["question"]: row for row in compare(atlas, [NEWTON.id, FLOW.id]).to_pylist()}
    # All nine discordant starts go one way.
    assert (rows["global"]["test"], rows["global"]["p_value"]) == ("exact McNemar", 2 / 2**9)
    assert (rows["global"]["first_share"], rows["global"]["second_share"]) == (29 / 40, 20 / 40)
    assert rows["global"]["difference"] == pytest.approx(9 / 40)
    assert rows["order"]["test"] == "exact Stuart-Maxwell" and rows["order"]["first_starts"] == 40


def test_comparison_of_other_starts(atlas):
    rows = {row["question"]: row for row in compare(atlas, [FLOW.id, SEED.id]).to_pylist()}
    assert rows["global"]["test"] == "G"
    assert rows["global"]["difference"] == pytest.approx(20 / 40 - 1)
    assert rows["global"]["p_value"] < 0.01
    # Another landscape has no minima in common, but a global one, and orders.
    assert set(compare(atlas, [FLOW.id, WIDE.id])["question"].to_pylist()) == {"global", "order"}
    with pytest.raises(InputError, match="at least two campaigns with starts, got 1"):
        compare(atlas, [FLOW.id])


def test_corrected_for_all_pairs(atlas):
    table = compare(atlas, [FLOW.id, SEED.id, NEWTON.id], questions=["global"])
    assert table.num_rows == 3
    assert all(c >= p for c, p in zip(table["p_corrected"].to_pylist(), table["p_value"].to_pylist(), strict=True))


@dataclasses.dataclass
class Found:
    """A stand-in for what `enumerate_minima` found: the tables of a campaign of a catalogue, in memory."""

    result: object
    minima: pa.Table
    saddles: pa.Table
    starts: pa.Table


@pytest.fixture
def found(atlas):
    result = make_result(FLOW, 0, 1, [make_point(FLOW.landscape, 0.1)])
    return Found(result, *(getattr(atlas, name)(campaign=FLOW.id) for name in ("minima", "saddles", "starts")))


def test_what_enumerate_minima_found_counts_alike(atlas, found):
    assert frequencies(found).equals(frequencies(atlas, campaign=FLOW.id))


@pytest.mark.parametrize(
    "selection",
    [
        {"students": 3, "dynamics": "gradient-flow"},
        {"students": 4},
        {"activation": "erf"},
        {"seed": 1},
        {"dynamics": "newton"},
        {"dimension": 1000, "scale": 1.0, "where": "start_index < 20"},
        {"landscape": FLOW.landscape.id, "campaign": [FLOW.id]},
    ],
    ids=str,
)
def test_a_selection_from_what_enumerate_minima_found_is_that_from_a_catalogue(atlas, found, selection):
    of_catalogue = {"campaign": FLOW.id} | selection
    assert frequencies(found, **selection).equals(frequencies(atlas, **of_catalogue))
    tables = distributions(found, **selection), distributions(atlas, **of_catalogue)
    exact = [table.drop_columns(["mean"]) for table in tables]  # sums are rounded by the order of the rows
    assert exact[0].equals(exact[1])
    with pytest.raises(InputError, match="no campaign 'c-none'"):
        frequencies(found, campaign="c-none")
    for source in (atlas, found):
        with pytest.raises(InputError, match=f"no landscape 'ls-.*nearest: {FLOW.landscape.id}"):
            frequencies(source, landscape=FLOW.landscape.id[:-1])


def test_counts_are_those_of_plain_python(atlas):
    starts = atlas.starts(dynamics="newton").to_pylist()
    plain = Counter((start["outcome"], start["minimum_id"] or start["saddle_id"]) for start in starts)
    table = frequencies(atlas, dynamics="newton").to_pylist()
    assert plain == {(row["outcome"], row["minimum_id"]): row["hits"] for row in table if row["hits"]}


def test_trend_of_two_widths_has_points_and_no_curve(atlas):
    rows = trend(atlas, dynamics="gradient-flow").to_pylist()
    assert [(row["students"], row["value"], row["curve"]) for row in rows] == [(3, 0.6, None), (4, 0.5, None)]
    orders = trend(atlas, of="order", campaign=FLOW.id).to_pylist()
    assert (orders[0]["value"], orders[0]["counted"]) == (pytest.approx(10 / 30), 30)


def test_curve_of_shares_is_that_of_statsmodels():
    import statsmodels.api as sm

    x, n = np.arange(6.0, 17.0), np.full(11, 2000)
    hits = np.array([1995, 1888, 1773, 1556, 1323, 1069, 800, 640, 500, 400, 330])
    scaled = (x - 11) / 5
    design = np.vander(scaled, 3, increasing=True)
    model = sm.GLM(np.column_stack([hits, n - hits]), design, family=sm.families.Binomial()).fit()
    curve = fit_share(x, hits, n, x, degree=2)
    assert np.allclose(curve.coefficients, model.params, atol=1e-6)
    assert np.allclose(curve.value, model.predict(), atol=1e-8)
    assert curve.dispersion == pytest.approx(model.pearson_chi2 / model.df_resid, rel=1e-6)


def test_curve_of_means_is_that_of_numpy():
    x, errors = np.arange(8.0), np.linspace(0.1, 0.4, 8)
    means = 1 + 0.5 * x + 0.1 * np.random.default_rng(0).normal(size=8)
    curve = fit_mean(x, means, errors, x, degree=1)
    expected = np.polyval(np.polyfit(x, means, 1, w=1 / errors), x)
    assert np.allclose(curve.value, expected)
    with pytest.raises(InputError, match="needs at least 4 widths, got 2"):
        fit_mean([1, 2], [1, 2], [1, 1], [1], degree=1)


def test_curve_covers_its_truth():
    """A logit that is a parabola: the 95% interval of the curve at the ends and in the middle, 400 times."""
    generator, x = np.random.default_rng(0), np.arange(6.0, 17.0)
    truth = 1 / (1 + np.exp(-(0.3 - 2 * (x - 11) / 5 - 0.4 * ((x - 11) / 5) ** 2)))
    covered = np.zeros(11)
    for _ in range(400):
        curve = fit_share(x, generator.binomial(2000, truth), np.full(11, 2000), x, degree=2)
        covered += (curve.low <= truth) & (truth <= curve.high)
    assert covered.min() / 400 > 0.93
