"""Names of minima: readable, unique, and the same on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enumerator.catalogue.labels import point_id, point_label
from enumerator.problem import Landscape

PLAIN = Landscape(17, 17)


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (0.02476642853, "relu.17.17.0247664"),
        (0.25, "relu.17.17.250000"),
        (0.0, "relu.17.17.0"),
        (-0.0, "relu.17.17.0"),
        (3e-16, "relu.17.17.0"),
        (-2e-17, "relu.17.17.0"),
        (1.23456789e-5, "relu.17.17.0000123457"),
        (0.09999999996, "relu.17.17.100000"),
        (0.99999999996, "relu.17.17.1p00000"),
        (3.256171234, "relu.17.17.3p25617"),
        (1234567.89, "relu.17.17.1234567p9"),
    ],
)
def test_label_shows_six_digits_of_the_loss(loss, label):
    assert point_label(PLAIN, loss, False, set()) == label
    assert point_label(PLAIN, loss, True, set()) == label + "s"


@pytest.mark.parametrize(
    "landscape",
    [
        Landscape(17, 17, T=2 * np.eye(17)),
        Landscape(17, 17, activation="leaky_relu", activation_slope=0.5),
        Landscape(17, 17, constraint="normalized"),
        Landscape(17, 17, second_layer="trained"),
    ],
    ids=["T", "slope", "constraint", "second_layer"],
)
def test_label_names_a_landscape_that_is_not_plain(landscape):
    label = point_label(landscape, 0.25, False, set())
    assert label == f"{landscape.activation}.17.17.{landscape.id[3:9]}.250000"


def test_erf_is_plain():
    assert point_label(Landscape(2, 3, activation="erf"), 0.25, False, set()) == "erf.2.3.250000"


def test_colliding_losses_get_more_digits_then_a_counter():
    taken: set[str] = set()
    labels = []
    for loss in (0.02476642853, 0.02476642999, 0.02476642999, 0.02476642999 + 1e-18, 0.0, 0.0):
        labels.append(point_label(PLAIN, loss, False, taken))
        taken.add(labels[-1])
    assert labels[:2] == ["relu.17.17.0247664", "relu.17.17.02476643"]
    assert labels[4:] == ["relu.17.17.0", "relu.17.17.0-2"]
    assert len(set(labels)) == len(labels)


@given(st.lists(st.sampled_from([0.0, 1e-17, 0.1, 0.1 + 1e-9, 0.1 + 1e-14, 2.5]) | st.floats(0, 10), max_size=30))
def test_names_are_unique_whatever_the_losses(losses):
    taken: set[str] = set()
    for loss in losses:
        for is_saddle in (False, True):
            for name in (point_id(PLAIN, loss, is_saddle, taken), point_label(PLAIN, loss, is_saddle, taken)):
                assert name not in taken
                taken.add(name)


def test_ids_depend_on_ten_digits_of_the_loss_and_on_the_landscape():
    name = point_id(PLAIN, 0.02476642853123, False, set())
    # Fixed for ever: a change of this value renames every minimum of every catalogue.
    assert name == "m-a89b16b12f5572fa"
    assert point_id(PLAIN, 0.02476642853124, False, set()) == name
    assert point_id(PLAIN, 0.024766428541, False, set()) != name
    assert point_id(Landscape(17, 18), 0.02476642853123, False, set()) != name
    assert point_id(PLAIN, 0.02476642853123, True, set()) == "s-" + name[2:]
    assert point_id(PLAIN, 0.02476642853123, False, {name}) not in (name, "")
