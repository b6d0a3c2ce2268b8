"""The package as a user of Python meets it: what it lists, rows as objects with arrays, errors of one line."""

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

import numpy as np
import pytest

import enumerator as en
from enumerator import statistics
from enumerator.catalogue.records import point_row
from enumerator.loss.population import exact_loss
from enumerator.problem import Campaign
from tests.support.serving import serving
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue


def test_a_fresh_session_lists_what_there_is_and_the_version():
    program = (
        "import enumerator as en; import sys; print(*dir(en)); "
        "assert 'jax' not in sys.modules and 'duckdb' not in sys.modules; print(en.__version__)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    listed, version = told.stdout.splitlines()
    assert {*en.__all__, "__version__"} <= set(listed.split())
    assert not {"os", "sys", "Any", "import_module"} & set(listed.split())
    assert version == metadata.version("enumerator")
    assert all(getattr(en, name) is not None for name in dir(en))


@pytest.fixture(scope="module")
def found() -> en.Enumeration:
    return en.enumerate_minima(en.Landscape(8, 8), starts=64, law=en.InitialLaw(10))


def test_what_was_found_is_told_in_a_line(found):
    assert repr(found) == "Enumeration(relu.8.8.flow.d10.s0, starts=64, minima=2, saddles=0)"


def is_a_network_of_its_overlaps(minimum: en.Minimum) -> None:
    """The overlaps and the loss of its network, by products of its weights and by Monte Carlo, are those stored."""
    K, M, network = minimum["effective_students"], minimum["teachers"], minimum.network
    assert (minimum.Q.shape, minimum.R.shape, minimum.T.shape) == ((K, K), (K, M), (M, M))
    D = network.W.shape[1]
    assert (minimum.W.shape, network.V.shape, network.second_layer.shape) == ((K, D), (M, D), (K,))
    for product, overlaps in (
        (network.W @ network.W.T, minimum.Q),
        (network.W @ network.V.T, minimum.R),
        (network.V @ network.V.T, minimum.T),
    ):
        np.testing.assert_allclose(product, overlaps, atol=1e-10)
    # One dimension more than it needs, which must count for nothing.
    x = np.random.default_rng(1).standard_normal((100_000, D + 1))
    squares = 0.5 * (network(x) - network.teacher(x)) ** 2
    assert abs(squares.mean() - minimum["loss"]) <= 5 * squares.std() / np.sqrt(len(x)) + 1e-12
    weights = network.weights(D + 3)
    assert weights.shape == (K, D + 3)
    np.testing.assert_allclose(weights @ weights.T / (D + 3), minimum.Q, atol=1e-10)


def test_a_minimum_is_its_row_and_its_network(found):
    row = found.minima.to_pylist()[1]
    assert row["loss"] > 0.01
    minimum = found.minimum(row["label"])
    assert minimum == row and minimum["label"] == row["label"]
    assert repr(minimum) == f"Minimum('{row['label']}', loss {row['loss']:.9g})"
    np.testing.assert_array_equal(minimum.Q.ravel(), row["Q"])
    is_a_network_of_its_overlaps(minimum)
    with pytest.raises(en.InputError, match=f"no minimum 'relu' .*nearest: .*{row['label']}"):
        found.minimum("relu")


@pytest.mark.parametrize(
    "landscape",
    [
        en.Landscape(3, 3, T=np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]])),
        en.Landscape(3, 2, T=np.ones((2, 2))),
        en.Landscape(3, 2, activation="erf"),
        en.Landscape(3, 3, activation="leaky_relu", activation_slope=0.3),
        en.Landscape(4, 3, constraint="orthonormalized"),
        en.Landscape(3, 3, second_layer="trained"),
    ],
    ids=["general T", "rank 1", "erf", "leaky", "orthonormalized", "second layer"],
)
def test_networks_of_every_landscape(landscape):
    """Of points with any weights, also outside the span of the teachers where there may be such."""
    point = make_point(landscape, 0.0)
    V, layer = landscape.teacher_factor, None
    if landscape.constraint != "none":
        W = np.hstack([point.W, np.random.default_rng(2).standard_normal((landscape.students, 2))])
        point = dataclasses.replace(point, W=W, Q=W @ W.T)
    if landscape.second_layer == "trained":
        layer = np.array([1.0, -1.0, 1.0])
        point = dataclasses.replace(point, second_layer_weights=layer)
    loss = float(exact_loss(landscape.g, point.W, V, layer))
    row = point_row(dataclasses.replace(point, loss=loss), "m-0", "x", Campaign(landscape), datetime.now(UTC))
    is_a_network_of_its_overlaps(en.Minimum(row, landscape))


def test_a_row_of_any_table_becomes_an_object(found):
    table = found.minima
    whole = found.minimum(table["label"][1].as_py())
    rows = [table.slice(1, 1), table.to_batches()[0].slice(1, 1), table.to_pylist()[1], table.to_pandas().iloc[1]]
    for row in rows:
        minimum = en.Minimum(row)
        np.testing.assert_array_equal(minimum.Q, whole.Q)
        np.testing.assert_array_equal(minimum.network.W, whole.W)
    for row, message in (
        (table, "a table of one row, got 2"),
        (3, "expected a row of minima or saddles, a mapping"),
        ({"label": "x"}, "without 'landscape_id'"),
    ):
        with pytest.raises(en.InputError, match=message):
            en.Minimum(row)


