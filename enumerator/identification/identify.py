"""Which minimum are given weights or overlaps at, or near, and where does the flow take them?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from enumerator.catalogue.catalogue import Catalogue
from enumerator.catalogue.point_table import KnownPoint
from enumerator.catalogue.records import OUTCOMES, from_table, landscape_from_row
from enumerator.errors import InputError
from enumerator.follow import check_solvable
from enumerator.identification.given_network import HELD, REDUCED, Given, given_network
from enumerator.identification.nearest import Nearest, nearest_point
from enumerator.lanes.solve import solve_starts
from enumerator.loss.overlaps import FEASIBLE
from enumerator.loss.population import exact_loss
from enumerator.minima.distinct import match_points
from enumerator.points import Student
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.process_checks import check_jax
from enumerator.storage.sql import quoted

Matrix = NDArray[np.float64]

# Teacher overlaps agree with those of a landscape within this, over the largest: they come out of a product of weights
# with up to a million dimensions, in single precision maybe, and are in double precision afterwards.
TEACHERS_AGREE = 1e-5
# Another reading of the arrays fits better if its distance is less than this part of that found, and that found is
# farther than this over the norm of the teachers: a network at a minimum in one reading is nowhere near in another.
_BETTER, _FAR = 0.5, 0.01


@dataclass(frozen=True)
class Identification:
    """How a network was read, and what it is: the nearest known point, and that in which the gradient flow ends.

    Attributes:
        students: K, the number of students.
        teachers: M, the number of teachers.
        dimension: d, the columns of the weights; None for overlaps.
        teacher: `orthonormal` or `given`.
        units: The network that holds these weights: `f(x) = sum g(w.x/sqrt d)`, or `f(x) = sum g(w.x)` for reduced
            ones; `overlaps` where these were given.
        landscape_id: The landscape that the network belongs to.
        rounding: The part of an overlap that counts as rounding of the numbers given.
        loss: Population loss of the network.
        nearest: Label of the nearest minimum or saddle; None if the catalogue has none of this landscape.
        distance: Frobenius distance, in reduced weights, from the nearest copy of `nearest` by permutations of
            students and of teachers.
        proven: Whether `distance` is the least over all copies of all points, or else an upper bound.
        inside: Whether the network is proven to flow to `nearest`. With a trained second layer no distance alone
            proves it.
        outcome: What becomes of the network under the gradient flow, as in table `starts`.
        reached: Label of the point in which the flow ends; None if the catalogue does not have it.
        reached_loss: Loss at the end of the flow.
        reached_order: Number of anti-aligned students there; None where it is not defined.
        hint: Another reading of the arrays that fits the catalogue better; None if there is none.
    """

    students: int
    teachers: int
    dimension: int | None
    teacher: str
    units: str
    landscape_id: str
    rounding: float
    loss: float
    nearest: str | None
    distance: float | None
    proven: bool
    inside: bool
    outcome: str
    reached: str | None
    reached_loss: float
    reached_order: int | None
    hint: str | None


def identify(
    catalogue: Catalogue | str | Path,
    W: Any = None,
    V: Any = None,
    Q: Any = None,
    R: Any = None,
    T: Any = None,
    *,
    landscape: Landscape | str | None = None,
    students: int | None = None,
    teachers: int | None = None,
    reduced: bool = False,
) -> Identification:
    """The known point nearest to a network, and that in which the gradient flow from there ends.

    Give weights W, with V unless the teachers are sqrt d times the first M unit vectors. Or give overlaps Q and R, with
    T unless the teachers are orthonormal. Say which landscape is meant by `landscape`, or by `teachers`; or by
    neither, if the arrays tell which of the catalogue it is. A second layer that is trained is taken to be ones.

    Args:
        catalogue: A catalogue, or its place.
        W: Weights (K, d) of the students, as in f(x) = sum_k g(w_k.x / sqrt d).
        V: Weights (M, d) of the teachers, in the same units.
        Q: Overlaps (K, K) of the students with each other.
        R: Overlaps (K, M) of the students with the teachers.
        T: Overlaps (M, M) of the teachers.
        landscape: The landscape, or its id in the catalogue.
        students: K, by default the number of rows given. Goes with `teachers`.
        teachers: M, for the landscape with so many orthonormal teachers, and all else by default.
        reduced: Whether W and V are divided by sqrt d already.

    Returns:
        How the network was read, the nearest point with its distance, and where the flow ends.

    Raises:
        InputError: For what is no network, for overlaps that no weights have, and where several landscapes fit.

    Examples:
        >>> atlas = en.Catalogue("atlas")
        >>> W = atlas.minimum("relu.7.7.0232027").network.weights(20)  # a network in 20 dimensions,
        >>> W = W + 0.01 * np.random.default_rng(0).standard_normal(W.shape)  # somewhat displaced
        >>> told = en.identify(atlas, W=W, teachers=7)
        >>> told.nearest, round(told.distance, 4), told.reached
        ('relu.7.7.0232027', 0.0257, 'relu.7.7.0232027')
    """
    check_jax()
    atlas = catalogue if isinstance(catalogue, Catalogue) else Catalogue(str(catalogue))
    if landscape is not None and (students is not None or teachers is not None):
        raise InputError("give `landscape`, or `students` and `teachers`, not both.")
    if students is not None and teachers is None:
        raise InputError("`students` goes with `teachers`: give both, or neither.")
    if isinstance(landscape, str):
        landscape = _landscape_named(atlas, landscape)

    def landscape_of(network: Given) -> Landscape:
        wanted = landscape
        if teachers is not None:
            wanted = Landscape(network.students if students is None else students, teachers)
        return _fitting(network, wanted or _landscape_like(atlas, network))

    network = given_network(W, V, Q, R, T, reduced)
    try:
        wanted = landscape_of(network)
    except InputError as error:
        hint = _better_reading(atlas, W, V, reduced, landscape_of, np.inf)
        raise error if hint is None else InputError(f"{error} {hint}") from None
    weights, known = network.weights_in(wanted), _known(atlas, wanted)
    near = _nearest(weights, known, wanted)
    taken = near.distance / wanted.teacher_scale if near.position >= 0 else np.inf if V is not None else 1 / _BETTER
    hint = None if taken <= _FAR else _better_reading(atlas, W, V, reduced, landscape_of, taken)
    return _identified(network, wanted, weights, known, near, hint)


def _identified(
    network: Given, landscape: Landscape, weights: Matrix, known: list[KnownPoint], near: Nearest, hint: str | None
) -> Identification:
    """All that is told; follows the flow from the weights (K, r + K), unless it is proven where it ends."""
    V, entry = landscape.teacher_factor, known[near.position] if near.position >= 0 else None
    inside = entry is not None and landscape.second_layer == "fixed" and near.distance < entry.point.radius
    end = _end_in(entry) if entry is not None and inside else _end_of_flow(landscape, weights, known)
    return Identification(
        students=landscape.students,
        teachers=landscape.teachers,
        dimension=network.dimension,
        teacher="orthonormal" if landscape.is_orthonormal else "given",
        units=network.units,
        landscape_id=landscape.id,
        rounding=network.rounding,
        loss=exact_loss(landscape.g, weights, V),
        nearest=None if entry is None else entry.label,
        distance=None if entry is None else near.distance,
        proven=near.proven,
        inside=inside,
        outcome=end.outcome,
        reached=end.label,
        reached_loss=end.loss,
        reached_order=end.order,
        hint=hint,
    )


class _End(NamedTuple):
    """Where a flow ends: its outcome, the label of the point if the catalogue has it, and the loss and order there."""

    outcome: str
    label: str | None
    loss: float
    order: int | None


def _end_in(entry: KnownPoint) -> _End:
    """The end of a flow from inside the ball of a minimum, which nothing needs to follow."""
    return _End("converged", entry.label, entry.point.loss, entry.point.anti_aligned)


def _end_of_flow(landscape: Landscape, weights: Matrix, known: list[KnownPoint]) -> _End:
    """Follows the flow from weights (K, r + K). Raises InputError where this version cannot."""
    R = weights[:, : landscape.teacher_rank] @ landscape.teacher_factor.T
    campaign = Campaign(landscape, law=InitialLaw(Q=(weights @ weights.T)[None], R=R[None]))
    check_solvable(campaign)
    result = solve_starts(campaign, np.array([0]))
    outcome = OUTCOMES[result.starts.outcome[0]]
    if (end := result.starts.point[0]) < 0:
        return _End(outcome, None, float(result.starts.loss[0]), None)
    reached = result.points[end]
    (position,) = match_points([reached], [entry.point for entry in known])
    return _End(outcome, known[position].label if position >= 0 else None, reached.loss, reached.anti_aligned)


def _known(atlas: Catalogue, landscape: Landscape) -> list[KnownPoint]:
    """The minima and saddles of a landscape, none if the catalogue does not have it."""
    if not atlas.landscapes(where=f"landscape_id = {quoted(landscape.id)}").num_rows:
        return []
    return [entry for table in ("minima", "saddles") for entry in atlas.points(landscape.id, table)]


def _nearest(weights: Matrix, known: list[KnownPoint], landscape: Landscape, thorough: bool = True) -> Nearest:
    signs = np.ones(len(weights)) if landscape.second_layer == "trained" else None
    return nearest_point(Student(landscape, weights, signs), [entry.point for entry in known], thorough)


def _fitting(network: Given, landscape: Landscape) -> Landscape:
    """The landscape. Raises InputError if the network does not fit into it."""
    K, M, T, d = landscape.students, landscape.teachers, network.teacher_overlaps, network.dimension
    if d is not None and d < (M if T is None else landscape.teacher_rank):
        raise InputError(f"{M} teachers need {M} dimensions, got weights of shape {(network.students, d)}, (K, d).")
    if (network.students, network.teachers or M) != (K, M):
        theirs = network.students, network.teachers or M
        raise InputError(
            f"{K} students and {M} teachers have Q and R of shapes {(K, K)} and {(K, M)}, got {(theirs[0],) * 2} and "
            f"{theirs}: name the landscape that the network belongs to with `--landscape ID` (`landscape` in Python), "
            "or `students` and `teachers`."
        )
    if T is None and network.W is not None and not landscape.is_orthonormal:
        raise InputError(f"the teachers of {landscape.id} are not orthonormal: give them as V beside W.")
    if T is not None and np.abs(T - landscape.T).max() > _agreement(network) * landscape.overlap_scale:
        raise InputError(
            f"the teachers given are not those of the landscape {landscape.id}, their overlaps differ by "
            f"{np.abs(T - landscape.T).max():.3g}: leave `landscape`, `students` and `teachers` out, or mend them."
        )
    return landscape


def _agreement(network: Given) -> float:
    return max(TEACHERS_AGREE, network.rounding)


def _landscape_named(atlas: Catalogue, name: str) -> Landscape:
    """A landscape of the catalogue by its id. Raises InputError for an unknown one, with the nearest."""
    return landscape_from_row(next(from_table(atlas.landscapes(landscape=name))))


def _landscape_like(atlas: Catalogue, network: Given) -> Landscape:
    """The landscape of the catalogue with these teachers, or a new one; the only one of that size without any."""
    T, M = network.teacher_overlaps, network.teachers
    known = [landscape_from_row(row) for row in from_table(atlas.landscapes(students=network.students))]
    known = [landscape for landscape in known if M in (None, landscape.teachers)]
    if T is not None:
        apart = [float(np.abs(landscape.T - T).max()) / landscape.overlap_scale for landscape in known]
        nearest = min(apart, default=np.inf)
        if nearest > _agreement(network):
            return Landscape(network.students, len(T), T=T)
        known = [landscape for landscape, gap in zip(known, apart, strict=True) if gap <= nearest + FEASIBLE]
    if len(known) != 1:
        size = f"{network.students} students" + ("" if M is None else f" and {M} teachers")
        raise InputError(
            f"{'weights W need teachers: ' if T is None and network.W is not None else ''}"
            f"{len(known)} landscapes of this catalogue have {size}{'' if T is None else ' with these overlaps'}: say "
            "which is meant with `--landscape ID` (`landscape` in Python), or M orthonormal teachers with `teachers`."
        )
    return known[0]


def _better_reading(
    atlas: Catalogue, W: Any, V: Any, reduced: bool, landscape_of: Callable[[Given], Landscape], taken: float
) -> str | None:
    """Another reading of weights, nearer to a known point than half of `taken`: distances over the norm of teachers."""
    best, told = _BETTER * taken, None
    for turned, other in ((False, True), (True, False), (True, True)) if W is not None else ():
        try:
            weights, vectors = (None if x is None else np.asarray(x).T if turned else x for x in (W, V))
            network = given_network(weights, vectors, None, None, None, reduced != other)
            wanted = landscape_of(network)
        except (InputError, ValueError):  # no matrix of numbers
            continue
        known = _known(atlas, wanted)
        near = _nearest(network.weights_in(wanted), known, wanted, thorough=False)
        if near.position < 0 or near.distance >= best * wanted.teacher_scale:
            continue
        best = near.distance / wanted.teacher_scale
        how = " and ".join([*["transposed"] * turned, *[f"read as {read_as(network.units)}"] * other])
        give = " and ".join([*["give the transpose"] * turned, *[_advice(reduced, turned)] * other])
        told = (
            f"{how[0].upper()}{how[1:]}, with K = {wanted.students}, M = {wanted.teachers}, d = {network.dimension}, "
            f"it is at most {near.distance:.3g} away from {known[near.position].label}: if that is meant, {give}."
        )
    return told


def read_as(units: str) -> str:
    """The `units` of a network in words."""
    words = {HELD: "weights as a network holds them", REDUCED: "reduced weights"}.get(units)
    return units if words is None else f"{units} ({words})"


def _advice(reduced: bool, turned: bool) -> str:
    if reduced:
        return "leave `reduced` out"
    return "`reduced`" if turned else "give `reduced`"
