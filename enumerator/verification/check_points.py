"""One stationary point of a catalogue, its row recomputed: what it must satisfy, and where it does not.

Numbers come from Q, R and T alone (`recompute`), symmetry from a randomly permuted copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from enumerator.minima.distinct import SYMMETRIC, teacher_automorphisms
from enumerator.points import FLAT_MINIMUM, MINIMUM, SADDLE, UNDECIDED, ZERO_LOSS, StationaryPoint
from enumerator.problem import Landscape, Tolerances
from enumerator.symmetry.canonical import canonical_form, orbit_size_log10
from enumerator.verification.recompute import (
    Recomputed,
    ball_radius,
    group_order,
    precise_gradient_norm,
    precise_loss,
    recompute,
)
from enumerator.verification.recompute_flat import flat_directions

# Over the largest squared norm of a teacher. The loss is a sum of (K + M)^2 kernels, each off by one
# rounding: 6e-15 was the largest error met at K = M = 17.
LOSS = 1e-14
# Eigenvalues of the Hessian have no unit. One is off by some roundings of the largest, 1e-14; at nearly
# collinear pairs two formulas differ by 1e-12.
EIGENVALUE = 1e-11
# A radius, relative: it follows from an eigenvalue that may be 1e-5 of the largest, off by EIGENVALUE.
RADIUS = 1e-6
# What a point repeats of its landscape.
_OF_LANDSCAPE = ("students", "teachers", "activation", "constraint", "second_layer")


class Disagreement(NamedTuple):
    """One thing that is stored otherwise than it should be; `stored` and `computed` as text."""

    table: str
    id: str
    column: str
    stored: str
    computed: str
    what: str


def wrong(table: str, row: dict[str, Any], column: str, stored: object, computed: object, what: str) -> Disagreement:
    return Disagreement(table, str(row["minimum_id"]), column, _text(stored), _text(computed), what)


def _text(value: object) -> str:
    return repr(float(value)) if isinstance(value, float | np.floating) else str(value)


def check_point(
    name: str,
    row: dict[str, Any],
    point: StationaryPoint,
    landscape: Landscape,
    tolerances: Tolerances,
    rng: np.random.Generator,
    precise: bool,
) -> Iterator[Disagreement]:
    """Disagreements of a row of table `name` with its Q, R and the T of its landscape.

    `point` is read from the row, `tolerances` are those of the campaign that found it. If `precise`,
    loss and gradient are recomputed in 50 digits too, and the symmetry is counted by a plain search.
    """
    Q, R = point.Q, point.R
    rounding = EIGENVALUE * np.abs(Q).max(initial=landscape.overlap_scale)
    if not ((np.diag(Q) > 0).all() and np.abs(Q - Q.T).max(initial=0.0) <= rounding and np.isfinite(R).all()):
        yield wrong(name, row, "Q", "", "", "is no matrix of overlaps: symmetric, with positive norms")
        return
    value = recompute(Q, R, landscape, point.second_layer_weights)
    spectrum, flat = _split_flat(value.hessian, tolerances.definite)
    all_flat = flat  # no constrained student merges with another
    if landscape.constraint == "none":
        all_flat = flat_directions(Q, R, landscape, point.second_layer_weights, tolerances.definite)
    verdict, above = _verdicts(value, point, tolerances.definite, all_flat > flat)
    yield from _check_numbers(name, row, point, value, precise)
    for column, computed in (("hessian_spectrum", spectrum), ("perpendicular_spectrum", value.perpendicular)):
        stored = row[column]
        if len(stored) != len(computed) or not np.abs(stored - computed).max(initial=0.0) <= EIGENVALUE:
            yield wrong(name, row, column, f"{len(stored)} values", f"{len(computed)} values", "recomputed")
    signs, trained = row["second_layer_weights"], landscape.second_layer == "trained"
    if (signs is not None) != trained or (
        signs is not None and (len(signs) != len(Q) or not (np.abs(signs) == 1).all())
    ):
        yield wrong(name, row, "second_layer_weights", signs, None, "+-1 for every neuron if it is trained, else none")
    same = [
        ("verdict", verdict),
        ("verdict_above", above),
        ("anti_aligned", value.anti_aligned),
        ("flat_dimension", all_flat),
        ("effective_students", len(Q)),
        *((part, getattr(landscape, part)) for part in _OF_LANDSCAPE),
    ]
    for column, computed in same:
        if row[column] != computed:
            yield wrong(name, row, column, row[column], computed, "recomputed from Q, R, T and the landscape")
    yield from _check_place(name, row, point, tolerances, value, precise)
    yield from _check_symmetry(name, row, point, rng, precise)


def _check_numbers(
    name: str, row: dict[str, Any], point: StationaryPoint, value: Recomputed, precise: bool
) -> Iterator[Disagreement]:
    """Loss, splittings and the ends of the spectra, by `value` and, if `precise`, the loss in 50 digits."""
    scale = point.landscape.overlap_scale
    numbers: list[tuple[str, float | None, float]] = [
        ("loss", value.loss, LOSS * scale),
        ("splitting_min", _finite(value.splitting), EIGENVALUE),
        ("splitting_min_perpendicular", _finite(value.alphas), EIGENVALUE),
    ]
    if len(point.Q):
        numbers += [
            ("hessian_min", value.hessian.min(), EIGENVALUE),
            ("hessian_max", value.hessian.max(), EIGENVALUE),
            ("perpendicular_min", value.perpendicular.min(), EIGENVALUE),
        ]
    if precise:
        computed = precise_loss(point.Q, point.R, point.landscape, point.second_layer_weights)
        numbers.append(("loss", computed, LOSS * scale))
    for column, computed, tolerance in numbers:
        stored = row[column]
        if (stored is None) != (computed is None) or (
            stored is not None and computed is not None and not abs(stored - computed) <= tolerance
        ):
            yield wrong(name, row, column, stored, computed, "recomputed from Q, R, T")


def _check_place(
    name: str, row: dict[str, Any], point: StationaryPoint, tolerances: Tolerances, value: Recomputed, precise: bool
) -> Iterator[Disagreement]:
    """Is it a stationary point, in its table, in the span of the teachers, with the right ball around it?"""
    norms = [value.gradient_norm, row["gradient_norm"]]
    if precise and len(point.Q) and point.landscape.constraint == "none":
        norms.append(precise_gradient_norm(point.Q, point.R, point.landscape, point.second_layer_weights))
    # The lift of R divides by the least length of the teachers in their span: 10^5 where two are nearly the same.
    shortest = np.linalg.svd(point.landscape.teacher_factor, compute_uv=False).min()
    rounding = 4 * np.finfo(float).eps * np.abs(point.R).max(initial=0.0) * len(point.R) / shortest
    bound = tolerances.stationary * point.landscape.teacher_scale + rounding
    if not max(norms) <= bound:
        yield wrong(name, row, "gradient_norm", row["gradient_norm"], max(norms), "not stationary")
    if (row["verdict"] == SADDLE) != (name == "saddles"):
        yield wrong(name, row, "verdict", row["verdict"], "", f"does not belong into {name}")
    off_span = np.abs(point.Q - point.W @ point.W.T).max(initial=0.0)
    missed = point.landscape.equations.manifold.deviation(point.Q)
    if not missed <= EIGENVALUE:
        yield wrong(name, row, "Q", missed, 0.0, f"is not that of {point.landscape.constraint} students")
    if not off_span <= EIGENVALUE * np.abs(point.Q).max(initial=point.landscape.overlap_scale):
        yield wrong(name, row, "Q", off_span, 0.0, "Q is not R T^+ R^T")
    radius = 0.0
    whole = len(point.Q) == point.landscape.students > 0 and not point.is_degenerate
    if whole and {row["verdict"], row["verdict_above"]} <= {MINIMUM, FLAT_MINIMUM}:
        smallest = min(value.hessian.min(), value.perpendicular.min())
        radius = ball_radius(float(smallest), point.Q, point.landscape, value)
    if not abs(radius - row["radius"]) <= RADIUS * max(radius, row["radius"]):
        yield wrong(name, row, "radius", row["radius"], radius, "recomputed from the spectra and norms")


def _split_flat(spectrum: np.ndarray, definite: float) -> tuple[np.ndarray, int]:
    """The spectrum without its flat directions, and their number."""
    flat = np.abs(spectrum) <= definite * spectrum.max(initial=0.0)
    return spectrum[~flat], int(flat.sum())


def _finite(values: np.ndarray) -> float | None:
    """The lowest of these, None if there is none or it is infinite."""
    lowest = values.min(initial=np.inf)
    return float(lowest) if np.isfinite(lowest) else None


def _verdicts(value: Recomputed, point: StationaryPoint, definite: float, has_more_flat: bool) -> tuple[str, str]:
    """Second-order verdicts at d = r and at d > r, from signs alone; have more students more flat directions?"""
    largest = value.hessian.max(initial=0.0)
    threshold = definite * largest
    order = [MINIMUM, FLAT_MINIMUM, UNDECIDED, SADDLE]

    def sign(lowest: float, threshold: float, positive: str) -> str:
        return positive if lowest > threshold else SADDLE if lowest < -threshold else UNDECIDED

    own = MINIMUM if point.second_layer_weights is None else FLAT_MINIMUM  # scale moves between the layers
    inside = sign(value.hessian.min(), threshold, own) if len(point.Q) else own
    outside = sign(value.perpendicular.min(), threshold, own) if len(point.Q) else own
    if inside == UNDECIDED and value.loss <= ZERO_LOSS * point.landscape.overlap_scale:
        inside = FLAT_MINIMUM  # to the digits there are: no loss is lower
    if len(point.Q) < point.landscape.students:
        hidden = hidden_above = FLAT_MINIMUM if has_more_flat else MINIMUM
        if value.loss > ZERO_LOSS * point.landscape.overlap_scale:
            if not point.landscape.g.is_homogeneous:  # what else is left out is not decided at a positive loss
                return max(inside, UNDECIDED, key=order.index), max(inside, outside, UNDECIDED, key=order.index)
            # Flat if copies of one neuron at least stay together; dead neurons never stay.
            hidden = sign(value.splitting.max(initial=-np.inf), definite, FLAT_MINIMUM)
            lowest = np.minimum(value.splitting, value.alphas)
            if point.second_layer_weights is not None and _no_neuron_ascends(point, point.second_layer_weights):
                return max(inside, FLAT_MINIMUM, key=order.index), max(inside, outside, FLAT_MINIMUM, key=order.index)
            hidden_above = sign(lowest.max(initial=-np.inf), definite, FLAT_MINIMUM)
        inside = max(inside, hidden, key=order.index)
        outside = max(outside, hidden_above, key=order.index)
    return inside, max(inside, outside, key=order.index)


def _no_neuron_ascends(point: StationaryPoint, signs: np.ndarray) -> bool:
    """Whether no small neuron of positive weight, along any of 4,000 directions, raises the loss: negative ones stay.

    A search of its own, at random and about the students; what the verdict rests on is a descent from fewer directions.
    """
    rng = np.random.default_rng(0)
    W, V = point.W, point.landscape.teacher_factor
    near = rng.normal(size=(2000, W.shape[1]))
    near = W[rng.integers(len(W), size=2000)] + 0.1 * near if len(W) else near
    directions = np.concatenate([near, rng.normal(size=(2000, W.shape[1]))])
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    others, weights = np.concatenate([W, V]), np.concatenate([signs, -np.ones(len(V))])
    lengths, (above, below) = np.linalg.norm(others, axis=1), point.landscape.g.slopes
    along = directions @ others.T
    t = np.arccos(np.clip(along / np.where(lengths > 0, lengths, 1.0), -1, 1))
    arc = (lengths * np.sin(t) + (np.pi - t) * along) / (2 * np.pi)
    rates = ((above - below) ** 2 * arc + above * below * along) @ weights
    return bool(rates.max() <= 1e-9 * point.landscape.teacher_scale)


def _check_symmetry(
    name: str, row: dict[str, Any], point: StationaryPoint, rng: np.random.Generator, precise: bool
) -> Iterator[Disagreement]:
    """Isotropy group and orbit size from a shuffled copy; the stored order must be the canonical one."""
    Q, R, T = point.coloured, point.R, point.landscape.teacher_classes
    gap = SYMMETRIC * point.landscape.overlap_scale
    shuffled = rng.permutation(len(Q))
    form = canonical_form(Q[np.ix_(shuffled, shuffled)], R[shuffled], T, gap)
    if row["isotropy"] != form.isotropy:
        yield wrong(name, row, "isotropy", row["isotropy"], form.isotropy, "from a shuffled copy")
    students = shuffled[form.students]
    moved = max(
        np.abs(Q[np.ix_(students, students)] - Q).max(initial=0.0),
        np.abs(R[students][:, form.teachers] - R).max(initial=0.0),
    )
    if not moved <= 10 * gap:
        yield wrong(name, row, "R", moved, 0.0, "rows or columns are not in canonical order")
    size = None
    if not point.is_degenerate:
        # The search is too slow for every point; the labelling is what the catalogue was built with.
        teachers, stabiliser = teacher_automorphisms(point.landscape), form.stabiliser_order
        if precise:
            teachers, stabiliser = group_order(Q[:0, :0], R[:0], T, gap), group_order(Q, R, T, gap)
        size = orbit_size_log10(len(Q), teachers, stabiliser)
    stored = row["orbit_size_log10"]
    if (size is None) != (stored is None) or (size is not None and not abs(stored - size) <= 1e-9):
        yield wrong(name, row, "orbit_size_log10", stored, size, "from a shuffled copy")