def test_a_row_that_does_not_tell_its_teachers_asks_for_the_landscape():
    landscape = en.Landscape(2, 2, T=2 * np.eye(2))
    row = point_row(make_point(landscape, 0.1), "m-0", "x", Campaign(landscape), datetime.now(UTC))
    minimum = en.Minimum(row)
    assert minimum.R.shape == (2, 2)
    with pytest.raises(en.InputError, match=rf"pass its landscape, as in Minimum\(row, .*'{landscape.id}'"):
        minimum.network  # noqa: B018
    with pytest.raises(en.InputError, match="is a point of"):
        en.Minimum(row, en.Landscape(2, 2)).network  # noqa: B018
    np.testing.assert_allclose(en.Minimum(row, landscape).T, 2 * np.eye(2))


def test_a_network_needs_its_dimensions(found):
    network = found.minimum(found.minima["label"][0].as_py()).network
    for call in (lambda: network(np.zeros(5)), lambda: network.teacher(1.0), lambda: network.weights(5)):
        with pytest.raises(en.InputError, match="at least 8 dimensions"):
            call()
    assert network(np.zeros(8)).shape == ()


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    atlas = new_catalogue(tmp_path_factory.mktemp("interface") / "atlas")
    campaign = make_campaign(3, 2, T=np.array([[1.0, 0.5], [0.5, 2.0]]))
    atlas.register(campaign, 10, "cpu")
    points = [make_point(campaign.landscape, 0.25), make_point(campaign.landscape, 0.5, "saddle")]
    atlas.commit_shard(make_result(campaign, 0, 10, points, [0] * 5 + [1] * 5), 0, 10)
    return atlas


def test_a_catalogue_and_a_service_give_the_same_object(atlas):
    landscape = make_campaign(3, 2, T=np.array([[1.0, 0.5], [0.5, 2.0]])).landscape
    with serving(atlas.store.address, "--readers", "1") as service:
        for source in (atlas, en.connect(service.url)):
            for label in (atlas.minima()["label"][0].as_py(), atlas.saddles()["label"][0].as_py()):
                minimum = source.minimum(label)
                assert minimum["label"] == label and minimum.landscape == landscape
                np.testing.assert_allclose(minimum.network.W @ minimum.network.V.T, minimum.R, atol=1e-10)
                assert minimum.Q.shape == (3, 3)
            assert source.landscape(landscape.id) == landscape
            with pytest.raises(en.InputError, match="no landscape 'ls-0'"):
                source.landscape("ls-0")


PAIR = en.Landscape(2, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda atlas: en.enumerate_minima("x"), r"`landscape` must be made by enumerator.Landscape\(...\), got 'x'"),
        (lambda atlas: en.enumerate_minima(PAIR, starts="a"), "`starts` must be a whole number >= 1, got 'a'"),
        (lambda atlas: en.enumerate_minima(PAIR, starts=0), "`starts` must be a whole number >= 1, got 0"),
        (lambda atlas: en.enumerate_minima(PAIR, starts=2.5), "`starts` must be a whole number >= 1, got 2.5"),
        (lambda atlas: en.enumerate_minima(PAIR, dynamics=3), "`dynamics` must be one of gradient-flow, "),
        (lambda atlas: en.enumerate_minima(PAIR, law=""), r"`law` must be made by enumerator.InitialLaw\(...\)"),
        (lambda atlas: en.enumerate_minima(PAIR, progress=3), "`progress` must be a function"),
        (lambda atlas: en.Campaign(PAIR, "newton"), r"`dynamics` must be made by enumerator.Dynamics\(...\)"),
        (lambda atlas: en.Campaign(PAIR, tolerances={}), r"`tolerances` must be made by enumerator.Tolerances\(...\)"),
        (lambda atlas: en.InitialLaw(Q="x", R="y"), "`Q` must hold real numbers"),
        (lambda atlas: en.InitialLaw(Q=[[1, 2], [3]], R=[[1]]), "`Q` must be an array: its rows"),
        (lambda atlas: en.Landscape(2, 2, T=[[1, 2], [3]]), "`T` must be an array: its rows"),
        (lambda atlas: en.connect(3), "`url` must be a string, got 3"),
        (lambda atlas: en.connect("http://127.0.0.1:9", timeout="x"), "`timeout` must be a positive"),
        (lambda atlas: atlas.minima(activation=3), "`activation` must be one of relu, leaky_relu, erf, got 3"),
        (lambda atlas: atlas.minima(landscape=3), "`landscape` must be a string, got 3"),
        (lambda atlas: atlas.minima(dynamics=["newton"]), "`dynamics` must be one of"),
        (lambda atlas: atlas.minima(where=3), "`where` must be a string, got 3"),
        (lambda atlas: atlas.minima(columns=3), "`columns` takes names of columns"),
        (lambda atlas: atlas.minima(sort=[3]), "`sort` takes names of columns"),
        (lambda atlas: atlas.minimum(3), "`minimum` must be a string, got 3"),
        (lambda atlas: atlas.sql(3), "expected one SELECT statement, got 3"),
        (lambda atlas: statistics.frequencies(atlas, campaign=3), "`campaign` must be the name or the id"),
        (lambda atlas: statistics.frequencies(atlas, where=3), "`where` must be a string"),
        (lambda atlas: statistics.frequencies(atlas, confidence="x"), "`confidence` must lie between 0 and 1"),
        (lambda atlas: statistics.compare(atlas, campaigns=3), "`campaign` must be the name or the id"),
    ],
)
def test_what_cannot_be_is_one_line(atlas, call, message):
    with pytest.raises(en.InputError, match=message) as caught:
        call(atlas)
    assert "\n" not in str(caught.value)
