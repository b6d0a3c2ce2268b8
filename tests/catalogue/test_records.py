"""The schemas say what the code does, and what goes through Arrow comes back bit for bit."""

import dataclasses
import re
from datetime import UTC, datetime

import jsonschema
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enumerator import problem
from enumerator.catalogue import records
from enumerator.catalogue.schema import TABLE_NAMES, campaign_file_schema, table_schema
from enumerator.errors import CatalogueError, SolverError
from enumerator.points import StationaryPoint
from enumerator.problem import Landscape
from enumerator.starts import Lingering
from tests.support.stand_ins import assert_identical, make_campaign, make_point, make_result

# The columns that users rely on (design, section 7); more may stand behind them.
PROMISED = {
    "landscapes": "landscape_id students teachers activation activation_slope constraint second_layer T teacher_rank "
    "created_at",
    "initial_overlaps": "campaign_id start_index students teachers Q R",
    "campaigns": "campaign_id landscape_id campaign status starts created_at finished_at software device",
    "minima": "minimum_id label landscape_id students teachers activation constraint second_layer loss gradient_norm "
    "verdict verdict_above anti_aligned effective_students Q R second_layer_weights hessian_min hessian_max "
    "hessian_spectrum perpendicular_min perpendicular_spectrum flat_dimension splitting_min "
    "splitting_min_perpendicular isotropy orbit_size_log10 family first_campaign_id created_at software",
    "starts": "campaign_id start_index landscape_id minimum_id outcome loss gradient_norm anti_aligned flow_time "
    "evaluations distance Q R",
}
PROMISED["saddles"] = PROMISED["minima"]


@pytest.mark.parametrize("name", TABLE_NAMES)
def test_schema_has_the_promised_columns_first_and_describes_all(name):
    schema = table_schema(name)
    promised = PROMISED[name].split()
    assert schema.column_names[: len(promised)] == promised
    assert set(schema.key) | set(schema.partition_by) <= set(schema.column_names)
    assert all(column.description.endswith(".") and len(column.description) > 20 for column in schema.columns)
    assert schema.arrow.names == schema.column_names


def test_saddles_have_the_columns_of_minima():
    assert table_schema("saddles").arrow.equals(table_schema("minima").arrow)


def test_outcomes_have_the_names_of_the_design():
    assert records.OUTCOMES == ("converged", "saddle", "unfinished", "diverged")


def test_campaign_file_schema_offers_what_the_code_takes():
    schema = campaign_file_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    properties = schema["properties"]
    for name, choices in (
        ("activation", problem.ACTIVATIONS),
        ("constraint", problem.CONSTRAINTS),
        ("second_layer", problem.SECOND_LAYERS),
        ("dynamics", problem.DYNAMICS),
        ("precision", problem.PRECISIONS),
    ):
        # Registers decide; where names stand in the schema as well, they are the same.
        told = re.split(": |, such as ", properties[name]["description"])[-1]
        listed = properties[name].get("enum") or re.findall(r"[a-z_-]+", told)
        assert [word for word in listed if word != "or"] == list(choices)
    fields = [field.name for field in dataclasses.fields(problem.Tolerances)]
    assert list(properties["tolerances"]["properties"]) == fields
    defaults = {field.name: field.default for field in dataclasses.fields(problem.InitialLaw)}
    assert properties["dimension"]["default"] == defaults["dimension"]
    assert properties["scale"]["default"] == defaults["scale"]


@pytest.mark.parametrize(
    ("content", "is_valid"),
    [
        ({"students": 17, "teachers": 17, "starts": 1000, "tolerances": {"stationary": 1e-12}}, True),
        ({"students": 2, "teachers": 2, "activation": "leaky_relu", "activation_slope": 0.1}, True),
        ({"students": 2, "teachers": 2, "studnets": 3}, False),
        ({"students": 0, "teachers": 2}, False),
        ({"teachers": 2}, False),
        ({"students": 2, "teachers": 2, "scale": 0.0}, False),
        ({"students": 2, "teachers": 2, "tolerances": {"stationry": 1e-12}}, False),
    ],
)
def test_campaign_file_schema_accepts_campaigns_only(content, is_valid):
    assert jsonschema.Draft202012Validator(campaign_file_schema()).is_valid(content) is is_valid


