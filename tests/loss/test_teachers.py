"""Teachers of any overlap: the minima agree with those of SciPy's BFGS on a loss written out separately."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from enumerator.follow import follow_shard
from enumerator.loss.population import hessian
from enumerator.minima.polish import polish
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.starts import Outcome
from tests.support.references import RELU, plain_loss

# Rounded normal numbers, pinned: five teachers of various norms and angles in five dimensions, and in three.
GENERAL = [
    [0.6, 0.2, -0.1, -2.3, 0.4],
    [-2.1, 0.9, 0.6, 0.8, 0.8],
    [0.3, -0.5, -0.3, 1.5, -0.6],
    [-0.2, -0.7, -0.5, -0.3, 0.3],
    [-0.3, -0.4, -0.6, 0.1, -1.3],
]
RANK_DEFICIENT = [[0.4, 1.5, -1.8], [1.7, 0.0, -0.8], [-0.8, -1.1, -0.2], [0.8, 0.6, 0.6], [-1.7, -1.6, 1.6]]

_polish, _hessian = jax.jit(partial(polish, RELU)), jax.jit(partial(hessian, RELU))


def landscape_of(name):
    if name == "wider teacher":
        return Landscape(4, 6)
    V = np.array(GENERAL if name == "general" else RANK_DEFICIENT)
    return Landscape(5, 5, V @ V.T)


def brute_force_distance(a, b, T):
    """Least largest difference of entries of (Q, R) over permutations of students and of teachers that keep T."""
    (Q_a, R_a), (Q_b, R_b) = a, b
    K, M = R_a.shape
    teachers = np.array(list(itertools.permutations(range(M))))
    teachers = teachers[(T[teachers[:, :, None], teachers[:, None, :]] == T).all(axis=(1, 2))]
    best = np.inf
    for students in map(list, itertools.permutations(range(K))):
        change = np.abs(Q_b[np.ix_(students, students)] - Q_a).max()
        if change < best:
            columns = np.abs(R_b[students][:, teachers] - R_a[:, None, :]).max(axis=(0, 2))
            best = min(best, max(change, float(columns.min())))
    return best


def minima_by_bfgs(landscape, starts):
    """Overlaps, loss and hits of the distinct minima that BFGS finds from random weights in d = K + M."""
    K, dimension = landscape.students, landscape.students + landscape.teachers
    V = jnp.asarray(landscape.teacher_factor)
    rank = V.shape[1]
    both = jax.jit(jax.value_and_grad(lambda w: plain_loss(w.reshape(K, dimension), V)))
    rng = np.random.default_rng(2024)
    found = []
    for _ in range(starts):
        start = rng.normal(size=K * dimension) / np.sqrt(dimension)
        end = minimize(lambda w: tuple(np.asarray(part) for part in both(w)), start, jac=True, method="BFGS").x
        end = end.reshape(K, dimension)
        W, norm = _polish(jnp.asarray(end[:, :rank]), V)
        moved = np.hypot(np.linalg.norm(np.asarray(W) - end[:, :rank]), np.linalg.norm(end[:, rank:]))
        if not norm < 1e-12 or moved > 1e-2:
            continue  # BFGS gave up on the way: it names no minimum
        curvature = _hessian(jnp.pad(W, ((0, 0), (0, dimension - rank))), V)
        if np.linalg.eigvalsh(np.asarray(curvature).reshape(W.size * dimension // rank, -1))[0] < 0:
            continue  # it stopped beside a saddle
        W = np.asarray(W)
        overlaps, loss = (W @ W.T, W @ np.asarray(V).T), float(plain_loss(jnp.asarray(W), V))
        for entry in found:
            # The plain loss is NaN at collinear pairs (the global minimum): the overlaps alone decide there.
            near = not abs(entry["loss"] - loss) > 1e-6
            if near and brute_force_distance(entry["overlaps"], overlaps, landscape.T) < 1e-6:
                entry["hits"] += 1
                break
        else:
            found.append({"overlaps": overlaps, "loss": loss, "hits": 1})
    return found


@pytest.mark.parametrize("name", ["rank-deficient", "general", pytest.param("wider teacher", marks=pytest.mark.slow)])
def test_minima_agree_with_those_of_bfgs(name):
    landscape = landscape_of(name)
    campaign = Campaign(landscape, law=InitialLaw(landscape.students + landscape.teachers))
    result = follow_shard(campaign, 0, 500)
    assert (result.starts.outcome == Outcome.CONVERGED).mean() > 0.99
    ours = [
        {"overlaps": (point.Q, point.R), "hits": int((result.starts.point == position).sum())}
        for position, point in enumerate(result.points)
    ]
    theirs = minima_by_bfgs(landscape, 500)
    if name == "general":
        assert len(ours) >= 3

    def has(found, wanted):
        return any(brute_force_distance(e["overlaps"], wanted["overlaps"], landscape.T) < 1e-7 for e in found)

    for entry in ours:
        assert entry["hits"] < 5 or has(theirs, entry)
    for entry in theirs:
        assert entry["hits"] < 5 or has(ours, entry)
    # Each once: no two of ours are the same up to symmetry.
    for a, b in itertools.combinations(ours, 2):
        assert brute_force_distance(a["overlaps"], b["overlaps"], landscape.T) > 1e-6
