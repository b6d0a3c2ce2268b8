"""The page of the answers of `stats` has the columns that the statistics give, no more and no fewer."""

import pytest

from enumerator import statistics
from enumerator.problem import Campaign, Dynamics, Landscape
from scripts.site.answers import ANSWERS, page
from tests.support.stand_ins import make_point, make_result, new_catalogue

CAMPAIGNS = [
    *(Campaign(Landscape(K, K)) for K in (6, 7, 8, 9)),
    Campaign(Landscape(9, 9), Dynamics("newton")),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Every statistic of a made-up catalogue, by name."""
    atlas = new_catalogue(tmp_path_factory.mktemp("answers") / "atlas")
    for campaign in CAMPAIGNS:
        atlas.register(campaign, 40, "cpu")
        points = [make_point(campaign.landscape, 0.1 * k, anti_aligned=k) for k in range(3)]
        ends = [0] * 20 + [1] * 12 + [2] * 5 + [-1] * 3
        atlas.commit_shard(make_result(campaign, 0, 40, points, ends), 0, 40)
    return {
        "frequencies": statistics.frequencies(atlas),
        "unseen": statistics.unseen(atlas),
        "accumulation": statistics.accumulation(atlas),
        "distributions": statistics.distributions(atlas),
        "comparison": statistics.compare(atlas, students=9),
        "trend": statistics.trend(atlas),
        "early-stops": statistics.early_stops(atlas, "relu.9.9.flow.d1000.s0", gradient_norm=1e-4),
    }


@pytest.mark.parametrize("name", ANSWERS)
def test_every_column_of_an_answer_is_described(answers, name):
    assert set(ANSWERS[name]) == set(answers[name].column_names)


def test_every_answer_is_on_the_page():
    assert all(f"## {name}\n" in page() for name in ANSWERS)
