"""What a notebook shows of the objects that a user meets: right numbers, escaped text, no colours of its own."""

import re
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pyarrow as pa
import pytest

import enumerator as en
from enumerator.enumeration import tabulate
from tests.support.stand_ins import make_atlas, make_campaign, make_point, make_result

# A table in a notebook of this many rows can still be read at a glance.
MOST_ROWS = 15


def parsed(shown) -> ET.Element:
    """What an object shows, which must be well-formed, and in the colours of the page."""
    html = shown._repr_html_()
    assert not re.search(r"style|color|background|bgcolor|<script|class=", html)
    return ET.fromstring(html)


def facts(element: ET.Element) -> dict[str, str]:
    """The first table: names and values."""
    rows = element.findall("table")[0].findall("tbody/tr")
    return {row.find("th").text: row.find("td").text for row in rows}


def cells(table: ET.Element) -> list[list[str | None]]:
    return [[cell.text for cell in row.findall("td")] for row in table.findall("tbody/tr")]


def test_a_catalogue_shows_its_counts(tmp_path):
    atlas = make_atlas(tmp_path / "atlas")
    shown = parsed(atlas)
    assert str(tmp_path / "atlas") in shown.find("p/strong").text
    assert facts(shown) == {"landscapes": "1", "campaigns": "1", "starts": "40", "minima": "3", "saddles": "1"}


def test_a_catalogue_shows_its_counts_without_a_look_into_its_files(tmp_path):
    atlas = make_atlas(tmp_path / "atlas")
    for file in (tmp_path / "atlas").rglob("*.parquet"):
        file.unlink()
    assert facts(parsed(atlas))["starts"] == "40"


@pytest.mark.parametrize("damage", ["gone", "a log cut short", "a log of something else", "a table gone"])
def test_a_damaged_catalogue_shows_one_line(tmp_path, damage):
    atlas = make_atlas(tmp_path / "atlas")
    log = tmp_path / "atlas" / "starts" / "_delta_log"
    if damage == "gone":
        shutil.rmtree(tmp_path / "atlas")
    elif damage == "a log cut short":
        max(log.glob("*.json")).write_text("")
    elif damage == "a log of something else":
        max(log.glob("*.json")).write_bytes(b"\xff{]")
    else:
        shutil.rmtree(log.parent)
    shown = parsed(atlas)
    title, line = (part.text or part.find("strong").text for part in shown)
    assert title == repr(atlas) and "cannot read" in line and "\n" not in line
    assert not shown.findall("table")


def test_text_is_escaped(tmp_path):
    folder = tmp_path / "<b>atlas & co"
    assert parsed(make_atlas(folder)).find("p/strong").text == f"Catalogue({str(folder)!r})"
    campaign = make_campaign(3, 3)
    found = tabulate(make_result(campaign, 0, 4, [make_point(campaign.landscape, 0.25)]))
    hostile = "<script>alert(1)</script>&amp;"
    labels = pa.array([hostile])
    place = found.minima.schema.get_field_index("label")
    named = en.Enumeration(found.result, found.minima.set_column(place, "label", labels), found.saddles, found.starts)
    assert cells(parsed(named).findall("table")[1])[0][0] == hostile
    assert facts(parsed(named.minimum(hostile)))["label"] == hostile


def test_a_landscape_shows_what_it_is():
    assert facts(parsed(en.Landscape(9, 8))) == {
        "students K": "9",
        "teachers M": "8",
        "activation": "relu",
        "T": "orthonormal teachers",
        "constraint": "none",
        "second layer": "fixed",
        "id": en.Landscape(9, 8).id,
    }
    T = np.array([[1.0, 0.5], [0.5, 2.0]])
    given = en.Landscape(2, 2, T=T, activation="leaky_relu", activation_slope=0.25, second_layer="trained")
    told = facts(parsed(given))
    assert (told["activation"], told["T"], told["second layer"]) == (
        "leaky_relu, slope 0.25",
        "given, of rank 2",
        "trained",
    )
    table = parsed(given).findall("table")[1]
    assert table.find("caption").text == "T (2, 2)" and cells(table) == [["1", "0.5"], ["0.5", "2"]]


def test_a_matrix_too_large_to_read_shows_its_shape_alone():
    shown = parsed(en.Landscape(30, 30, T=np.eye(30) + 0.1))
    assert len(shown.findall("table")) == 1 and shown.findall("p")[-1].text == "T (30, 30)"


def found_with(minima: int) -> en.Enumeration:
    """Minima at losses 0.001, 0.002, ..., of which the k-th was hit k + 1 times; one start in none."""
    campaign = make_campaign(3, 3)
    points = [make_point(campaign.landscape, (k + 1) / 1000) for k in range(minima)]
    ended = [k for k in range(minima) for _ in range(k + 1)] + [-1]
    return tabulate(make_result(campaign, 0, len(ended), points, ended))


def test_what_was_found_shows_its_counts_and_its_minima():
    found = found_with(3)
    shown = parsed(found)
    assert shown.find("p/strong").text == "Enumeration relu.3.3.flow.d10.s0"
    assert facts(shown) == {
        "starts": "7",
        "starts, converged": "6",
        "starts, unfinished": "1",
        "minima": "3",
        "saddles": "0",
    }
    table = shown.findall("table")[1]
    assert [head.text for head in table.findall("thead/tr/th")] == ["label", "loss", "order", "hits", "frequency"]
    assert cells(table) == [
        ["relu.3.3.00100000", "0.001", "1", "1", "0.1429"],
        ["relu.3.3.00200000", "0.002", "1", "2", "0.2857"],
        ["relu.3.3.00300000", "0.003", "1", "3", "0.4286"],
    ]


def test_of_many_minima_those_hit_most_often_are_shown_by_loss():
    shown = parsed(found_with(20))
    losses = [float(row[1]) for row in cells(shown.findall("table")[1])]
    assert losses == pytest.approx([k / 1000 for k in range(6, 21)]) and len(losses) == MOST_ROWS
    assert shown.findall("p")[-1].text == "The 15 of 20 minima that were hit most often."


def test_nothing_found_shows_counts_alone():
    shown = parsed(found_with(0))
    assert len(shown.findall("table")) == 1 and facts(shown)["minima"] == "0"


def test_a_minimum_shows_its_columns_and_its_overlaps():
    found = found_with(2)
    minimum = found.minimum(found.minima["label"][1].as_py())
    shown = parsed(minimum)
    told = facts(shown)
    assert shown.find("p/strong").text == repr(minimum)
    assert (told["loss"], told["hits"], told["starts"], told["isotropy"]) == ("0.002", "2", "4", "S2 x S1")
    assert [table.findtext("caption") for table in shown.findall("table")[1:]] == ["Q (3, 3)", "R (3, 3)"]
    assert cells(shown.findall("table")[1])[0][0] == f"{minimum.Q[0, 0]:.3g}"


def test_a_network_without_students_shows_their_absence():
    campaign = make_campaign(3, 3)
    none = {"effective_students": 0, "W": np.zeros((0, 3)), "Q": np.zeros((0, 0)), "R": np.zeros((0, 3))}
    found = tabulate(make_result(campaign, 0, 4, [make_point(campaign.landscape, 0.25, **none)]))
    shown = parsed(found.minimum(found.minima["label"][0].as_py()))
    assert [note.text for note in shown.findall("p")[1:]] == ["Q (0, 0)", "R (0, 0)"]
