"""Which minimum are given weights or overlaps at, or near, and where does the flow take them?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from enumerator.catalogue import Catalogue
from enumerator.distinct import match_points
from enumerator.dynamics import check_solvable
from enumerator.errors import InputError
from enumerator.loss import exact_loss
from enumerator.overlaps import lift
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.recognition import Recogniser, distance_to
from enumerator.records import OUTCOMES
from enumerator.solve import solve_starts
from enumerator.surroundings import check_jax


@dataclass(frozen=True)
class Identification:
    """`nearest` and `reached` are labels of the catalogue: None if it has none, or not yet the one reached.

    `distance` is the Frobenius distance, in reduced weights, to the nearest copy of `nearest` found by
    alternating assignments (an upper bound); `inside` tells whether it is proven to flow there, which with a trained
    second layer no distance alone does.
    """

    loss: float
    nearest: str | None
    distance: float | None
    inside: bool
    outcome: str
    reached: str | None
    reached_loss: float
    reached_order: int | None


def overlaps_of_weights(
    W: NDArray[np.float64], teachers: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Q (K, K), R (K, M) of weights W (K, d) and teachers (M, d) as a network holds them: divided by d.

    Raises InputError if the dimensions differ.
    """
    if W.ndim != 2 or teachers.ndim != 2 or W.shape[1] != teachers.shape[1]:
        raise InputError(f"`W` and the teachers must be (K, d) and (M, d), got {W.shape} and {teachers.shape}.")
    return W @ W.T / W.shape[1], W @ teachers.T / W.shape[1]


def identify(
    catalogue: Catalogue, landscape: Landscape, Q: NDArray[np.float64], R: NDArray[np.float64]
) -> Identification:
    """The known point nearest to overlaps Q (K, K), R (K, M), and that in which the gradient flow from there ends.

    A trained second layer is one of ones there. Raises InputError for overlaps that no weights have.
    """
    check_jax()
    campaign = Campaign(landscape, law=InitialLaw(Q=Q[None], R=R[None]))
    check_solvable(campaign)
    V = landscape.teacher_factor
    W = np.concatenate(lift(Q, R, V), axis=1)
    registered = catalogue.landscapes(landscape=landscape.id).num_rows > 0
    known = [entry for table in ("minima", "saddles") if registered for entry in catalogue.points(landscape.id, table)]
    recogniser = Recogniser(landscape)
    trained = landscape.second_layer == "trained"
    distances = [distance_to(recogniser, W, entry.point, np.ones(len(W)) if trained else None) for entry in known]
    nearest = int(np.argmin(distances)) if distances and np.isfinite(min(distances)) else None

    result = solve_starts(campaign, np.array([0]))
    outcome, reached, label = OUTCOMES[result.starts.outcome[0]], None, None
    if (end := result.starts.point[0]) >= 0:
        reached = result.points[end]
        (position,) = match_points([reached], [entry.point for entry in known])
        label = known[position].label if position >= 0 else None
    return Identification(
        loss=exact_loss(landscape.g, W, V),
        nearest=None if nearest is None else known[nearest].label,
        distance=None if nearest is None else distances[nearest],
        inside=nearest is not None and not trained and distances[nearest] < known[nearest].point.radius,
        outcome=outcome,
        reached=label,
        reached_loss=reached.loss if reached else float(result.starts.loss[0]),
        reached_order=reached.anti_aligned if reached else None,
    )
