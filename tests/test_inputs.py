"""Campaign files, teacher matrices and tables of initial overlaps become the campaign that they describe."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import feather, parquet

from cluster.inputs import DEFAULT_STARTS, loaded, read_campaign_file, read_overlaps, request
from enumerator.catalogue.schema import campaign_file_schema
from enumerator.problem import Campaign, Dynamics, InitialLaw, Landscape, Tolerances

T = np.array([[1.0, 0.3, 0.0], [0.3, 2.0, 0.5], [0.0, 0.5, 1.5]])


def feasible_overlaps(starts=4, students=2, teachers=3, seed=1):
    weights = np.random.default_rng(seed).standard_normal((starts, students, 5))
    return weights @ weights.transpose(0, 2, 1), weights[:, :, :teachers]


def test_defaults_are_those_of_the_campaign():
    wanted = request({"students": 3, "teachers": 4})
    assert wanted.campaign == Campaign(Landscape(3, 4))
    assert (wanted.starts, wanted.shard_size) == (DEFAULT_STARTS, None)


def test_every_setting_arrives(tmp_path):
    np.save(tmp_path / "T.npy", T)
    (tmp_path / "campaign.toml").write_text(
        """
        students = 2
        teachers = 3
        teacher = "T.npy"
        dynamics = "newton"
        dimension = 50
        scale = 0.5
        seed = 7
        starts = 20
        shard_size = 10
        [tolerances]
        max_evaluations = 1000
        """
    )
    wanted = request(loaded(read_campaign_file(tmp_path / "campaign.toml")))
    expected = Campaign(
        Landscape(2, 3, T=T),
        Dynamics("newton"),
        InitialLaw(dimension=50, scale=0.5),
        7,
        Tolerances(max_evaluations=1000),
    )
    assert wanted.campaign.id == expected.id
    assert (wanted.starts, wanted.shard_size) == (20, 10)


def test_campaign_file_knows_every_tolerance():
    schema = campaign_file_schema()["properties"]["tolerances"]["properties"]
    assert set(schema) == {entry.name for entry in dataclasses.fields(Tolerances)}


def write_overlaps(path, Q, R):
    if path.suffix == ".npz":
        np.savez(path, Q=Q, R=R)
        return
    lists = pa.table({"Q": list(Q.reshape(len(Q), -1)), "R": list(R.reshape(len(R), -1))})
    if path.suffix == ".parquet":
        parquet.write_table(lists, path)
    else:
        feather.write_feather(lists, str(path))


@pytest.mark.parametrize("name", ["starts.npz", "starts.arrow", "starts.parquet"])
def test_given_overlaps_are_read_exactly(tmp_path, name):
    Q, R = feasible_overlaps()
    write_overlaps(tmp_path / name, Q, R)
    found = read_overlaps(tmp_path / name, Landscape(2, 3))
    assert np.array_equal(found[0], Q)
    assert np.array_equal(found[1], R)
    wanted = request(loaded({"students": 2, "teachers": 3, "initial": str(tmp_path / name)}))
    assert wanted.campaign.id == Campaign(Landscape(2, 3), law=InitialLaw(Q=Q, R=R)).id
    assert wanted.starts == 4


def test_nested_lists_are_matrices_too(tmp_path):
    Q, R = feasible_overlaps()
    parquet.write_table(pa.table({"Q": Q.tolist(), "R": R.tolist()}), tmp_path / "nested.parquet")
    assert np.array_equal(read_overlaps(tmp_path / "nested.parquet", Landscape(2, 3))[1], R)
