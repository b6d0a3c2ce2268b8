"""Figures show the numbers that the statistics give: read back from what was drawn."""

import sys

import matplotlib
import matplotlib.colors
import matplotlib.figure
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer

from cluster.cli import run_command
from enumerator import plots
from enumerator.errors import InputError
from enumerator.plots.matrices import blocks
from enumerator.plots.style import COLOURS, order_colours
from enumerator.statistics import frequencies
from tests.support.stand_ins import make_campaign, make_point, make_result, new_catalogue

CAMPAIGNS = [make_campaign(students, 3) for students in (3, 4, 5, 6, 7)]


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Five widths; of 100 starts 90 - 10 k end at order 0, the rest at order 2, but two that are unfinished."""
    atlas = new_catalogue(tmp_path_factory.mktemp("plots") / "atlas")
    for k, campaign in enumerate(CAMPAIGNS):
        atlas.register(campaign, 100, "cpu")
        points = [
            make_point(campaign.landscape, 0.0, anti_aligned=0),
            make_point(campaign.landscape, 0.2, anti_aligned=2),
        ]
        ended = [0] * (90 - 10 * k) + [1] * (8 + 10 * k) + [-1] * 2
        atlas.commit_shard(make_result(campaign, 0, 100, points, ended), 0, 100)
    return atlas


ONE = {"campaign": CAMPAIGNS[0].id}


def test_bars_are_the_frequencies(atlas):
    (axes,) = plots.orders(atlas, **ONE).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "2", "unfinished"]
    (bars,) = [part for part in axes.containers if isinstance(part, BarContainer)]
    table = frequencies(atlas, by="order", **ONE)
    assert [bar.get_height() for bar in bars] == table["frequency"].to_pylist() == [0.9, 0.08, 0.02]
    segments = bars.errorbar.lines[2][0].get_segments()
    assert np.allclose(
        [segment[:, 1] for segment in segments], np.column_stack([table["exact_low"], table["exact_high"]])
    )


def test_minima_without_orders_have_no_figure_of_them_and_titles_are_not_cut_off(tmp_path, capsys):
    atlas = new_catalogue(tmp_path / "atlas")
    campaign = make_campaign(3, 3, T=0.7 * np.eye(3) + 0.3, constraint="normalized")
    atlas.register(campaign, 10, "cpu")
    atlas.commit_shard(make_result(campaign, 0, 10, [make_point(campaign.landscape, 0.2, anti_aligned=None)]), 0, 10)
    with pytest.raises(InputError, match="have no orders, as T is not diagonal"):
        plots.orders(atlas)
    assert run_command(["plot", atlas.store.address, "-o", str(tmp_path / "figures")]) == 0
    out, err = capsys.readouterr()
    assert "orders.png" not in out and "losses.png" in out
    assert f"note: no figure of orders in {tmp_path / 'figures'}" in err and err.count("\n") == 1
    for draw in (plots.flow_times, plots.accumulation):
        drawn = draw(atlas)
        canvas = FigureCanvasAgg(drawn)
        canvas.draw()
        (axes,) = drawn.axes
        box = axes.title.get_window_extent(canvas.get_renderer())
        assert box.x0 >= 0 and box.x1 <= drawn.bbox.x1 and box.y1 <= drawn.bbox.y1
        assert "T=" in axes.get_title() and "constraint=normalized" in axes.get_title()
    (axes,) = plots.flow_times(atlas).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["minimum"]
    (axes,) = plots.losses(atlas).axes
    assert "anti-aligned" not in axes.get_title() and not axes.texts


def test_levels_are_dashed_lines_with_their_orders(atlas):
    (axes,) = plots.losses(atlas, **ONE).axes
    assert sorted(line.get_xdata()[0] for line in axes.lines) == [0.0, 0.2]
    assert [text.get_text() for text in axes.texts] == ["0", "2"]


@pytest.mark.parametrize("draw", [plots.losses, plots.flow_times])
def test_histograms_hold_every_start(atlas, draw):
    """The patches are filled steps: their areas in units of a bin add up to one."""
    (axes,) = draw(atlas, **ONE).axes
    filled = [patch for patch in axes.patches if getattr(patch, "_fill", False)]
    assert sum((patch.get_data().values - patch.get_data().baseline).sum() for patch in filled) == pytest.approx(1)


def test_accumulation_ends_at_what_was_found(atlas):
    (axes,) = plots.accumulation(atlas, **ONE).axes
    assert {float(line.get_ydata()[-1]) for line in axes.lines} == {2.0}


def test_trend_has_a_point_for_each_width_and_the_reference(atlas):
    reference = frequencies(atlas, **ONE).slice(0, 1).select(["students"])
    for name in ("value", "low", "high"):
        reference = reference.append_column(name, [[0.5]])
    (axes,) = plots.trend(atlas, reference=reference, reference_name="elsewhere").axes
    points = [part.lines[0].get_ydata().tolist() for part in axes.containers]
    assert points == [[0.9], [0.8], [0.7], [0.6], [0.5], [0.5]]
    assert "elsewhere" in [text.get_text() for text in axes.get_legend().get_texts()]


def test_spectra_and_overlaps_show_what_is_stored(atlas):
    row = atlas.minima(**ONE, sort="loss").to_pylist()[1]
    drawn = plots.overlaps(atlas, row["label"])
    shown = [axes.images[0].get_array() for axes in drawn.axes if axes.images]
    assert np.array_equal(shown[0].ravel(), row["Q"]) and np.array_equal(shown[1].ravel(), row["R"])
    (axes,) = plots.spectra(atlas, **ONE).axes
    drawn_values = sorted(segment[0, 0] for part in axes.collections for segment in part.get_segments())
    stored = sorted(value for entry in atlas.minima(**ONE).to_pylist() for value in entry["hessian_spectrum"])
    assert np.allclose(drawn_values, stored)


def test_blocks_of_a_family():
    """Two anti-aligned students of five: one line in each."""
    R = 0.1 * np.ones((5, 5)) + 0.9 * np.eye(5)
    R[:2] = 0.05
    R[[0, 1], [0, 1]] = -0.7
    Q = R @ R.T
    assert blocks(Q, R) == ([2], [2])
    assert blocks(np.eye(3), np.eye(3)) == ([], [])


def test_colours_differ_in_grey_too():
    """Neighbouring orders differ in lightness, and no colour is so light that paper swallows it."""
    colours = np.array(list(order_colours(list(range(8))).values()))[:, :3]
    grey = colours @ [0.299, 0.587, 0.114]
    assert np.diff(grey).min() > 0.015 and grey.max() < 0.8


# Machado, Oliveira & Fernandes (2009), IEEE TVCG 15, 1291: severity 1.0, for linear RGB.
VISION = {
    "all cones": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
# A difference that is just noticeable, in CIELAB: Mahy, Van Eycken & Oosterlinck (1994), Color Res. Appl. 19, 105.
NOTICEABLE = 2.3


def differences(colours, vision):
    """CIELAB distances of all pairs of sRGB colours (n, 3), as seen with these cones; white is D65."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.transpose(vision), 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = np.transpose(seen @ np.transpose(to_xyz) / [0.95047, 1, 1.08883])
    f = [np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116) for t in (x, y, z)]
    lab = np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], axis=1)
    rows, columns = np.triu_indices(len(lab), 1)
    return np.linalg.norm(lab[rows] - lab[columns], axis=1)


