"""Flat families: the students of one effective network, and the directions along which they are connected."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from enumerator.minima.effective import groups_of


def share_out(
    network: NDArray[np.float64], groups: NDArray[np.intp], shares: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The student (K, r) that computes what `network` (K_eff, r) does: neuron `groups[k]` in student k, by `shares`.

    `shares` (K,) are positive; they are scaled to a sum of one in each group.
    """
    totals = np.bincount(groups, weights=shares, minlength=len(network))
    return (shares / totals[groups])[:, None] * network[groups]


def tangent_basis(W: NDArray[np.float64], scale: float) -> NDArray[np.float64]:
    """Orthonormal directions (K - K_eff, K, r) in which a student W (K, r) of a flat family can move at no loss.

    Norm moves between parallel students: in a group of n there are n - 1 such directions. At zero loss the
    Hessian vanishes in more: parallel students part at a cost of third order. `scale` is the norm of
    the teachers.
    """
    groups = groups_of(W, scale)
    directions = []
    for group in range(groups.max(initial=-1) + 1):
        members = np.flatnonzero(groups == group)
        unit = W[members].sum(axis=0)
        unit = unit / np.linalg.norm(unit)
        # Orthonormal coefficients that add up to zero: all but the first of a basis that begins with the constant.
        basis = np.linalg.qr(np.concatenate([np.ones((len(members), 1)), np.eye(len(members))[:, 1:]], axis=1))[0]
        for coefficients in basis[:, 1:].T:
            direction = np.zeros_like(W)
            direction[members] = np.outer(coefficients, unit)
            directions.append(direction)
    return np.array(directions).reshape(-1, *W.shape)
