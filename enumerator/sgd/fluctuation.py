"""The minimum that one-pass SGD fluctuates about: where the flow from the time-averaged weights ends, and how far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from enumerator.errors import InputError
from enumerator.lanes.solve import solve_starts
from enumerator.loss.population import as_numpy, compiled_gradient, exact_loss
from enumerator.minima.recognition import Recogniser, distance_to
from enumerator.points import Student
from enumerator.problem import Campaign, InitialLaw
from enumerator.process_checks import check_jax
from enumerator.sgd.one_pass import Plan, Runs, batches, plan_runs
from enumerator.starts import Outcome, ShardResult, StartRows, shard_result
from enumerator.stop_levels import STOPS

# Weights are averaged over the last fifth of a run. The first four fifths let the start be forgotten: a mode that
# relaxes at the rate h is left with exp(-0.8 h t) of it. An average is worth several times the slowest relaxation
# of the noise, 1/C or about 4 to 5 perpendicular to the teachers: from a flow time of some 100 on.
_BLOCKS, _AVERAGED = 20, 4


class Average(NamedTuple):
    """Time averages W (n, K, d) over the last blocks of n runs, and their standard errors (n,), Frobenius."""

    W: Float[np.ndarray, "n K d"]
    error: Float[np.ndarray, " n"]


def average_of_blocks(means: Float[np.ndarray, "B n K d"]) -> Average:
    """The average of block means, and its error sqrt(sum_b |m_b - m|^2/(B (B - 1))): trace of the covariance.

    Batch means (Law & Carson 1979): right if the blocks are long against the relaxation of the fluctuations, too
    small for shorter ones, in which neighbours are alike.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # what has diverged is no number
        W = means.mean(axis=0)
        spread = ((means - W) ** 2).sum(axis=(0, 2, 3))
        W = np.where(np.isfinite(spread)[:, None, None], W, np.nan)
    return Average(W, np.sqrt(spread / (len(means) * (len(means) - 1))))


def average_runs(campaign: Campaign, indices: NDArray[np.int64], plan: Plan) -> Average:
    """Run the starts with these indices (n,) to their flow time, and average their weights over its last fifth."""
    runs = Runs(campaign, indices, plan)
    for _ in range(plan.blocks - _AVERAGED):
        runs.advance()
    return average_of_blocks(np.stack([as_numpy(runs.advance()["first_layer"]) for _ in range(_AVERAGED)]))


def lifted(W: NDArray[np.float64], rank: int) -> NDArray[np.float64]:
    """Weights (K, d) turned about the teachers, the first `rank` axes, to (K, rank + min(K, d - rank))."""
    triangle = np.asarray(np.linalg.qr(W[:, rank:].T, mode="r"))
    return np.concatenate([W[:, :rank], triangle.T], axis=1)


def solve_sgd(
    campaign: Campaign, indices: NDArray[np.int64], progress: Callable[[int], None] | None = None
) -> ShardResult:
    """Follow one-pass SGD from the starts with these indices (n,) to the flow time of the campaign.

    A start is converged if the gradient flow from its averaged weights ends in a minimum, the one that it
    fluctuates about, and unfinished otherwise. `loss` (of the population) and `gradient_norm` are those of the
    averaged weights, whose Frobenius distance to the minimum is `distance`, with standard error `distance_error`;
    `evaluations` counts the updates. `progress` is told how many runs retired, as they do. Raises InputError for
    what one-pass SGD does not do, and for a dimension in which the initial overlaps do not fit.
    """
    check_jax()
    indices, plan = np.sort(indices), plan_runs(campaign, _BLOCKS)
    if campaign.landscape.second_layer != "fixed":
        raise InputError(
            f"`second_layer` must be fixed for the ends of one-pass-sgd in this version, "
            f"got {campaign.landscape.second_layer}: `trajectories` follows it along the way."
        )
    weights, errors = [], []
    for batch in batches(indices, campaign.landscape, plan.dimension):
        average = average_runs(campaign, batch, plan)
        W = campaign.landscape.equations.manifold.project(average.W)
        weights += [lifted(w, campaign.landscape.teacher_rank) for w in W]
        errors += average.error.tolist()
        if progress is not None:
            progress(len(batch))
    return _ends(campaign, indices, plan, np.stack(weights), errors)


def _ends(
    campaign: Campaign, indices: NDArray[np.int64], plan: Plan, W: NDArray[np.float64], errors: list[float]
) -> ShardResult:
    """The rows of the runs with averaged weights W (n, K, D), lifted: the flow from each tells its minimum."""
    finite = np.asarray(np.isfinite(W).all(axis=(1, 2)))
    points, met = np.full(len(W), -1), []
    if finite.any():
        flow = _flow_from(campaign, W[finite])
        points[finite] = np.where(flow.starts.outcome == Outcome.CONVERGED, flow.starts.point, -1)
        met = flow.points
    rows, recogniser = StartRows(campaign.landscape), Recogniser(campaign.landscape)
    g, V = campaign.landscape.g, campaign.landscape.teacher_factor
    for run, index in enumerate(indices.tolist()):
        student = Student(campaign.landscape, W[run], None)
        point, ended = int(points[run]), Outcome.UNFINISHED if finite[run] else Outcome.DIVERGED
        rows.add(
            W[run],
            index=index,
            outcome=Outcome.CONVERGED if point >= 0 else ended,
            point=point,
            loss=exact_loss(g, W[run], V) if finite[run] else np.nan,
            gradient_norm=float(np.linalg.norm(as_numpy(compiled_gradient(g, jnp.asarray(W[run]), jnp.asarray(V))))),
            flow_time=float(plan.flow_times[-1]),
            evaluations=plan.total,
            distance=distance_to(recogniser, student, met[point]) if point >= 0 else np.nan,
            distance_error=errors[run] if point >= 0 else np.nan,
            stop_flow_time=np.full(STOPS, np.nan),
            stop_loss=np.full(STOPS, np.nan),
            stop_anti_aligned=np.full(STOPS, -1),
        )
    return shard_result(campaign, rows.to_starts(), [], lambda position: met[position])


def _flow_from(campaign: Campaign, W: NDArray[np.float64]) -> ShardResult:
    """The gradient flow from each of the weights (n, K, D), by their overlaps."""
    Q, R = W @ W.transpose(0, 2, 1), W[..., : campaign.landscape.teacher_rank] @ campaign.landscape.teacher_factor.T
    tolerances = replace(campaign.tolerances, linger_below=0.0)  # the saddles on its way are not those of SGD
    onwards = Campaign(campaign.landscape, law=InitialLaw(Q=Q, R=R), tolerances=tolerances)
    return solve_starts(onwards, np.arange(len(W)))