@pytest.mark.parametrize("vision", VISION.values(), ids=VISION)
def test_colours_differ_for_the_colour_blind(vision):
    """All 14 orders of K = M = 17 noticeably. Orders up to 10, and curves, by three times that: they may lie apart.

    Orders from 11 on hold one start in 500, and lie side by side on top of a stack.
    """
    orders = np.array(list(order_colours(list(range(14))).values()))[:, :3]
    curves = np.array([matplotlib.colors.to_rgb(colour) for colour in COLOURS])
    assert differences(orders, vision).min() > NOTICEABLE
    assert differences(orders[:11], vision).min() > 3 * NOTICEABLE
    assert differences(curves, vision).min() > 3 * NOTICEABLE


def test_several_samples_are_refused(atlas):
    with pytest.raises(InputError, match=r"expected starts of one landscape, dynamics and initial law, got 5 kinds"):
        plots.losses(atlas)


def test_all_figures_from_the_command(atlas, tmp_path, capsys):
    assert (
        run_command(["plot", atlas.store.address, "-o", str(tmp_path / "out"), "--students", "3", "--kind", "svg"]) == 0
    )
    names = {line.rpartition("/")[2] for line in capsys.readouterr().out.splitlines()}
    assert {
        "losses.svg",
        "orders.svg",
        "flow-times.svg",
        "accumulation.svg",
        "spectra.svg",
        "stopped-early.svg",
    } < names
    assert names == {path.name for path in (tmp_path / "out").rglob("*.svg")}
    assert run_command(["plot", atlas.store.address, "-o", str(tmp_path / "out"), "--students", "9"]) == 2
    assert capsys.readouterr().err == "error: no starts selected: there is nothing to draw.\n"
    assert run_command(["plot", atlas.store.address, "-o", "x", "--kind", "bmp"]) == 2


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory):
    """One sample of two seeds, 100 and 50 starts: the first alone finds order 2, the second alone order 3."""
    atlas = new_catalogue(tmp_path_factory.mktemp("seeds") / "atlas")
    for seed, starts, order in ((0, 100, 2), (1, 50, 3)):
        campaign = make_campaign(3, 3, seed=seed)
        atlas.register(campaign, 100, "cpu")
        points = [make_point(campaign.landscape, 0.1 * k, anti_aligned=k) for k in (0, order)]
        atlas.commit_shard(make_result(campaign, 0, starts, points, [0] * (starts - 10) + [1] * 10), 0, starts)
    return atlas


