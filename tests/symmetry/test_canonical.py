"""Symmetry of overlaps: group orders against brute force and known groups, and the canonical form."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enumerator.errors import InputError, SolverError
from enumerator.symmetry import canonical as canonical_forms
from enumerator.symmetry import colouring
from enumerator.symmetry.canonical import canonical_form, group_of, interchangeable_teachers, orbit_size_log10
from tests.support.networks import (
    GAP,
    block,
    block_network,
    canonical,
    copies,
    cycles,
    examples,
    networks,
    permuted,
    side_by_side,
    teacher_group,
)

NOISE = 1e-11  # far below GAP; exact copies of polished minima differ by less


@examples
@given(networks())
def test_group_orders_are_those_of_brute_force(network):
    Q, R, T = network
    everything = copies(Q, R, T)
    form = canonical_form(Q, R, T, GAP)
    automorphisms = group_of(T)[1]
    orbit = orbit_size_log10(len(Q), automorphisms, form.stabiliser_order)
    assert automorphisms == len(teacher_group(T))
    assert form.stabiliser_order == sum(np.array_equal(copy, everything[0]) for copy in everything)
    # A logarithm of a number up to 576, in floating point.
    assert orbit == pytest.approx(math.log10(len({copy.tobytes() for copy in everything})), abs=1e-12)


def rook_graph():
    squares = list(product(range(4), repeat=2))
    return np.array([[float(a != b and (a[0] == b[0] or a[1] == b[1])) for b in squares] for a in squares])


def shrikhande_graph():
    steps = {(0, 1), (0, 3), (1, 0), (3, 0), (1, 1), (3, 3)}
    squares = list(product(range(4), repeat=2))
    return np.array([[float(((a[0] - b[0]) % 4, (a[1] - b[1]) % 4) in steps) for b in squares] for a in squares])


@pytest.mark.parametrize(
    ("T", "order"),
    [
        pytest.param(np.eye(17), math.factorial(17), id="orthonormal: S17"),
        pytest.param(block(10, 1, 0.3), math.factorial(10), id="equicorrelated: S10"),
        pytest.param(np.diag([1.0, 1, 1, 2, 2, 2, 2]), 6 * 24, id="two norms: S3 x S4"),
        pytest.param(np.diag(np.arange(1.0, 8)), 1, id="seven norms: trivial"),
        pytest.param(np.eye(7) + 0.3 * cycles(7), 14, id="circulant: dihedral, 2 M"),
        pytest.param(np.eye(24) + 0.3 * cycles(24), 48, id="circulant: dihedral, 2 M, even"),
        pytest.param(np.kron(np.diag([1.0, 2]), np.eye(5) + 0.3 * cycles(5)), 100, id="two rings: product"),
        pytest.param(np.kron(np.eye(4), block(3, 1, 0.3)), 6**4 * 24, id="four triples: wreath product"),
        pytest.param(np.eye(9) + 0.3 * cycles(3, 6), 6 * 12, id="triangle and hexagon: product"),
        # Both strongly regular (16, 6, 2, 2), and told apart by neither norms nor 1-WL; Brouwer & Van Maldeghem (2022),
        # "Strongly regular graphs", section 10.6.
        pytest.param(np.eye(16) + 0.1 * rook_graph(), 1152, id="rook graph"),
        pytest.param(np.eye(16) + 0.1 * shrikhande_graph(), 192, id="Shrikhande graph"),
    ],
)
def test_teacher_automorphisms_of_known_groups(T, order):
    shuffle = np.random.default_rng(0).permutation(len(T))
    assert group_of(T[np.ix_(shuffle, shuffle)])[1] == order


@pytest.mark.parametrize(
    ("Q", "R", "T", "order", "isotropy"),
    [
        pytest.param(np.eye(17), np.eye(17), np.eye(17), math.factorial(17), "S17", id="global minimum"),
        pytest.param(*block_network([3, 14]), np.eye(17), 6 * math.factorial(14), "S14 x S3", id="k1 = 3 of 17"),
        pytest.param(*block_network([16, 1]), np.eye(17), math.factorial(16), "S16 x S1", id="k1 = 1 of 17"),
        pytest.param(*block_network([2, 1, 2, 1]), np.eye(6), 4, "S2^2 x S1^2", id="powers"),
        pytest.param(np.zeros((0, 0)), np.zeros((0, 5)), np.eye(5), 120, "S5", id="no students"),
        pytest.param(np.eye(2), np.eye(2, 5), np.eye(5), 12, "S3 x S2", id="fewer students than teachers"),
        pytest.param(np.eye(5) + 0.1 * cycles(5), np.eye(5), np.eye(5), 10, "order 10 on 5", id="a ring: dihedral"),
        pytest.param(np.eye(3), np.ones((3, 1)), np.eye(1), 6, "S1, students S3", id="students free of teachers"),
        pytest.param(np.eye(3), np.eye(3, 2), np.eye(2), 2, "S2", id="one student free but alone"),
        # The dihedral group of a square of teachers, times the exchange of the two students that overlap with none.
        pytest.param(np.eye(6), np.eye(6, 4), np.eye(4) + 0.1 * cycles(4), 16, "order 8 on 4, students S2", id="mixed"),
    ],
)
def test_isotropy_is_named(Q, R, T, order, isotropy):
    form = canonical_form(Q, R, T, GAP)
    assert (form.stabiliser_order, form.isotropy) == (order, isotropy)


RING_OF_SIX = [np.roll(turn, shift) for turn in (np.arange(6), np.arange(6)[::-1]) for shift in range(6)]


@examples
@given(
    network=networks(teachers=6, values=3),
    ring=st.booleans(),
    data=st.data(),
    seed=st.integers(0, 2**32 - 1),
)
def test_canonical_form_is_invariant_under_the_group_and_noise(network, ring, data, seed):
    Q, R, _ = network
    T = np.eye(6) + 0.3 * cycles(6) if ring else np.eye(6)
    rng = np.random.default_rng(seed)
    students = data.draw(st.permutations(range(len(Q))))
    teachers = data.draw(st.sampled_from(RING_OF_SIX) if ring else st.permutations(range(6)))
    copy_Q, copy_R = permuted(Q, R, students, teachers)
    noise = rng.uniform(-NOISE, NOISE, Q.shape)
    copy_Q, copy_R = copy_Q + (noise + noise.T) / 2, copy_R + rng.uniform(-NOISE, NOISE, R.shape)
    form, copy_form = canonical_form(Q, R, T, GAP), canonical_form(copy_Q, copy_R, T, GAP)
    assert (form.stabiliser_order, form.isotropy) == (copy_form.stabiliser_order, copy_form.isotropy)
    before, after = canonical(Q, R, T), canonical(copy_Q, copy_R, T)
    for x, y in zip(before, after, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=2 * NOISE)  # what was added, and its rounding
    for x, y in zip(before, canonical(*before, T), strict=True):
        np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(T[np.ix_(form.teachers, form.teachers)], T)


def test_canonical_order_groups_blocks_and_matches_teachers_to_students():
    rng = np.random.default_rng(1)
    Q, R = block_network([3, 8, 6])
    shuffled = permuted(Q, R, rng.permutation(17), rng.permutation(17))
    for found, expected in zip(canonical(*shuffled, np.eye(17)), (Q, R), strict=True):
        np.testing.assert_array_equal(found, expected)  # block_network is sorted by norm and matched already


def test_teachers_keep_up_with_students_when_there_are_more_students():
    R = np.array([[0.9, 0.2, 0.1], [-0.8, 0.1, 0.0], [0.3, 0.1, -0.7], [0.2, 0.6, 0.1]])
    Q = np.diag([1.0, 2, 3, 4])
    _, ordered = canonical(*permuted(Q, R, [2, 0, 3, 1], [1, 2, 0]), np.eye(3))
    np.testing.assert_array_equal(ordered, R[:, [0, 2, 1]])


@pytest.mark.parametrize(
    ("pattern", "order"),
    [
        pytest.param(cycles(6, 3, 3), 12 * 72, id="told apart by refinement after one choice"),
        # Around a square the rook graph has two triangles, the Shrikhande graph a hexagon.
        pytest.param(side_by_side(rook_graph(), shrikhande_graph()), 1152 * 192, id="not told apart after one choice"),
    ],
)
def test_canonical_form_is_invariant_where_refinement_joins_different_orbits(pattern, order):
    n = len(pattern)
    rng = np.random.default_rng(5)
    Q, R = np.eye(n) + 0.1 * pattern, np.eye(n)
    expected = canonical(Q, R, R)
    for _ in range(2):
        shuffled = permuted(Q, R, rng.permutation(n), rng.permutation(n))
        np.testing.assert_array_equal(canonical(*shuffled, R), expected)
        assert canonical_form(*shuffled, R, GAP).stabiliser_order == order


@pytest.mark.parametrize("refinement", [True, False])
def test_the_search_is_right_however_little_refinement_tells(refinement, monkeypatch):
    if not refinement:
        monkeypatch.setattr(colouring, "_refine", lambda edges, colours, *_: colouring.Cells(colours, b""))
    # Two pairs, told apart by the overlap within a pair; the one symmetry exchanges the students of both.
    Q = np.array([[1.0, 0.2, 0.3, 0.4], [0.2, 1.0, 0.4, 0.3], [0.3, 0.4, 1.0, 0.1], [0.4, 0.3, 0.1, 1.0]])
    R, T = np.ones((4, 1)), np.eye(1)
    for students in ([0, 1, 2, 3], [0, 2, 3, 1], [2, 0, 3, 1], [3, 0, 1, 2]):
        shuffled = permuted(Q, R, students, [0])
        np.testing.assert_array_equal(canonical(*shuffled, T)[0], canonical(Q, R, T)[0])
        assert canonical_form(*shuffled, T, GAP).stabiliser_order == 2


@examples
@given(networks(4, 4, values=3), st.integers(0, 7))
def test_refined_cells_are_equitable(network, node):
    (edges,) = canonical_forms._coloured([network[:2]], network[2], GAP)
    cells = colouring.refined_cells(edges)
    for refined in (cells, colouring.individualise(edges, cells, node)):
        for cell, splitter in product(np.unique(refined.colours), repeat=2):
            rows = edges[np.ix_(refined.colours == cell, refined.colours == splitter)]
            assert len(np.unique(np.sort(rows, axis=1), axis=0)) == 1


def test_rounding_that_breaks_the_symmetry_of_a_matrix_does_no_harm():
    Q, T = block(5, 1, 0.3), np.eye(5)
    Q[3, 1] = np.nextafter(Q[1, 3], -1)
    assert canonical_form(Q, T, T, GAP).isotropy == "S5"


@pytest.mark.parametrize("M", [17, 64])
def test_the_full_symmetric_group_costs_a_number_of_refinements_linear_in_its_degree(M, monkeypatch):
    calls = []
    refine = colouring.individualise
    monkeypatch.setattr(colouring, "individualise", lambda *arguments: calls.append(1) or refine(*arguments))
    shuffle = np.random.default_rng(4).permutation(M)
    assert canonical_form(np.eye(M), np.eye(M)[shuffle], np.eye(M), GAP).stabiliser_order == math.factorial(M)
    assert len(calls) <= 2 * M  # one per student at the top, one per level below; a search per level would be M^2 / 2


@examples
@given(networks(students=0, values=2))
def test_interchangeable_teachers_are_those_whose_exchange_changes_nothing(network):
    T = network[2]
    classes = interchangeable_teachers(T)
    assert sorted(np.concatenate(classes)) == list(range(len(T)))
    together = {pair for group in classes for pair in combinations(group.tolist(), 2)}
    for i, j in combinations(range(len(T)), 2):
        exchange = np.arange(len(T))
        exchange[[i, j]] = j, i
        assert ((i, j) in together) == np.array_equal(T[np.ix_(exchange, exchange)], T)


def test_orbit_sizes_are_exact_integers_before_the_logarithm():
    assert orbit_size_log10(17, math.factorial(17), math.factorial(17)) == pytest.approx(
        math.lgamma(18) / math.log(10), rel=1e-14
    )
    # 300! is beyond the range of float64: the quotient, not its factors, is converted.
    assert orbit_size_log10(300, math.factorial(300), math.factorial(300) * math.factorial(299)) == pytest.approx(
        math.log10(300), rel=1e-14
    )
    with pytest.raises(SolverError, match="does not divide"):
        orbit_size_log10(3, 2, 5)


@pytest.mark.parametrize(
    ("Q", "R", "T", "gap", "message"),
    [
        (np.eye(2), np.eye(3), np.eye(3), GAP, "expected overlaps"),
        (np.eye(2), np.eye(2), np.eye(3), GAP, "expected overlaps"),
        (np.full((2, 2), np.nan), np.eye(2), np.eye(2), GAP, "must be finite"),
        (np.triu(np.ones((2, 2))), np.eye(2), np.eye(2), GAP, "must be symmetric"),
        (np.eye(2), np.eye(2), np.eye(2), math.nan, "a gap between values"),
    ],
)
def test_bad_input_is_refused(Q, R, T, gap, message):
    with pytest.raises(InputError, match=message):
        canonical_form(Q, R, T, gap)
