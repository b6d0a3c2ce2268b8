"""Questions to the catalogue: counts and frequencies, selections, and a read-only SQL."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cluster.cli import run_command
from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.schema import TABLE_NAMES, table_schema
from enumerator.errors import InputError
from enumerator.problem import Campaign, Dynamics, Landscape
from enumerator.storage.sql import run
from tests.support.stand_ins import commit, contents, make_campaign, make_point, make_result, new_catalogue


@pytest.fixture(scope="module")
def filled(tmp_path_factory) -> Catalogue:
    """Three campaigns on two landscapes: (3, 2) by two dynamics, and (4, 2)."""
    atlas = new_catalogue(tmp_path_factory.mktemp("filled") / "atlas")
    for campaign in CAMPAIGNS:
        atlas.register(campaign, 10, "cpu")
    saddle = make_point(CAMPAIGNS[0].landscape, 0.4, "saddle")
    points = [make_point(CAMPAIGNS[0].landscape, 0.1), make_point(CAMPAIGNS[0].landscape, 0.2), saddle]
    atlas.commit_shard(make_result(CAMPAIGNS[0], 0, 8, points, ended=[0, 0, 0, 1, 2, -1, -2, 0]), 0, 8)
    commit(atlas, CAMPAIGNS[1], 0, 2, losses=[0.2])
    commit(atlas, CAMPAIGNS[2], 0, 5, losses=[0.1, 0.3])
    return atlas


CAMPAIGNS = [make_campaign(), make_campaign(), make_campaign(4)]
CAMPAIGNS[1] = dataclasses.replace(CAMPAIGNS[1], dynamics=Dynamics("newton"))


def counts(table: pa.Table) -> list[tuple]:
    return [tuple(row.values()) for row in table.select(["label", "hits", "starts", "frequency"]).to_pylist()]


def test_frequency_is_hits_over_all_starts_on_the_landscape(filled):
    assert counts(filled.minima(dynamics="gradient-flow")) == [
        ("relu.3.2.100000", 4, 8, 0.5),
        ("relu.3.2.200000", 1, 8, 0.125),
        ("relu.4.2.100000", 3, 5, 0.6),
        ("relu.4.2.300000", 2, 5, 0.4),
    ]
    assert counts(filled.saddles(dynamics="gradient-flow")) == [("relu.3.2.400000s", 1, 8, 0.125)]


def test_counts_are_of_the_campaigns_selected(filled):
    gradient, newton, wide = CAMPAIGNS
    assert counts(filled.minima(campaign=newton.id)) == [("relu.3.2.200000", 2, 2, 1.0)]
    assert counts(filled.minima(dynamics="newton")) == counts(filled.minima(campaign=newton.id))
    assert counts(filled.minima(campaign=gradient.id)) == [
        ("relu.3.2.100000", 4, 8, 0.5),
        ("relu.3.2.200000", 1, 8, 0.125),
    ]
    assert counts(filled.minima(students=4)) == counts(filled.minima(campaign=wide.id))
    assert counts(filled.minima(students=4, campaign=newton.id)) == []
    assert counts(filled.saddles(campaign=newton.id)) == []


def test_landscape_filters(filled):
    assert filled.minima(students=4).num_rows == filled.minima(landscape=CAMPAIGNS[2].landscape.id).num_rows == 2
    assert filled.minima(teachers=2).num_rows == filled.minima(activation="relu").num_rows == 4
    assert filled.minima(activation="erf").num_rows == filled.minima(students=7).num_rows == 0
    assert filled.minima(dynamics="gradient-descent").num_rows == 0
    assert filled.starts(students=4).num_rows == 5
    assert filled.starts(campaign=CAMPAIGNS[0].id).num_rows == 8
    assert filled.campaigns(students=3)["starts"].to_pylist() in ([8, 2], [2, 8])
    assert filled.landscapes(campaign=CAMPAIGNS[2].id)["students"].to_pylist() == [4]


@pytest.mark.parametrize("name", [name for name in TABLE_NAMES if name != "initial_overlaps"])
def test_result_has_the_types_of_the_schema(filled, name):
    table = getattr(filled, name)()
    schema = table_schema(name).arrow
    assert table.schema.names[: len(schema)] == schema.names
    assert [field.type for field in table.schema][: len(schema)] == [field.type for field in schema]
    assert table.num_rows > 0


def test_where_columns_sort_and_limit(filled):
    table = filled.minima(where="hits > 2 and loss < 0.25 -- comment", columns="label, hits", sort="-hits")
    assert table.to_pylist() == [
        {"label": "relu.3.2.100000", "hits": 4},
        {"label": "relu.3.2.200000", "hits": 3},
        {"label": "relu.4.2.100000", "hits": 3},
    ]
    assert filled.minima(sort=["students desc", "loss"], columns=["loss"], limit=3)["loss"].to_pylist() == [
        0.1,
        0.3,
        0.1,
    ]
    assert filled.starts(where="outcome <> 'converged'", columns="start_index")["start_index"].to_pylist() == [4, 5, 6]
    assert filled.starts(where="Q is not null", columns="outcome")["outcome"].to_pylist() == ["unfinished", "diverged"]
    assert filled.minima(where="list_max(hessian_spectrum) < 1 and len(Q) = 9").num_rows == 2


@pytest.mark.parametrize(
    "selection",
    [
        {"where": "los < 1"},
        {"where": "loss <"},
        {"where": "loss < 'low'"},
        {"columns": "label,los"},
        {"sort": "los"},
    ],
    ids=str,
)
def test_wrong_selection_is_one_line_that_names_the_columns(filled, selection):
    with pytest.raises(InputError) as caught:
        filled.minima(**selection)
    assert "\n" not in str(caught.value)
    assert "The columns are minimum_id, label, " in str(caught.value)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"sort": "loss up"}, "`sort` takes names"),
        ({"limit": -1}, "`limit` must be a whole number"),
        ({"students": "3"}, "`students` must be a whole number"),
        ({"campaign": CAMPAIGNS[0].id[:-1]}, f"no campaign .*nearest: .*{CAMPAIGNS[0].id}"),
        ({"where": "1=1) union (select * from read_text('/etc/hostname')"}, "not available"),
        ({"where": "1=1); drop table minima; select (1"}, "got SELECT and DROP and SELECT"),
    ],
    ids=str,
)
def test_selection_that_cannot_be_meant_is_refused(filled, selection, message):
    with pytest.raises(InputError, match=message):
        filled.minima(**selection)


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_an_unknown_landscape_is_refused_with_the_nearest_and_a_known_one_may_have_no_rows(filled, name):
    known = CAMPAIGNS[2].landscape.id
    assert getattr(filled, name)(landscape=known, students=9).num_rows == 0
    with pytest.raises(InputError, match=f"no landscape '{known[:-1]}' in this catalogue \\(nearest: {known}"):
        getattr(filled, name)(landscape=known[:-1])
    with pytest.raises(InputError, match="no landscape 'nonsense' in this catalogue \\(nearest: ls-"):
        getattr(filled, name)(landscape="nonsense", students=3, campaign=CAMPAIGNS[2].id)


def test_misspelt_selection_is_a_type_error(filled):
    with pytest.raises(TypeError, match="no such selection: student"):
        filled.minima(student=3)


def test_minimum_by_id_or_label(filled):
    row = filled.minimum("relu.3.2.100000")
    assert (row["hits"], row["starts"], row["loss"]) == (4, 10, 0.1)
    assert filled.minimum(row["minimum_id"]) == row
    assert filled.minimum("relu.3.2.400000s")["verdict"] == "saddle"
    with pytest.raises(InputError, match=r"no minimum 'relu.3.2.10000' .*nearest: relu.3.2.100000"):
        filled.minimum("relu.3.2.10000")
    with pytest.raises(InputError, match="no minimum"):
        filled.minimum("' or true --")


def test_sql_reads_all_tables_under_their_names(filled):
    query = """
        with shares as (select campaign_id, outcome, count(*) as n from starts group by all)
        select outcome, sum(n)::bigint as n from shares join campaigns using (campaign_id) group by 1 order by 1"""
    assert filled.sql(query).to_pylist() == [
        {"outcome": "converged", "n": 12},
        {"outcome": "diverged", "n": 1},
        {"outcome": "saddle", "n": 1},
        {"outcome": "unfinished", "n": 1},
    ]
    assert filled.sql("select max(value) as m from minima, unnest(Q) as t(value)").num_rows == 1
    assert filled.sql("select count(*) as n from range(5)")["n"].to_pylist() == [5]
    assert (
        filled.sql("select campaign ->> '$.dynamics.name' as d from campaigns order by 1")["d"].to_pylist()[-1]
        == "newton"
    )
    assert "loss" in filled.sql("describe minima")["column_name"].to_pylist()
    assert filled.sql("select created_at from minima").schema.field(0).type == pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    "query",
    [
        "copy minima to '{}/out.csv'",
        "copy (select 1) to '{}/out.parquet'",
        "attach '{}/other.db'",
        "export database '{}/out'",
        "install httpfs",
        "load httpfs",
        "insert into minima select * from minima",
        "update minima set loss = 0",
        "delete from starts",
        "drop view starts",
        "create table mine as select 1",
        "create macro f(x) as x",
        "set threads = 1",
        "set enable_external_access = true",
        "reset lock_configuration",
        "pragma database_list",
        "call duckdb_settings()",
        "checkpoint",
        "begin transaction",
        "select 1; select 2",
        "",
        "select * from read_csv('{}/secret.csv')",
        "select * from read_text('{}/secret.csv')",
        "select * from read_blob('{}/*')",
        "select * from glob('{}/*')",
        "select * from '{}/secret.csv'",
        'select * from "{}/secret.csv"',
        "select * from parquet_scan('{}/secret.csv')",
        "select * from sniff_csv('{}/secret.csv')",
        "select * from arrow_scan(1, 2, 3)",
        "select (select count(*) from system.main.ARROW_SCAN(1, 2, 3))",
        "with t as (from seq_scan()) select 1",
        "select * from query('select 1')",
        "select * from query_table('starts')",
        "select * from json_execute_serialized_sql(json_serialize_sql('select 1'))",
        "select * from which_secret('a', 's3')",
        "from duckdb_secrets()",
        "selec 1",
        "select los from minima",
        "select * from minimum",
    ],
)
def test_sql_reads_nothing_else_and_writes_nothing(filled, tmp_path, query):
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    before = contents(tmp_path), contents(Path(filled.store.address))
    with pytest.raises(InputError) as caught:
        filled.sql(query.format(tmp_path))
    assert "\n" not in str(caught.value)
    assert (contents(tmp_path), contents(Path(filled.store.address))) == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("select case when i < 4000000 then i else error('late') end from range(5000000) t(i)", "late"),
        ("select cast(case when i < 4000000 then '1' else 'x' end as int) from range(5000000) t(i)", "Conversion"),
        ("select array_agg(a.i) over (order by b.i) from range(3000) a(i), range(3000) b(i)", "more memory"),
        ("select i from range(1000000000000) t(i)", "stopped"),
    ],
)
def test_errors_that_come_between_batches_are_the_users_too(statement, message):
    program = f"""
