"""Small networks with known symmetry, and their copies under the whole group, by brute force."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from enumerator.symmetry.canonical import canonical_form

GAP = 1e-7  # between what is the same and what differs, and far below the spacing, 0.1 or more, of the values used here

examples = settings(max_examples=40, derandomize=True)


def permuted(Q, R, students, teachers):
    students, teachers = np.asarray(students, dtype=int), np.asarray(teachers, dtype=int)
    return Q[np.ix_(students, students)], R[np.ix_(students, teachers)]


def canonical(Q, R, T):
    form = canonical_form(Q, R, T, GAP)
    return permuted(Q, R, form.students, form.teachers)


def block(size, x, y):
    """B(x, y) = x I + y (J - I)."""
    return (x - y) * np.eye(size) + y


def cycles(*lengths):
    """Adjacency matrix of disjoint cycles."""
    n = sum(lengths)
    adjacency = np.zeros((n, n))
    start = 0
    for length in lengths:
        for k in range(length):
            ends = [start + k, start + (k + 1) % length]
            adjacency[np.ix_(ends, ends[::-1])] += np.eye(2)
        start += length
    return (adjacency > 0).astype(float)


def side_by_side(first, second):
    """The block-diagonal matrix of two patterns."""
    none = np.zeros((len(first), len(second)))
    return np.block([[first, none], [none.T, second]])


def block_network(sizes):
    """Q and R constant on blocks apart from their diagonals, as in the block-symmetric families, K = M."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    i, j = label[:, None], label[None, :]
    Q, R = 0.1 * (i + j) + 0.2, 0.3 * i - 0.5 * j - 0.1
    np.fill_diagonal(Q, 2 + label)
    np.fill_diagonal(R, np.where(label % 2 == 0, -3.0, 4.0))
    return Q, R


@st.composite
def networks(draw, students=None, teachers=None, values=2):
    """Q, R, T with entries 0 .. values - 1, so few that symmetry and coincidence are common."""
    K = draw(st.integers(0, 4)) if students is None else students
    M = draw(st.integers(1, 4)) if teachers is None else teachers
    Q, R, T = (
        draw(arrays(np.float64, shape, elements=st.integers(0, values - 1), fill=st.nothing()))
        for shape in ((K, K), (K, M), (M, M))
    )
    return np.triu(Q) + np.triu(Q, 1).T, R, np.triu(T) + np.triu(T, 1).T


def teacher_group(T):
    return [p for p in permutations(range(len(T))) if np.array_equal(T[np.ix_(p, p)], T)]


def copies(Q, R, T):
    """All copies of (Q, R) under S_K x Aut(T), one per group element, as flat arrays."""
    group = product(permutations(range(len(Q))), teacher_group(T))
    return [np.concatenate([part.ravel() for part in permuted(Q, R, *element)]) for element in group]