def through_a_file(table: pa.Table) -> pa.Table:
    """The table after it was written as an Arrow IPC stream and read again."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.ipc.open_stream(sink.getvalue()).read_all()


def there_and_back(point: StationaryPoint) -> StationaryPoint:
    campaign = make_campaign(point.landscape.students, point.landscape.teachers)
    row = records.point_row(point, "m-0", "label", campaign, NOW)
    (back,) = records.from_table(through_a_file(records.to_table("minima", [row])))
    return records.point_from_row(back, point.landscape)


NOW = datetime(2026, 4, 1, 12, 0, 0, 123456, tzinfo=UTC)
EVERY_FLOAT = st.floats(allow_nan=False, allow_infinity=False, width=64)


@given(data=st.data(), students=st.integers(0, 4), teachers=st.integers(1, 4))
@settings(max_examples=40)
def test_point_comes_back_bit_for_bit(data, students, teachers):
    """Any float64, subnormal and minus zero included; an empty effective network has no eigenvalues."""
    numbers = lambda *shape: np.array(  # noqa: E731
        data.draw(st.lists(EVERY_FLOAT, min_size=int(np.prod(shape)), max_size=int(np.prod(shape)))), float
    ).reshape(shape)
    landscape = Landscape(max(1, students), teachers)
    R = numbers(students, teachers)
    empty = {"hessian_min": np.nan, "hessian_max": np.nan, "perpendicular_min": np.nan} if students == 0 else {}
    point = make_point(
        landscape,
        data.draw(st.floats(0, 1e6)),
        W=R,
        R=R,
        Q=numbers(students, students),
        effective_students=students,
        hessian_spectrum=numbers(students * teachers),
        perpendicular_spectrum=numbers(students),
        anti_aligned=data.draw(st.none() | st.integers(0, 9)),
        splitting_min=data.draw(st.none() | EVERY_FLOAT),
        second_layer_weights=data.draw(st.sampled_from([None, numbers(students)])),
        family=data.draw(st.none() | st.text(max_size=5)),
        **empty,
    )
    assert_identical(there_and_back(point), point)


def test_weights_are_rebuilt_for_teachers_of_deficient_rank():
    generator = np.random.default_rng(0)
    V = generator.standard_normal((4, 2))
    point = make_point(Landscape(3, 4, T=V @ V.T), 0.25)
    back = there_and_back(point)
    assert_identical(back, point, but=("W",))
    # One pseudo-inverse of a well-conditioned 4 x 2 matrix: some roundings of entries of order one.
    np.testing.assert_allclose(back.W, point.W, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "landscape",
    [
        Landscape(3, 2),
        Landscape(3, 2, T=np.array([[1.0, 0.1], [0.1, 2.0]])),
        Landscape(3, 2, activation="leaky_relu", activation_slope=0.1),
        Landscape(3, 2, activation="erf", constraint="normalized", second_layer="trained"),
    ],
    ids=["plain", "overlapping", "leaky", "erf"],
)
def test_landscape_comes_back_with_its_id(landscape):
    table = through_a_file(records.to_table("landscapes", [records.landscape_row(landscape, NOW)]))
    (row,) = records.from_table(table)
    assert records.landscape_from_row(row).id == landscape.id
    assert row["created_at"] == NOW
    with pytest.raises(CatalogueError, match="was altered"):
        records.landscape_from_row({**row, "students": 4})


def test_starts_keep_their_arrays_and_the_overlaps_of_the_lost_ones():
    campaign = make_campaign()
    points = [make_point(campaign.landscape, 0.5), make_point(campaign.landscape, 0.6, "saddle")]
    result = make_result(campaign, 100, 105, points, ended=[0, 1, -1, -2, 0])
    result.starts.stop_loss[2, [0, 3]] = 0.25, 0.125
    result.starts.stop_anti_aligned[2, [0, 3]] = 2, 1
    passed = [Lingering(100, 1, entered, left, 0.1, 1e-5) for entered, left in ((10.0, 11.0), (1.0, 3.5))]
    result = dataclasses.replace(result, lingerings=passed)
    table = through_a_file(records.starts_table(result, ["m-a", "s-b"]))
    rows = list(records.from_table(table))
    assert [row["start_index"] for row in rows] == [100, 101, 102, 103, 104]
    assert [row["outcome"] for row in rows] == ["converged", "saddle", "unfinished", "diverged", "converged"]
    assert [row["minimum_id"] for row in rows] == ["m-a", None, None, None, "m-a"]
    assert [row["saddle_id"] for row in rows] == [None, "s-b", None, None, None]
    assert [row["anti_aligned"] for row in rows] == [1, 1, 1, None, 1]
    for k, row in enumerate(rows):
        assert row["evaluations"] == result.starts.evaluations[k]
        assert row["flow_time"] == result.starts.flow_time[k]
        assert row["loss"] == (None if k == 3 else result.starts.loss[k])
        assert row["distance"] == (None if k in (2, 3) else result.starts.distance[k])
        for name in ("Q", "R"):
            if k in (2, 3):
                assert row[name].tobytes() == getattr(result.starts, name)[k].tobytes()
            else:
                assert row[name] is None
    assert [row["lingered_on"] for row in rows] == [["s-b", "s-b"], [], [], [], []]
    assert rows[0]["lingered_for"].tolist() == [2.5, 1.0]
    assert rows[2]["stop_anti_aligned"] == [2, None, None, 1, None, None, None]
    assert rows[2]["stop_loss"] == [0.25, None, None, 0.125, None, None, None]


def test_a_start_that_converged_must_name_its_point():
    campaign = make_campaign()
    result = make_result(campaign, 0, 2, [make_point(campaign.landscape, 0.5)])
    starts = dataclasses.replace(result.starts, point=np.array([0, -1], np.int32))
    with pytest.raises(SolverError, match="start 1 of"):
        records.starts_table(dataclasses.replace(result, starts=starts), ["m-a"])


def test_a_required_value_may_not_be_missing():
    with pytest.raises(SolverError, match="column loss of table minima has no value"):
        point = make_point(make_campaign().landscape, 0.5, gradient_norm=0.0)
        row = records.point_row(point, "m-0", "label", make_campaign(), NOW)
        records.to_table("minima", [{**row, "loss": None}])
