"""One minimum in full: its orbit counted exactly, and its row in every format."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from cluster.cli import run_command
from enumerator.catalogue.campaign_names import name_of
from enumerator.catalogue.orbit_sizes import isotropy_order
from enumerator.catalogue.store import Store
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape
from enumerator.symmetry.canonical import canonical_form
from tests.support.stand_ins import commit, make_campaign, make_point, make_result, new_catalogue

SIZES = {
    # K = M: (isotropy, exact size of the orbit)
    17: ("S17", math.factorial(17)),
    24: ("S23 x S1", math.factorial(24) * 24),
    8: ("order 10 on 5+3, students S2", math.factorial(8) ** 2 // 20),
}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """A minimum with the isotropy and orbit size of each row of SIZES, by its K."""
    atlas = new_catalogue(tmp_path_factory.mktemp("show") / "atlas")
    for K, (isotropy, size) in SIZES.items():
        campaign = Campaign(Landscape(K, K))
        atlas.register(campaign, 10, "cpu")
        point = make_point(campaign.landscape, K / 100, isotropy=isotropy, orbit_size_log10=math.log10(size))
        atlas.commit_shard(make_result(campaign, 0, 10, [point]), 0, 10)
    return atlas


@pytest.mark.parametrize("K", SIZES)
def test_the_size_of_an_orbit_is_shown_exactly(atlas, capsys, K):
    label = atlas.minima(students=K)["label"][0].as_py()
    assert run_command(["show", atlas.store.address, label]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("orbit size")]
    assert line.split()[-1] == str(SIZES[K][1])


def test_an_orbit_of_other_teachers_counts_their_permutations_alone(tmp_path):
    campaign = make_campaign(4, 4, T=np.diag([1.0, 1.0, 2.0, 3.0]))
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 10, "cpu")
    point = make_point(campaign.landscape, 0.3, isotropy="S1^4", orbit_size_log10=math.log10(48))
    atlas.commit_shard(make_result(campaign, 0, 10, [point]), 0, 10)
    assert atlas.minimum(atlas.minima()["label"][0].as_py())["orbit_size"] == "48"


def test_all_that_is_shown_is_of_one_moment(atlas, capsys, monkeypatch):
    label = atlas.minima(students=17)["label"][0].as_py()
    opened, usual = [], Store.open_all
    monkeypatch.setattr(Store, "open_all", lambda self, *names: opened.append(names) or usual(self, *names))
    assert run_command(["show", atlas.store.address, label]) == 0
    assert "frequency" in capsys.readouterr().out
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("T", "told"),
    [(None, None), (0.7 * np.eye(3) + 0.3, "equicorrelated 0.3"), (4 * np.eye(3), "orthogonal, squares 4.0")],
)
def test_teachers_that_are_not_orthonormal_are_told_as_landscapes_tells_them(tmp_path, capsys, T, told):
    campaign = make_campaign(3, 3, T=T)
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10, [0.1])
    assert run_command(["show", atlas.store.address, atlas.minima()["label"][0].as_py()]) == 0
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if line.startswith("teachers")]
    assert lines == ([] if told is None else [told])


def test_what_contradicts_itself_is_no_exact_number(tmp_path):
    campaign = make_campaign()
    atlas = new_catalogue(tmp_path / "atlas")
    atlas.register(campaign, 10, "cpu")
    commit(atlas, campaign, 0, 10, [0.1])
    (label,) = atlas.minima()["label"].to_pylist()
    assert atlas.minimum(label)["orbit_size"] is None


@pytest.mark.parametrize(
    ("Q", "R", "T"),
    [
        (np.eye(6), np.eye(6), np.eye(6)),
        (np.eye(3), np.ones((3, 1)), np.eye(1)),
        (
            np.eye(6),
            np.eye(6, 4),
            np.eye(4) + 0.1 * (np.eye(4, k=1) + np.eye(4, k=-1) + np.eye(4, k=3) + np.eye(4, k=-3)),
        ),
        (np.diag([1.0, 1.0, 2.0, 2.0]), np.eye(4), np.eye(4)),
    ],
    ids=["S6", "students alone", "square and students", "powers"],
)
def test_names_of_groups_tell_their_orders(Q, R, T):
    form = canonical_form(Q, R, T, 1e-9)
    assert isotropy_order(form.isotropy) == form.stabiliser_order


def test_an_unknown_name_tells_none():
    assert isotropy_order("S_2 x S_1") is None


def test_a_minimum_is_shown_in_every_format(atlas, capsys, tmp_path):
    label = atlas.minima(students=17)["label"][0].as_py()
    show = ["show", atlas.store.address, label]
    assert run_command([*show, "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    stored = atlas.minimum(label)
    assert list(row) == list(stored) and row["Q"] == stored["Q"]
    assert row["orbit_size"] == str(math.factorial(17))
    assert run_command([*show, "-o", str(tmp_path / "minimum.parquet")]) == 0
    assert pa.parquet.read_table(tmp_path / "minimum.parquet").equals(atlas.minimum_row(label))
    assert run_command([*show]) == 0
    text = capsys.readouterr().out
    assert run_command([*show, "-o", str(tmp_path / "minimum.txt")]) == 0
    assert (tmp_path / "minimum.txt").read_text() == text


@pytest.mark.parametrize("is_saddle", [False, True])
def test_unlike_campaigns_have_a_frequency_each(tmp_path, capsys, is_saddle):
    flow, other = make_campaign(), Campaign(make_campaign().landscape, Dynamics("newton"), InitialLaw(dimension=10))
    atlas = new_catalogue(tmp_path / "atlas")
    points = [make_point(flow.landscape, 0.1, "saddle" if is_saddle else "minimum"), make_point(flow.landscape, 0.2)]
    for campaign, ended in ((flow, [0] * 3 + [1] * 7), (other, [0] * 2 + [-1] * 6)):
        atlas.register(campaign, 10, "cpu")
        atlas.commit_shard(make_result(campaign, 0, len(ended), points, ended), 0, len(ended))
    (label,) = (atlas.saddles if is_saddle else atlas.minima)(where="loss < 0.15")["label"].to_pylist()
    assert run_command(["show", atlas.store.address, label]) == 0
    lines = capsys.readouterr().out.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("frequency")]
    assert lines[at].split(maxsplit=1)[1] == "of each campaign, as they differ in more than the seed:"
    assert [line.split() for line in lines[at + 1 : at + 3]] == [
        [name_of(flow), "30.00%", "(3", "of", "10", "starts)"],
        [name_of(other), "25.00%", "(2", "of", "8", "starts)"],
    ]
    assert lines[at + 3].startswith("found by")


def test_campaigns_that_differ_in_the_seed_have_one_frequency(tmp_path, capsys):
    atlas = new_catalogue(tmp_path / "atlas")
    for seed, size in ((0, 10), (1, 5)):
        atlas.register(make_campaign(seed=seed), 10, "cpu")
        commit(atlas, make_campaign(seed=seed), 0, size, [0.1])
    (label,) = atlas.minima()["label"].to_pylist()
    assert run_command(["show", atlas.store.address, label]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("frequency")]
    assert line.split(maxsplit=1)[1] == "100.00% (15 of 15 starts)"
