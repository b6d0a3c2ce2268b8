"""A curve goes through what differs in K and M alone: everything else keeps samples apart, and is shown."""

import dataclasses
import re

import numpy as np
import pytest

from cluster.cli import run_command
from enumerator import plots
from enumerator.errors import InputError
from enumerator.problem import SINGLE_ABOVE, Tolerances
from enumerator.statistics import PLAIN, compare, frequencies, samples, trend
from enumerator.statistics.trends import curve_key
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue

WIDTHS = (3, 4, 5, 6, 7)
# Of 100 starts at the width K these end at zero loss, in each kind of campaign.
SHARES = {
    PLAIN: lambda K: 95 - 5 * K,
    "constraint=normalized": lambda K: 60 - 5 * K,
    "precision=mixed": lambda K: 95 - 9 * K,
    "second_layer=trained": lambda K: 99 - K,
}
FIELDS = {"constraint=normalized": {"constraint": "normalized"}, "second_layer=trained": {"second_layer": "trained"}}


def campaign_of(kind, K):
    campaign = make_campaign(K, K, **FIELDS.get(kind, {}))
    if kind == "precision=mixed":
        campaign = dataclasses.replace(campaign, tolerances=Tolerances(single_above=SINGLE_ABOVE))
    return campaign


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    atlas = new_catalogue(tmp_path_factory.mktemp("trend") / "atlas")
    for kind, share in SHARES.items():
        for K in WIDTHS:
            campaign, hits = campaign_of(kind, K), share(K)
            atlas.register(campaign, 100, "cpu")
            points = [make_point(campaign.landscape, loss, anti_aligned=k) for k, loss in enumerate((0.0, 0.2))]
            atlas.commit_shard(make_result(campaign, 0, 100, points, [0] * hits + [1] * (100 - hits)), 0, 100)
    return atlas


def test_each_kind_has_a_curve_of_its_own(atlas):
    """The curve of a kind among all is the one that it has alone."""
    rows = trend(atlas).to_pylist()
    assert len(rows) == len({curve_key(row) for row in rows}) * len(WIDTHS) == len(SHARES) * len(WIDTHS)
    for kind, share in SHARES.items():
        of_kind = [row for row in rows if row["settings"] == kind]
        assert [(row["students"], row["value"]) for row in of_kind] == [(K, share(K) / 100) for K in WIDTHS]
        alone = trend(atlas, campaign=[campaign_of(kind, K).id for K in WIDTHS]).to_pylist()
        assert of_kind == alone
        assert np.abs([row["curve"] - row["value"] for row in of_kind]).max() < 0.03


def test_a_plot_names_its_curves(atlas):
    (axes,) = plots.trend(atlas).axes
    named = [text.get_text() for text in axes.get_legend().get_texts()]
    assert sorted(named) == sorted(f"K = M, {kind}" for kind in SHARES)
    (axes,) = plots.losses(atlas, campaign=campaign_of("constraint=normalized", 4).id).axes
    assert axes.get_title().startswith("K = M = 4, gradient-flow, d=10, scale=1, constraint=normalized, 100 starts")
    (axes,) = plots.losses(atlas, campaign=campaign_of(PLAIN, 4).id).axes
    assert axes.get_title().startswith("K = M = 4, gradient-flow, d=10, scale=1, 100 starts")


def test_tables_tell_the_kinds_apart(atlas):
    rows = frequencies(atlas, students=4, by="outcome").to_pylist()
    assert {row["settings"] for row in rows} == set(SHARES)
    (row,) = compare(atlas, [campaign_of(kind, 4).id for kind in (PLAIN, "precision=mixed")], ["global"]).to_pylist()
    assert (row["first_settings"], row["second_settings"]) == (PLAIN, "precision=mixed")
    with pytest.raises(InputError, match=r"got 4 kinds \(.*constraint=normalized"):
        plots.orders(atlas, students=4)


def test_the_command_shows_them(atlas, capsys):
    for of in ("trend", "frequencies", "unseen"):
        assert run_command(["stats", atlas.store.address, "--of", of]) == 0
        out, err = capsys.readouterr()
        assert {line.split()[-1] for line in out.splitlines()[1:]} == set(SHARES)
        assert of != "frequencies" or "constraint=normalized: of 100 starts" in err


def test_settings_name_whatever_differs(tmp_path):
    """The slope of leaky ReLU, T, and each tolerance; two teachers T are two names."""
    atlas = new_catalogue(tmp_path / "atlas")
    plain = make_campaign(3, 2)
    teachers = [make_campaign(3, 2, T=scale * np.eye(2)) for scale in (2.0, 3.0)]
    expected = {
        make_campaign(3, 2, activation="leaky_relu", activation_slope=0.2): "activation_slope=0.2",
        dataclasses.replace(plain, tolerances=Tolerances(linger_below=0)): "linger_below=0",
        dataclasses.replace(plain, tolerances=Tolerances(single_above=1e-2, step_error=3e-4)): (
            "step_error=0.0003 single_above=0.01"
        ),
        make_campaign(3, 2, constraint="normalized", T=2.0 * np.eye(2)): "constraint=normalized T=[0-9a-f]{8}",
        **dict.fromkeys(teachers, "T=[0-9a-f]{8}"),
    }
    for campaign in expected:
        atlas.register(campaign, 10, "cpu")
        atlas.commit_shard(make_result(campaign, 0, 10, [make_point(campaign.landscape, 0.1)]), 0, 10)
    found = {sample.campaigns: sample.settings for sample in samples(atlas)}
    for campaign, settings in expected.items():
        assert re.fullmatch(settings, found[campaign.id])
    assert len(set(found.values())) == len(expected)
