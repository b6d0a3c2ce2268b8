"""Derivatives of the loss of a smooth activation, recomputed from its plain kernel k(u.u, v.v, u.v) alone.

First and second derivatives of k by automatic differentiation, from which gradient and Hessian follow by the chain
rule; in high precision by central differences. Nothing of the formulas that the solvers use.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from numpy.typing import NDArray

from enumerator.activations.base import Activation

Matrix = NDArray[np.float64]


@partial(jax.jit, static_argnums=0)
def _derivatives(g: Activation, overlaps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Gradient (n, 3) and Hessian (n, 3, 3) of k in u.u, v.v and u.v, at n pairs (n, 3)."""

    def kernel(x: jax.Array) -> jax.Array:
        return g.plain_kernel(x[0], x[1], x[2], jnp)

    return jax.vmap(jax.grad(kernel))(overlaps), jax.vmap(jax.hessian(kernel))(overlaps)


def smooth_derivatives(g: Activation, W: Matrix, V: Matrix) -> tuple[Matrix, Matrix, Matrix]:
    """Gradient (K, r), Hessian blocks (K, K, r, r) and C (K, K) at W (K, r) against V (M, r), for layers of ones."""
    K, N, r = len(W), len(W) + len(V), W.shape[1]
    others, identity = np.concatenate([W, V]), np.eye(W.shape[1])
    signs = np.where(np.arange(N) < K, 1.0, -1.0)
    squares = (others**2).sum(axis=1)
    pairs = np.stack(np.broadcast_arrays(squares[:K, None], squares[None], W @ others.T), axis=-1)
    first, second = (np.asarray(x, np.float64) for x in _derivatives(g, pairs.reshape(-1, 3)))
    first, second = first.reshape(K, N, 3), second.reshape(K, N, 3, 3)

    # d/du of f(u.u, v.v, u.v) is 2 f_1 u + f_3 v, that by v is 2 f_2 v + f_3 u.
    u, v = np.broadcast_to(W[:, None], (K, N, r)), np.broadcast_to(others[None], (K, N, r))
    by_u = 2 * second[..., 0, None] * u[:, :, None] + second[..., 2, None] * v[:, :, None]
    by_v = 2 * second[..., 1, None] * v[:, :, None] + second[..., 2, None] * u[:, :, None]

    def outer(rates: Matrix) -> Matrix:
        """d/dn of dk/du = 2 k_1 u + k_3 v with u and v held, from the rates (K, N, 3, r) of k_1, k_2, k_3."""
        along = 2 * np.einsum("ija,ijb->ijab", u, rates[:, :, 0])
        return along + np.einsum("ija,ijb->ijab", v, rates[:, :, 2])

    gradient = np.einsum("j,ija->ia", signs, 2 * first[..., 0, None] * u + first[..., 2, None] * v)
    alphas = 2 * first[..., 0] @ signs
    blocks = (outer(by_v) + first[..., 2, None, None] * identity)[:, :K]
    own = np.einsum("j,ijab->iab", signs, outer(by_u)) + alphas[:, None, None] * identity
    blocks[np.arange(K), np.arange(K)] += own
    return gradient, blocks, first[:, :K, 2] + np.diag(alphas)


def plain_slopes(g: Activation, own: Any, other: Any, mutual: Any) -> tuple[Any, Any]:
    """dk/d(u.v) and 2 dk/d(u.u) in the precision that mpmath works in: right in two thirds of its digits."""
    step = mpmath.mpf(10) ** (-(mpmath.mp.dps // 3))

    def kernel(along: int, change: Any) -> Any:
        moved = [change if along == k else 0 for k in range(3)]
        return g.plain_kernel(own + moved[0], other + moved[1], mutual + moved[2], mpmath)

    def slope(along: int) -> Any:
        return (kernel(along, step) - kernel(along, -step)) / (2 * step)

    return slope(2), 2 * slope(0)
