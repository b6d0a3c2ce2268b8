"""Aut(T) is decided once: teachers that are symmetric, nearly symmetric, and rounded to the symmetric ones nearby."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cluster.cli import run_command
from cluster.inputs import loaded, nearly_symmetric, read_campaign_file, request
from enumerator.catalogue.catalogue import Catalogue
from enumerator.dynamics.symmetric_starts import lane_classes
from enumerator.enumeration import enumerate_minima
from enumerator.errors import InputError
from enumerator.problem import InitialLaw, Landscape
from enumerator.symmetry.canonical import group_of
from enumerator.symmetry.teachers import ROUNDING, near_symmetry, snapped, teacher_classes
from enumerator.verification.verify import find_disagreements
from tests.support.brute_symmetry import recomputed
from tests.support.networks import block, cycles, teacher_group


def near_one_anti_aligned(teachers: int) -> InitialLaw:
    """A start near the teachers themselves, and one near each configuration with one anti-aligned student."""
    rng = np.random.default_rng(0)
    W = np.eye(teachers) + 0.01 * rng.normal(size=(teachers + 1, teachers, teachers))
    for m in range(teachers):
        W[m + 1, m, m] -= 1.8
        W[m + 1, :, m] += 0.09
    return InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W)


def enumerated(landscape: Landscape, law: InitialLaw, folder) -> tuple[list[dict], list[dict], list]:
    """The rows of the call and of a catalogue, by loss, and what verification finds in the catalogue."""
    with pytest.warns(UserWarning, match="symmetric only nearly"):
        found = enumerate_minima(landscape, len(law.Q), law=law)
    atlas = Catalogue(folder / "atlas", create=True)
    campaign = found.result.campaign
    atlas.register(campaign, len(law.Q), "cpu")
    atlas.commit_shard(found.result, 0, len(law.Q))
    atlas.finish(campaign.id)
    rows = [sorted(table.to_pylist(), key=lambda row: row["loss"]) for table in (found.minima, atlas.minima())]
    return rows[0], rows[1], find_disagreements(atlas)


# diag(1 + 1e-8 (1, ..., 7)): the loss of the minimum whose anti-aligned student stands at teacher m, by perturbation
# of that at T = I, and as the exhaustive enumeration has it.
LOSSES = [0.02320271536563, 0.02320271552431, 0.02320271568299, 0.02320271584168]
LOSSES += [0.02320271600035, 0.02320271615903, 0.02320271631771]


def test_minima_of_nearly_symmetric_teachers_are_those_of_their_own_T(tmp_path):
    landscape = Landscape(7, 7, np.diag(1 + 1e-8 * np.arange(1, 8)))
    called, stored, wrong = enumerated(landscape, near_one_anti_aligned(7), tmp_path)
    assert wrong == []
    assert [row["loss"] for row in called] == [row["loss"] for row in stored]
    assert [row["loss"] for row in stored] == pytest.approx([0.0, *LOSSES], abs=1e-14)
    for teacher, row in enumerate(stored, start=-1):
        own = recomputed(row, landscape.T)
        assert own["gradient"] < 1e-14 and own["off_span"] < 1e-14
        assert row["isotropy"] == own["isotropy"] == "S1^7"
        assert row["orbit_size_log10"] == pytest.approx(math.log10(5040), abs=1e-12)
        assert own["orbit_size_log10"] == pytest.approx(math.log10(5040), abs=1e-12)
        if teacher >= 0:
            assert np.unravel_index(np.argmin(row["R"]), (7, 7))[1] == teacher


W = np.eye(3)[[1, 2, 0]] + 0.01 * np.random.default_rng(1).normal(size=(4, 3, 3))
NEAR_THREE = InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W)


@pytest.mark.parametrize("eps", [1e-12, 1e-10, 1e-7])
def test_the_teachers_themselves_are_a_minimum_of_their_own_T(eps, tmp_path):
    landscape = Landscape(3, 3, np.diag(1 + eps * np.arange(1, 4)))
    called, stored, wrong = enumerated(landscape, NEAR_THREE, tmp_path)
    assert wrong == []
    for (row,) in (called, stored):
        own = recomputed(row, landscape.T)
        assert own["gradient"] < 1e-14 and own["off_span"] < 1e-14
        assert (row["isotropy"], own["isotropy"]) == ("S1^3", "S1^3")


def test_the_brute_force_agrees_where_teachers_are_symmetric():
    (row,) = enumerate_minima(Landscape(3, 3), 4, law=NEAR_THREE).minima.to_pylist()
    own = recomputed(row, np.eye(3))
    assert (row["isotropy"], own["isotropy"]) == ("S3", "S3")
    assert own["orbit_size_log10"] == pytest.approx(row["orbit_size_log10"], abs=1e-12) == math.log10(6)


def regular_polygon(teachers: int, precision: type) -> np.ndarray:
    """Weights (M, 2), evenly around a circle."""
    angles = 2 * np.pi * np.arange(teachers) / teachers
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(precision).astype(np.float64)


def test_rounding_breaks_no_symmetry_and_T_stays_as_it_is():
    V = regular_polygon(7, np.float64)
    T = (V @ V.T + (V @ V.T).T) / 2
    assert len(teacher_group(T)) < 14  # entry by entry, rounding has broken it
    landscape = Landscape(7, 7, T)
    assert np.array_equal(landscape.T, T)
    assert group_of(landscape.teacher_classes) == ("order 14 on 7", 14)
    assert near_symmetry(T) is None and np.array_equal(snapped(T), T)


@pytest.mark.parametrize("unit", [1e-250, 1e-12, 1.0, 1e300])
@pytest.mark.parametrize("eps", [1e-13, 1e-10, 1e-6])
def test_what_is_more_than_rounding_counts_in_any_unit(unit, eps):
    T = unit * block(4, 1, 0.3)
    assert group_of(teacher_classes(T))[1] == 24
    norms, overlaps = T.copy(), T.copy()
    norms[0, 0] += unit * eps
    overlaps[0, 1] = overlaps[1, 0] = overlaps[0, 1] + unit * eps
    assert group_of(teacher_classes(norms))[1] == 6
    assert group_of(teacher_classes(overlaps))[1] == 4


def test_teachers_of_no_norm_are_equal():
    """Also where rounding leaves one just below."""
    assert group_of(Landscape(4, 4, np.diag([1.0, 0.0, 1.0, -1e-17])).teacher_classes) == ("S2^2", 4)


def test_no_permutation_in_the_group_moves_an_entry_by_more_than_rounding():
    """A chain of values, each within rounding of the next, is no class: its ends differ."""
    squared = 1 + 20 * np.finfo(float).eps * np.arange(8)
    group = teacher_group(teacher_classes(np.diag(squared)))
    assert len(group) == 2**4
    assert max(np.abs(squared[list(order)] - squared).max() for order in group) <= ROUNDING


def test_symmetric_starts_on_nearly_symmetric_teachers_have_no_symmetry():
    """Two values of T differ here where they do elsewhere: a lane held together would not follow the flow."""
    Q, R = np.eye(3), 0.5 * np.eye(3)
    assert lane_classes(Q, R, Landscape(3, 3, np.diag(1 + 5e-13 * np.arange(1, 4)))) is None
    assert lane_classes(Q, R, Landscape(3, 3, 2 * np.eye(3))).max() + 1 == 4


def rotation(teachers: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(0).normal(size=(teachers, teachers)))[0]


def test_snapping_gives_the_symmetric_teachers_nearby():
    V = rotation(7).astype(np.float32).astype(np.float64)
    near = near_symmetry(V @ V.T)
    assert near is not None and (near.own, near.nearby) == ("S1^7", "S7")
    assert near.deviation == np.abs(V @ V.T - np.eye(7)).max() < 1e-7
    assert Landscape(7, 7, V @ V.T, snap_teachers=True) == Landscape(7, 7)

    V = regular_polygon(5, np.float32)
    T = Landscape(5, 5, V @ V.T, snap_teachers=True).T
    assert len(teacher_group(T)) == 10  # exactly
    assert np.abs(T - V @ V.T).max() < 1e-7
    assert Landscape(5, 5, T).teacher_rank == 2
    assert near_symmetry(T) is None and np.array_equal(snapped(T), T)


def test_snapping_leaves_alone_what_is_not_nearly_symmetric():
    V = np.random.default_rng(2).normal(size=(6, 6))
    for T in (V @ V.T, np.eye(6) + 0.3 * cycles(6), np.diag([1.0, 1, 2, 2, 3, 3.001])):
        assert near_symmetry(T) is None
        assert np.array_equal(snapped(T), T)
    with pytest.raises(InputError, match="must be symmetric"):
        Landscape(2, 2, np.array([[1, 0.1], [0.2, 1]]), snap_teachers=True)
    with pytest.raises(InputError, match="positive semidefinite"):
        Landscape(2, 2, np.diag([1.0, -1.0]), snap_teachers=True)


def test_the_command_says_what_is_nearly_symmetric_and_rounds_it_on_demand(tmp_path, capsys):
    np.save(tmp_path / "T.npy", np.eye(3) + 1e-8 * np.diag([1, 2, 3]))
    (tmp_path / "near.toml").write_text('students = 3\nteachers = 3\nteacher = "T.npy"\n')
    (tmp_path / "snapped.toml").write_text('students = 3\nteachers = 3\nteacher = "T.npy"\nsnap_teachers = true\n')
    near, rounded = (request(loaded(read_campaign_file(tmp_path / f"{name}.toml"))) for name in ("near", "snapped"))
    (line,) = nearly_symmetric([near, rounded, near])
    assert "its group is S1^3, that of a T within 3e-08 is S3" in line
    assert "--snap-teachers" in line and "\n" not in line
    assert rounded.campaign.landscape.is_orthonormal and not near.campaign.landscape.is_orthonormal
    for flags, says in (((), True), (("--snap-teachers",), False)):
        # Refused before anything starts, since the folder holds other files; what is to be said is said before.
        assert run_command(["run", str(tmp_path / "near.toml"), "--catalogue", str(tmp_path), *flags]) == 2
        error = capsys.readouterr().err
        assert "not a catalogue" in error and (line in error) == says
