"""A stored point recomputed from Q, R and T by plain formulas and, for its symmetry, by trying all permutations."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations
from typing import Any

import numpy as np

# Between the rounding of a polished point (1e-10) and any two different ones.
EQUAL = 1e-9


def recomputed(row: dict[str, Any], T: np.ndarray) -> dict[str, Any]:
    """Gradient norm, largest entry of Q - R T^+ R^T, isotropy and log10 of the orbit of a row of `minima` on T.

    For ReLU with K = M students of a second layer of ones.
    """
    K, M = row["effective_students"], len(T)
    Q, R = np.reshape(row["Q"], (K, K)), np.reshape(row["R"], (K, M))
    inverse = np.linalg.pinv(T, hermitian=True, rcond=1e-10)
    X = _against_teachers(Q, R, T)
    group, teachers = _stabiliser(Q, R, T)
    orbit = math.factorial(K) * teachers // len(group)
    return {
        "gradient": math.sqrt(max(0.0, np.trace(X @ inverse @ X.T))),
        "off_span": float(np.abs(Q - R @ inverse @ R.T).max()),
        "isotropy": _name(group),
        "orbit_size_log10": math.log10(orbit),
    }


def _against_teachers(Q: np.ndarray, R: np.ndarray, T: np.ndarray) -> np.ndarray:
    """C R - B T (K, M): the gradient's overlaps with the teachers."""
    K = len(Q)
    students, teachers = np.sqrt(np.diag(Q)), np.sqrt(np.diag(T))
    among = np.arccos(np.clip(Q / np.outer(students, students), -1, 1))
    np.fill_diagonal(among, 0.0)
    across = np.arccos(np.clip(R / np.outer(students, teachers), -1, 1))
    alpha = np.sin(among) @ students - np.sin(across) @ teachers
    C = (np.pi - among) / (2 * np.pi) + np.diag(alpha / (2 * np.pi * students))
    assert C.shape == (K, K)
    return C @ R - (np.pi - across) / (2 * np.pi) @ T


def _stabiliser(Q: np.ndarray, R: np.ndarray, T: np.ndarray) -> tuple[list[tuple], int]:
    """All (students, teachers) that keep Q and R, of those that keep T exactly, and the number of the latter."""
    every = np.array(list(permutations(range(len(Q)))))
    group, automorphisms = [], 0
    for teachers in permutations(range(len(T))):
        if not np.array_equal(T[np.ix_(teachers, teachers)], T):
            continue
        automorphisms += 1
        fits = np.abs(R[:, None, :] - R[None][:, :, teachers]).max(axis=2) <= EQUAL
        if not fits.any(axis=1).all():
            continue
        for students in every[fits[np.arange(len(Q)), every].all(axis=1)]:
            if np.abs(Q[np.ix_(students, students)] - Q).max() <= EQUAL:
                group.append((tuple(students.tolist()), teachers))
    return group, automorphisms


def _name(group: list[tuple]) -> str:
    """As `isotropy` is written: a product of symmetric groups on the orbits of the teachers, if it is one."""
    still = tuple(range(len(group[0][1])))
    assert sum(teachers == still for _, teachers in group) == 1, "students move alone"
    orbits = {frozenset(teachers[m] for _, teachers in group) for m in still}
    sizes = Counter(len(orbit) for orbit in orbits)
    order = math.prod(math.factorial(size) ** count for size, count in sizes.items())
    if order != len(group):
        return f"order {len(group)} on " + "+".join(map(str, sorted(map(len, orbits), reverse=True)))
    powers = sorted(sizes.items(), reverse=True)
    return " x ".join(f"S{size}" + (f"^{count}" if count > 1 else "") for size, count in powers)