def test_all_figures_are_of_all_campaigns_of_a_sample(two_seeds, tmp_path):
    (folder,) = {path.parent for path in plots.plot_all(two_seeds, tmp_path, "svg")}
    labels = two_seeds.minima()["label"].to_pylist()
    assert len(labels) == 3
    spectra = (folder / "spectra.svg").read_text()
    assert all(label in spectra for label in labels)
    for name in ("stopped-early", "losses", "accumulation"):
        assert "150 starts" in (folder / f"{name}.svg").read_text()


def test_early_stops_of_several_campaigns_are_counted_together(two_seeds):
    """No start was watched: each counts where it ends, at every stop."""
    ids = two_seeds.campaigns()["campaign_id"].to_pylist()
    for axes in plots.stopped_early(two_seeds, ids).axes:
        shown = {line.get_label(): set(line.get_ydata()) for line in axes.lines}
        assert shown == {"0": {130 / 150}, "2": {10 / 150}, "3": {10 / 150}}


def test_orders_that_are_never_frequent_are_left_out(tmp_path):
    """1 of 2,000 starts is below a thousandth, 2 are not."""
    atlas, campaign = new_catalogue(tmp_path / "atlas"), CAMPAIGNS[0]
    atlas.register(campaign, 2000, "cpu")
    points = [make_point(campaign.landscape, 0.1 * k, anti_aligned=k) for k in range(3)]
    atlas.commit_shard(make_result(campaign, 0, 2000, points, [0] * 1997 + [1] * 2 + [2]), 0, 2000)
    axes, _ = plots.stopped_early(atlas, campaign.id).axes
    assert [line.get_label() for line in axes.lines] == ["0", "1"]


def test_figures_leave_nothing_behind(atlas):
    matplotlib.use("agg")
    before = matplotlib.rcParams.copy()
    assert isinstance(plots.orders(atlas, **ONE), matplotlib.figure.Figure)
    assert matplotlib.rcParams == before
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
