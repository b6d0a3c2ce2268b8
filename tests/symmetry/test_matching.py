"""Matching networks up to permutations: the same, different, or to be polished further."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enumerator.errors import InputError
from enumerator.symmetry import canonical as canonical_forms
from enumerator.symmetry import colouring
from enumerator.symmetry.canonical import Answer, canonical_form, match
from tests.support.networks import GAP, block_network, canonical, copies, cycles, examples, networks, permuted

SAME, DIFFERENT = 1e-9, 1e-6


@examples
@given(networks(3, 3), st.permutations(range(9)), st.permutations(range(3)))
def test_canonical_form_and_match_separate_orbits_exactly(network, shuffle, students):
    Q, R, T = network
    # Same entries elsewhere: often another orbit, and never told apart by the sorted entries alone.
    other = permuted(Q, R.ravel()[shuffle].reshape(R.shape), students, range(3))
    target = np.concatenate([part.ravel() for part in other])
    one_orbit = any(np.array_equal(copy, target) for copy in copies(Q, R, T))
    equal = all(np.array_equal(x, y) for x, y in zip(canonical(Q, R, T), canonical(*other, T), strict=True))
    assert equal == one_orbit
    assert match(Q, R, *other, T, SAME, DIFFERENT).answer == (Answer.SAME if one_orbit else Answer.DIFFERENT)


@pytest.mark.parametrize("backtracking", [True, False])
@pytest.mark.parametrize("others", [0, 10])
def test_networks_that_colour_refinement_confuses_are_told_apart(others, backtracking, monkeypatch):
    if not backtracking:
        monkeypatch.setattr(canonical_forms, "SEARCH_LIMIT", -math.inf)  # by canonical labelling alone
    n = 6 + others
    R, rest = np.eye(n), (1,) * others
    hexagon, triangles = (np.eye(n) + 0.3 * cycles(*rings, *rest) for rings in ((6,), (3, 3)))
    graphs = canonical_forms._coloured([(hexagon, R), (triangles, R)], R, GAP)
    assert colouring.refined_cells(graphs[0]).trace == colouring.refined_cells(graphs[1]).trace
    assert canonical_form(hexagon, R, R, GAP).stabiliser_order == 12 * math.factorial(others)
    assert canonical_form(triangles, R, R, GAP).stabiliser_order == 72 * math.factorial(others)
    assert match(hexagon, R, triangles, R, R, SAME, DIFFERENT).answer == Answer.DIFFERENT
    assert not np.array_equal(canonical(hexagon, R, R)[0], canonical(triangles, R, R)[0])


@pytest.mark.parametrize("backtracking", [True, False])
@pytest.mark.parametrize(
    ("shift", "answer"),
    [(0.0, Answer.SAME), (SAME / 4, Answer.SAME), (30 * SAME, Answer.REPOLISH), (3 * DIFFERENT, Answer.DIFFERENT)],
)
def test_match_answers_by_the_size_of_the_difference(shift, answer, backtracking, monkeypatch):
    if not backtracking:
        monkeypatch.setattr(canonical_forms, "SEARCH_LIMIT", -math.inf)  # by canonical labelling alone
    rng = np.random.default_rng(2)
    Q, R = block_network([3, 8, 6])
    students, teachers = rng.permutation(17), rng.permutation(17)
    other_Q, other_R = permuted(Q, R, students, teachers)
    other_R[0, 0] += shift
    other_Q[1, 2] += shift / 2
    other_Q[2, 1] += shift / 2
    for a, b in permutations([(Q, R), (other_Q, other_R)]):
        found = match(*a, *b, np.eye(17), SAME, DIFFERENT)
        assert found.answer == answer
        if found.students is None or found.teachers is None:
            assert answer == Answer.DIFFERENT and found.deviation == math.inf
        else:
            moved = permuted(*b, found.students, found.teachers)
            largest = max(np.abs(x - y).max() for x, y in zip(a, moved, strict=True))
            assert found.deviation == pytest.approx(largest, abs=1e-15)  # rounding of entries below 10
            assert largest == pytest.approx(shift, abs=1e-14)  # the best permutation undoes the shuffle


@settings(examples, max_examples=150)  # few of them bring entries so close that more than sorting is needed
@given(
    network=networks(3, 3, values=5),
    change=networks(3, 3, values=3),
    scale=st.sampled_from([0.9, 1.1, 1.9, 2.1]),
    students=st.permutations(range(3)),
    teachers=st.permutations(range(3)),
)
def test_match_is_right_where_linkage_chains_distinct_values(network, change, scale, students, teachers):
    # Values 0.8 apart with same = 1: linkage gives all one colour, only the entries themselves tell.
    Q_a, R_a, T = 0.8 * network[0], 0.8 * network[1], np.eye(3)
    Q_b, R_b = permuted(Q_a + scale * (change[0] - 1), R_a + scale * (change[1] - 1), students, teachers)
    target = np.concatenate([Q_a.ravel(), R_a.ravel()])
    closest = min(np.abs(copy - target).max() for copy in copies(Q_b, R_b, T))
    expected = Answer.SAME if closest <= 1 else Answer.DIFFERENT if closest > 2 else Answer.REPOLISH
    assert match(Q_a, R_a, Q_b, R_b, T, 1.0, 2.0).answer == expected
    assert match(Q_b, R_b, Q_a, R_a, T, 1.0, 2.0).answer == expected


def test_a_search_cut_short_never_claims_what_it_has_not_proven(monkeypatch):
    monkeypatch.setattr(canonical_forms, "SEARCH_LIMIT", -math.inf)
    rng = np.random.default_rng(3)
    Q, T = np.eye(6), np.eye(6)
    R = 0.8 * rng.integers(0, 9, (6, 6))
    other = R + np.linspace(-2.5, 2.5, 36).reshape(6, 6)
    found = match(Q, R, Q, rng.permutation(other.ravel()).reshape(6, 6), T, 1.0, 4.0)
    assert (found.answer, found.students, found.deviation) == (Answer.REPOLISH, None, math.inf)


def test_only_permutations_that_keep_the_teacher_overlaps_count():
    Q, R = np.diag([1.0, 2, 3]), np.array([[0.5, 0.1, 0.2], [0.0, 0.7, 0.3], [0.4, 0.6, 0.8]])
    swapped = R[:, [1, 0, 2]]
    assert match(Q, R, Q, swapped, np.diag([1.0, 1, 2]), SAME, DIFFERENT).answer == Answer.SAME
    assert match(Q, R, Q, swapped, np.diag([1.0, 2, 2]), SAME, DIFFERENT).answer == Answer.DIFFERENT
    # On a ring every teacher looks the same; students tell them apart before their neighbours are looked at.
    Q, R, ring = np.diag([1.0, 2]), np.arange(12.0).reshape(2, 6), np.eye(6) + 0.3 * cycles(6)
    assert match(Q, R, Q, R[:, [1, 2, 3, 4, 5, 0]], ring, SAME, DIFFERENT).answer == Answer.SAME
    assert match(Q, R, Q, R[:, [1, 0, 2, 3, 4, 5]], ring, SAME, DIFFERENT).answer == Answer.DIFFERENT


def test_networks_of_different_sizes_differ():
    T = np.eye(3)
    found = match(np.eye(3), T, np.eye(2), T[:2], T, SAME, DIFFERENT)
    assert (found.answer, found.deviation) == (Answer.DIFFERENT, math.inf)
    empty = np.zeros((0, 0)), np.zeros((0, 3))
    assert match(*empty, *empty, T, SAME, DIFFERENT).answer == Answer.SAME


def test_bounds_in_the_wrong_order_are_refused():
    with pytest.raises(InputError, match="must not exceed"):
        match(np.eye(2), np.eye(2), np.eye(2), np.eye(2), np.eye(2), DIFFERENT, SAME)


def test_values_chain_into_one_colour_only_where_neighbours_are_within_the_gap():
    values = np.array([0.0, 1.0, 2.0, 3.5, 4.5])
    colours = canonical_forms._Linkage([values], 1.0)(values)
    assert [bool(x == y) for x, y in pairwise(colours)] == [True, True, False, True]