import threading
from enumerator.storage import sql
from enumerator.errors import InputError
sql.allow(2**28, 2)
stopper = threading.Timer(2.0, sql.interrupt)
try:
    with sql.reading({statement!r}, {{}}) as batches:
        if {message == "stopped"}:
            stopper.start()
        for _ in batches:
            pass
except InputError as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (told.stderr, message in told.stdout) == ("", True), told


@pytest.mark.parametrize(
    "value",
    [
        "340282366920938463463374607431768211455::uhugeint",  # it arrived as -1
        "'10101'::bit",
        "123456789012345678901234567890123456789012345678901::bignum",
        "'12:00:00+05'::timetz",
        "[{'a': 1::uhugeint}]",
        "map([1], ['1'::bit])",
        "union_value(a := [1::uhugeint]::uhugeint[1])",
    ],
)
def test_no_value_comes_as_another_one(filled, value):
    with pytest.raises(InputError, match=r"the column 'v' holds .* no exact form here: cast it to varchar"):
        filled.sql(f"select {value} as v")


class Stopped:
    """A table during whose reading the process is to stop."""

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        raise KeyboardInterrupt


def test_a_stop_that_comes_while_a_table_is_read_is_one(filled):
    """DuckDB makes a mistake in the statement of it."""
    with pytest.raises(KeyboardInterrupt):
        run("select * from t", {"t": Stopped()})


