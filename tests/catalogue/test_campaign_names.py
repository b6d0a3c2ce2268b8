"""Names of campaigns: what they say, that no two are the same, and that they stand and count wherever an id does."""

import dataclasses
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cluster.cli import run_command
from enumerator import statistics
from enumerator.catalogue import records
from enumerator.catalogue.campaign_names import name_of, with_names
from enumerator.catalogue.catalogue import Catalogue
from enumerator.enumeration import enumerate_minima
from enumerator.errors import InputError
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances
from enumerator.statistics.stopped_early import early_stops
from enumerator.upkeep.migration import migrate
from tests.support.stand_ins import commit, make_campaign, make_point, make_result, new_catalogue

PLAIN = Landscape(17, 17)
GIVEN = InitialLaw(Q=np.ones((1, 17, 17)), R=np.ones((1, 17, 17)))
# Names are for ever: each of these stands in somebody's notes.
NAMES = {
    "relu.17.17.flow.d1000.s0": Campaign(PLAIN),
    "relu.17.17.flow.d17.s3": Campaign(PLAIN, law=InitialLaw(17), seed=3),
    "relu.17.17.newton.d1000.s0": Campaign(PLAIN, Dynamics("newton")),
    "relu.17.17.descent-0p1.d1000.s0": Campaign(PLAIN, Dynamics("gradient-descent", 0.1)),
    "relu.17.17.descent-1e-05.d1000.s0": Campaign(PLAIN, Dynamics("gradient-descent", 1e-5)),
    "relu.17.17.sgd-0p02-300.d1000.s0": Campaign(PLAIN, Dynamics("one-pass-sgd", 0.02, 300)),
    "relu.17.17.flow.d1000.scale0p5.s0": Campaign(PLAIN, law=InitialLaw(scale=0.5)),
    "relu.17.17.flow.tableb2b4dfd0.s0": Campaign(PLAIN, law=GIVEN),
    "relu.17.17.flow.mixed.d1000.s0": Campaign(PLAIN, tolerances=Tolerances(single_above=3e-3)),
    "relu.17.17.flow.no-lingering.d1000.s0": Campaign(PLAIN, tolerances=Tolerances(linger_below=0)),
    "relu.17.17.flow.no-lingering.tola1ea8dcb.d1000.s0": Campaign(
        PLAIN, tolerances=Tolerances(linger_below=0, step_error=1e-5)
    ),
    "relu.2.2.Tb65e816f.flow.d1000.s0": Campaign(Landscape(2, 2, T=2 * np.eye(2))),
    "leaky_relu-0p2.6.6.flow.d1000.s0": Campaign(Landscape(6, 6, activation="leaky_relu", activation_slope=0.2)),
    "erf.4.3.flow.d1000.s0": Campaign(Landscape(4, 3, activation="erf")),
    "relu.9.9.normalized.flow.d1000.s0": Campaign(Landscape(9, 9, constraint="normalized")),
    "relu.7.7.trained.flow.d1000.signs.s0": Campaign(
        Landscape(7, 7, second_layer="trained"), law=InitialLaw(second_layer="signs")
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_what_differs_from_the_defaults(name):
    assert name_of(NAMES[name]) == name


def stored(*campaigns: Campaign, **changed: str):
    """The table of these campaigns; `changed` replaces columns."""
    rows = [records.campaign_row(c, 10, "cpu", records.datetime(2026, 1, 1)) | changed for c in campaigns]
    return records.to_table("campaigns", rows)


def test_numbers_that_differ_in_the_last_digit_are_two_names():
    scales = [0.3, 0.1 + 0.2, 1.0, np.nextafter(1, 2), 10.0, 1e300]
    names = [name_of(Campaign(PLAIN, law=InitialLaw(scale=scale))) for scale in scales]
    assert len(set(names)) == len(scales)


def test_teachers_with_the_same_digits_of_their_hash_are_told_apart():
    teachers = [2.6092987060546875, 2.917022705078125]
    campaigns = [Campaign(Landscape(1, 1, T=np.array([[t]])), seed=seed) for t in teachers for seed in (0, 1)]
    assert len({name_of(campaign) for campaign in campaigns}) == 2
    alone, together = with_names(stored(*campaigns[:2])), with_names(stored(*campaigns))
    assert alone["campaign_name"].to_pylist() == [f"relu.1.1.Te1293a6f.flow.d1000.s{seed}" for seed in (0, 1)]
    names = together["campaign_name"].to_pylist()
    assert len(set(names)) == 4
    assert all(name.startswith("relu.1.1.Te1293a6f.flow.d1000.") for name in names)
    assert [name[-3:] for name in names] == [".s0", ".s1"] * 2
    assert len(set(together["sample"].to_pylist())) == 2


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"landscape": 3}', "[" * 100_000])
def test_a_campaign_whose_settings_were_altered_is_called_by_its_id(text):
    found = with_names(stored(make_campaign(), campaign=text)).to_pylist()[0]
    assert (found["campaign_name"], found["sample"], found["seed"]) == (make_campaign().id,) * 2 + (None,)


def test_a_name_holds_nothing_that_a_terminal_or_a_path_would_take_up():
    settings = make_campaign().to_dict() | {"seed": "0/../\x1b[2J"}
    found = with_names(stored(make_campaign(), campaign=json.dumps(settings)))
    assert found["campaign_name"].to_pylist() == [make_campaign().id]


def test_a_campaign_of_before_a_tolerance_existed_is_counted_with_those_of_after():
    settings = make_campaign().to_dict()
    del settings["tolerances"]["single_above"]
    old, new = stored(make_campaign(), campaign=json.dumps(settings)), stored(make_campaign(seed=1))
    assert len(set(with_names(records.pa.concat_tables([old, new]))["sample"].to_pylist())) == 1


def test_an_old_catalogue_has_names_too(tmp_path):
    with zipfile.ZipFile(Path(__file__).parents[1] / "reference" / "catalogue_version_1.zip") as archive:
        archive.extractall(tmp_path)
    migrate(tmp_path / "atlas")
    atlas = Catalogue(tmp_path / "atlas")
    assert sorted(atlas.campaigns()["campaign_name"].to_pylist()) == [
        "relu.7.7.flow.d10.s0",
        "relu.7.7.flow.tablea7dbff66.s0",
    ]
    assert atlas.starts(campaign="relu.7.7.flow.d10.s0").num_rows == 50


FLOW, OTHER_SEED, WIDE = make_campaign(3, 3), make_campaign(3, 3, seed=1), make_campaign(4, 3)
NEWTON = dataclasses.replace(FLOW, dynamics=Dynamics("newton"))
NEAR = dataclasses.replace(FLOW, law=InitialLaw(17, 0.5))


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Flow (two seeds), Newton, and flow of another law on (3, 3); flow on (4, 3)."""
    atlas = new_catalogue(tmp_path_factory.mktemp("names") / "atlas")
    for campaign, share in ((FLOW, 6), (OTHER_SEED, 8), (NEWTON, 2), (NEAR, 5), (WIDE, 5)):
        atlas.register(campaign, 10, "cpu")
        points = [make_point(campaign.landscape, loss) for loss in (0.0, 0.25)]
        points.append(make_point(campaign.landscape, 0.5, "saddle"))
        atlas.commit_shard(make_result(campaign, 0, 10, points, [0] * share + [1] * (9 - share) + [2]), 0, 10)
    return atlas


SELECTED = {
    "relu.3.3.flow.d10.s0": {"campaign": FLOW.id},
    "relu.3.3.flow.d10.s1": {"seed": 1},
    "relu.3.3.newton.d10.s0": {"dynamics": "newton"},
    "relu.3.3.flow.d17.scale0p5.s0": {"dimension": 17},
    "relu.4.3.flow.d10.s0": {"students": 4, "scale": 1},
}


@pytest.mark.parametrize("name", SELECTED)
@pytest.mark.parametrize("table", ["minima", "saddles", "starts", "campaigns", "landscapes"])
def test_a_name_selects_what_its_id_and_what_its_settings_select(atlas, name, table):
    read = getattr(atlas, table)
    rows = read(campaign=name).to_pylist()
    assert rows and rows == read(**SELECTED[name]).to_pylist() == read(campaign=atlas.campaign(name).id).to_pylist()
    if table in ("starts", "campaigns"):
        assert {row["campaign_name"] for row in rows} == {name}
    if table in ("minima", "saddles"):
        assert {row["campaign_names"] for row in rows} == {name}


def test_campaigns_are_told_apart_by_their_columns(atlas):
    columns = "campaign_name,dynamics,dimension,scale,seed,settings,starts"
    assert [tuple(row.values()) for row in atlas.campaigns(columns=columns, sort="campaign_name").to_pylist()] == [
        ("relu.3.3.flow.d10.s0", "gradient-flow", 10, 1.0, 0, "default", 10),
        ("relu.3.3.flow.d10.s1", "gradient-flow", 10, 1.0, 1, "default", 10),
        ("relu.3.3.flow.d17.scale0p5.s0", "gradient-flow", 17, 0.5, 0, "default", 10),
        ("relu.3.3.newton.d10.s0", "newton", 10, 1.0, 0, "default", 10),
        ("relu.4.3.flow.d10.s0", "gradient-flow", 10, 1.0, 0, "default", 10),
    ]
    query = "select campaign_name, count(*) n from starts join campaigns using (campaign_id) group by 1 having n < 10"
    assert atlas.sql(query).num_rows == 0


@pytest.mark.parametrize("wanted", ["relu.3.3.flow.d10.s2", "c-0123456789abcdef", 7])
def test_an_unknown_campaign_is_one_line_with_the_nearest(atlas, wanted):
    near = "must be the name or the id" if wanted == 7 else r"no campaign .* \(nearest: (relu\.3\.3\.flow\.d10\.s|c-)"
    for read in (atlas.minima, atlas.campaigns):
        with pytest.raises(InputError, match=near):
            read(campaign=wanted)
    with pytest.raises(InputError, match=near):
        atlas.campaign(wanted)


def test_statistics_take_and_give_names(atlas):
    both = statistics.frequencies(atlas, campaign=["relu.3.3.flow.d10.s0", OTHER_SEED.id, FLOW.id]).to_pylist()
    assert {(row["campaign_names"], row["starts"]) for row in both} == {
        ("relu.3.3.flow.d10.s0,relu.3.3.flow.d10.s1", 20)
    }
    assert {row["law"] for row in statistics.frequencies(atlas, students=3, dimension=17).to_pylist()} == {
        "d=17 scale=0.5"
    }
    spread = statistics.distributions(atlas, of="evaluations", seed=1)
    assert set(spread["campaign_name"].to_pylist()) == {"relu.3.3.flow.d10.s1"}
    names = ["relu.3.3.newton.d10.s0", "relu.3.3.flow.d17.scale0p5.s0"]
    row = statistics.compare(atlas, campaigns=names).to_pylist()[0]
    assert [row["first_name"], row["second_name"], row["first_law"], row["second_law"]] == [
        *names, "d=10 scale=1", "d=17 scale=0.5"
    ]  # fmt: skip
    assert (
        early_stops(atlas, names[0], flow_time=100)["hits"].to_pylist()
        == early_stops(atlas, NEWTON.id, flow_time=100)["hits"].to_pylist()
    )


def test_shares_of_unlike_campaigns_are_not_pooled(atlas):
    """Of ten starts each, 6, 8, 2 and 5 end at zero loss: 21 of 40 is the share of no dynamics and no law."""
    for read in (atlas.minima, atlas.saddles):
        mixed = read(students=3).to_pylist()[0]
        assert (mixed["starts"], mixed["frequency"]) == (40, None)
        assert mixed["campaign_names"].split(",") == sorted(set(SELECTED) - {"relu.4.3.flow.d10.s0"})
    assert mixed["lingering_time"] is None
    seeds = atlas.minima(students=3, dynamics="gradient-flow", dimension=10).to_pylist()[0]
    assert (seeds["hits"], seeds["starts"], seeds["frequency"]) == (14, 20, 0.7)
    assert seeds["campaign_names"] == "relu.3.3.flow.d10.s0,relu.3.3.flow.d10.s1"
    assert atlas.minima(campaign=NEWTON.id)["frequency"].to_pylist() == [0.2, 0.7]
    assert atlas.minima(students=4)["frequency"].to_pylist() == [0.5, 0.4]


def test_a_campaign_without_starts_takes_no_share_away(tmp_path):
    atlas = new_catalogue(tmp_path / "atlas")
    for campaign in (FLOW, NEWTON):
        atlas.register(campaign, 10, "cpu")
    commit(atlas, FLOW, 0, 10)
    (row,) = atlas.minima().to_pylist()
    assert (row["frequency"], row["campaign_names"]) == (1.0, name_of(FLOW))


def test_what_is_enumerated_without_a_catalogue_has_the_same_columns(atlas):
    found = enumerate_minima(Landscape(2, 2), starts=20, law=InitialLaw(10))
    for name in ("minima", "saddles", "starts"):
        assert getattr(found, name).column_names == getattr(atlas, name)().column_names
    assert set(found.minima["campaign_names"].to_pylist()) == {"relu.2.2.flow.d10.s0"}
    assert set(found.starts["campaign_name"].to_pylist()) == {"relu.2.2.flow.d10.s0"}


def typed(capsys, *arguments) -> tuple[int, str, str]:
    code = run_command([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("columns", [(), ("--columns", "label,hits"), ("--columns", "starts,label")])
@pytest.mark.parametrize("table", ["minima", "saddles"])
def test_the_command_says_which_campaigns_it_counted_together(atlas, capsys, table, columns):
    code, out, err = typed(capsys, table, atlas.store.address, *columns, "--format", "csv")
    assert (code, "frequency" in out) == (0, not columns)
    assert "unlike campaigns are counted together: relu.3.3.flow.d10.s0, relu.3.3.flow.d10.s1, " in err
    assert "and 1 more" in err and "--dynamics" in err and "stats" in err
    if columns:
        assert out.splitlines()[0].replace('"', "") == columns[1]
    code, _, err = typed(capsys, table, atlas.store.address, *columns, "--dynamics", "newton")
    assert (code, err) == (0, "")


def test_commands_show_names_and_take_them(atlas, capsys, tmp_path):
    path, name = atlas.store.address, "relu.3.3.newton.d10.s0"
    out = typed(capsys, "campaigns", path, "--dynamics", "newton")[1].splitlines()
    assert out[0].split()[:8] == ["campaign_name", "status", "starts", "dynamics", "step", "dimension", "scale", "seed"]
    assert out[1].split()[:8] == [name, "running", "10", "newton", "-", "10", "1", "0"]
    assert len(out) == 2
    for option in (("--dimension", 17), ("--scale", 0.5)):
        assert "flow.d17.scale0p5" in typed(capsys, "campaigns", path, *option)[1].splitlines()[1]
    assert len(typed(capsys, "campaigns", path, "--seed", 1)[1].splitlines()) == 2
    out = typed(capsys, "starts", path, "--campaign", name, "--limit", 2)[1]
    assert out.count(name) == 2
    assert typed(capsys, "early-stops", path, name, "--flow-time", 100)[0] == 0
    code, out, _ = typed(capsys, "stats", path, "--of", "comparison", "--campaign", name, "--campaign", FLOW.id)
    assert code == 0 and out.splitlines()[1].split()[:2] == [name, name_of(FLOW)]
    out = typed(capsys, "stats", path, "--dimension", 17, "--scale", 0.5, "--seed", 0, "--by", "outcome")
    assert out[1].splitlines()[1].split()[4] == "10" and "d=17 scale=0.5" in out[2]
    out = typed(capsys, "show", path, atlas.minima(students=3)["label"][0].as_py())[1]
    shares = re.findall(r"  (relu\S+) +[0-9.]+% \((\d+) of 10 starts\)", out)
    assert [campaign for campaign, _ in shares] == sorted(atlas.campaigns(students=3)["campaign_name"].to_pylist())
    assert sum(int(hits) for _, hits in shares) == 21
    assert f"found by       {name_of(FLOW)}, " in out
    out = typed(capsys, "export", path, "--campaign", name, "-o", tmp_path / "b.tar")[2]
    assert "1 campaigns" in out
    code, out, err = typed(capsys, "minima", path, "--campaign", name[:-1])
    assert (code, out) == (2, "") and f"nearest: {name}" in err


def test_a_campaign_is_deleted_by_its_name(tmp_path, capsys):
    atlas = new_catalogue(tmp_path / "atlas")
    for campaign in (FLOW, NEWTON):
        atlas.register(campaign, 10, "cpu")
        commit(atlas, campaign, 0, 10)
    assert typed(capsys, "delete", tmp_path / "atlas", name_of(NEWTON), "--yes")[0] == 0
    assert atlas.campaigns()["campaign_name"].to_pylist() == [name_of(FLOW)]
    assert set(atlas.starts()["campaign_id"].to_pylist()) == {FLOW.id}


def test_the_law_of_a_trained_second_layer_stands_in_the_table(tmp_path, capsys):
    landscape, atlas = Landscape(3, 3, second_layer="trained"), new_catalogue(tmp_path / "atlas")
    for law in ("ones", "signs", "normal"):
        atlas.register(Campaign(landscape, law=InitialLaw(second_layer=law)), 1, "cpu")
    settings = set(atlas.campaigns()["settings"].to_pylist())
    trained = "second_layer=trained"
    assert settings == {trained, f"{trained} second_layer_law=signs", f"{trained} second_layer_law=normal"}
    assert run_command(["campaigns", str(tmp_path / "atlas")]) == 0
    assert f"{trained} second_layer_law=signs" in capsys.readouterr().out
