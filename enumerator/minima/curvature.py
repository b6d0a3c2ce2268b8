"""Second order on the manifold of the students: gradient, Hessian in the tangent space, and what lies above it.

A point W (K, r + p) lies in the span of the teachers and in p further dimensions, those of its perpendicular part. p is
zero but where a constraint keeps students out of the span. Rotations of the p dimensions change no overlap: they
are a gauge, and left out. Above, in each dimension beyond r + p, the Hessian is C - Lambda; on the columns of
the perpendicular part, which a rotation turns into that dimension, it vanishes, and they are left out as well.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from enumerator.loss.equations import Equations
from enumerator.loss.population import as_numpy, compiled_gradient, compiled_hessian, compiled_perpendicular

Matrix = NDArray[np.float64]


class Curvature(NamedTuple):
    """At one point: gradient (K, D) on the manifold; tangent `basis` (m, K D), orthonormal, without the gauge, or None
    for all directions; the `hessian` in it (m, m); `above` (K - p, K - p); the Hessian H (K, D, K, D) and block C
    (K, K) of the loss of free weights, and their `slope`, the norm of its gradient.
    """

    gradient: Matrix
    basis: Matrix | None
    hessian: Matrix
    above: Matrix
    H: Matrix
    C: Matrix
    slope: float

    @property
    def ambient(self) -> float:
        """The largest eigenvalue of H in magnitude."""
        size = self.gradient.size
        return float(np.abs(np.linalg.eigvalsh(self.H.reshape(size, size))).max()) if size else 0.0


def curvature_of(equations: Equations, W: Matrix, V: Matrix, a: Matrix | None = None) -> Curvature:
    """The curvature of the loss at W (K, r + p) against the teachers V (M, r), with second-layer weights a (K,)."""
    g, manifold, _ = equations
    size, width = W.size, W.shape[1]
    if not size:
        empty = np.zeros((0, 0))
        return Curvature(W, None, empty, empty, np.zeros((0, width, 0, width)), empty, 0.0)
    at, teachers = jnp.asarray(W), jnp.asarray(V)
    G, H, C = (as_numpy(f(g, at, teachers, a)) for f in (compiled_gradient, compiled_hessian, compiled_perpendicular))
    slope = float(np.linalg.norm(G))
    if manifold.is_free:
        return Curvature(G, None, H.reshape(size, size), C, H, C, slope)
    multiplier = as_numpy(manifold.restrict(jnp.asarray(G @ W.T)))
    lagrange = (H - np.einsum("ij,ab->iajb", multiplier, np.eye(width))).reshape(size, size)
    basis = _tangent_basis(equations, W, V.shape[1])
    outside = np.linalg.qr(W[:, V.shape[1] :], mode="complete")[0][:, width - V.shape[1] :]
    return Curvature(
        gradient=G - multiplier @ W,
        basis=basis,
        hessian=basis @ lagrange @ basis.T,
        above=outside.T @ (C - multiplier) @ outside,
        H=H,
        C=C,
        slope=slope,
    )


def _tangent_basis(equations: Equations, W: Matrix, rank: int) -> Matrix:
    """Orthonormal directions (m, K D) tangent to the manifold at W (K, D), orthogonal to the gauge."""
    normals = equations.manifold.multipliers(len(W)) @ W
    extra = W.shape[1] - rank
    rows, columns = np.triu_indices(extra, 1)
    gauge = np.zeros((len(rows), *W.shape))
    gauge[np.arange(len(rows)), :, rank + rows] = W[:, rank + columns].T
    gauge[np.arange(len(rows)), :, rank + columns] = -W[:, rank + rows].T
    excluded = np.concatenate([normals, gauge]).reshape(-1, W.size)
    # The number of columns left is that of the normals and of the gauge, which are independent.
    return np.linalg.qr(excluded.T, mode="complete")[0][:, len(excluded) :].T


def polish_on_manifold(equations: Equations, W: Matrix, V: Matrix, iterations: int = 12) -> tuple[Matrix, float]:
    """Newton's method on the manifold from W (K, r + p) nearby: a stationary point and the gradient norm there.

    In the tangent space without the gauge, and back by projection; it finds saddles as well as minima, and stops
    when the norm no longer falls below half. Whether it converged, and to what, the caller decides.
    """
    at = curvature_of(equations, W, V)
    norm = float(np.linalg.norm(at.gradient))
    for _ in range(iterations):
        if at.basis is None or not np.isfinite(norm):
            break
        step = np.linalg.lstsq(at.hessian, at.basis @ at.gradient.ravel(), rcond=1e-12)[0] @ at.basis
        moved = equations.manifold.project(W - step.reshape(W.shape))
        after = curvature_of(equations, moved, V)
        new = float(np.linalg.norm(after.gradient))
        if not new < norm:
            break
        settled, W, at, norm = new >= 0.5 * norm, moved, after, new
        if settled:
            break
    return W, norm


# A lane near its end has perpendicular parts that vanish, far below this, and others of the order of its norms.
_BEYOND = (0.03, 0.003)


def possible_lifts(W: Matrix, rank: int) -> list[Matrix]:
    """Weights (K, r + p) of W (K, D) turned into the span and as few further dimensions as may be its own in the end.

    The fewest first; where two thresholds tell different numbers both are tried.
    """
    _, sizes, turned = np.linalg.svd(W[:, rank:], full_matrices=False)
    counts = dict.fromkeys(int((sizes > least).sum()) for least in _BEYOND)
    return [np.concatenate([W[:, :rank], W[:, rank:] @ turned[:count].T], axis=1) for count in counts]


def lifted_distance(W: Matrix, X: Matrix, rank: int) -> float:
    """Frobenius distance of W (K, D) to the nearest copy of X (K, r + p) by rotations beyond the first r = `rank`."""
    parallel = np.linalg.norm(W[:, :rank] - X[:, :rank])
    beyond, target = W[:, rank:], X[:, rank:]
    overlap = np.linalg.svd(beyond.T @ target, compute_uv=False).sum() if beyond.size and target.size else 0.0
    squared = (beyond**2).sum() + (target**2).sum() - 2 * overlap
    return float(np.hypot(parallel, np.sqrt(max(0.0, squared))))