def test_those_values_come_as_texts(filled):
    (row,) = filled.sql("select '10101'::bit::varchar as a, '12:00:00+05'::timetz::varchar as b").to_pylist()
    assert row == {"a": "10101", "b": "12:00:00+05"}


def test_types_are_told_from_names_in_them(filled):
    value = "{'bit': 'bit'::enum('bit', 'uhugeint'), 'size': [1, 2]::int[2], 'sum': sum(7)}"
    assert filled.sql(f"select {value} as v")["v"].to_pylist() == [{"bit": "bit", "size": [1, 2], "sum": 7}]


@pytest.mark.parametrize("name", ["dynamics", "activation"])
def test_a_misspelt_choice_is_an_error_that_lists_what_there_is(filled, name):
    """No rows would read as: none were found by it."""
    for table in (filled.minima, filled.saddles, filled.starts, filled.campaigns):
        with pytest.raises(InputError, match=f"`{name}` must be one of .*, got 'newtn'"):
            table(**{name: "newtn"})


def equicorrelated(rho, square=1.0):
    return square * ((1 - rho) * np.eye(3) + rho)


TEACHERS = {
    "orthonormal": np.eye(3),
    "orthogonal, squares 2.0": 2 * np.eye(3),
    "equicorrelated 0.3": equicorrelated(0.3),
    "equicorrelated -0.25": equicorrelated(-0.25),
    "equicorrelated 0.6, squares 2.0": equicorrelated(0.3, 2.0),
}


def test_landscapes_are_told_apart_by_their_teachers(tmp_path, capsys):
    others = [equicorrelated(0.3) + np.diag([0, 0, 0.1]), np.diag([1.0, 1.0, 2.0])]
    landscapes = {told: Landscape(3, 3, T) for told, T in TEACHERS.items()}
    landscapes |= {f"given {landscape.id[3:11]}": landscape for landscape in (Landscape(3, 3, T) for T in others)}
    landscapes["orthonormal "] = Landscape(1, 1)
    atlas = new_catalogue(tmp_path / "atlas")
    for landscape in landscapes.values():
        atlas.register(Campaign(landscape), 1, "cpu")
    told = {row["landscape_id"]: row["teacher"] for row in atlas.landscapes().to_pylist()}
    assert told == {landscape.id: text.strip() for text, landscape in landscapes.items()}
    assert atlas.landscapes(where="teacher like 'equicorrelated%'", columns="teacher").num_rows == 3
    assert run_command(["landscapes", str(tmp_path / "atlas")]) == 0
    shown = capsys.readouterr().out
    assert all(text.strip() in shown for text in landscapes)
    assert atlas.landscape(landscapes["equicorrelated 0.3"].id) == landscapes["equicorrelated 0.3"]
