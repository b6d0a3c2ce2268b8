"""`identify`: how it reads weights, teachers and overlaps, and what it says when another reading fits better."""

import json
from pathlib import Path

import numpy as np
import pytest

import enumerator as en
from cluster.cli import run_command
from enumerator.catalogue.records import from_table
from enumerator.identification import identify
from enumerator.identification.given_network import given_network
from tests.support.planting import FLOW, GIVEN, solved


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """K = M = 4 with orthonormal teachers, its zero loss and saddles; and the same size with erf."""
    atlas = en.Catalogue(tmp_path_factory.mktemp("identify") / "atlas", create=True)
    for campaign in (FLOW, GIVEN):
        size = len(solved(campaign).starts.outcome)
        atlas.register(campaign, size, "cpu")
        atlas.commit_shard(solved(campaign), 0, size)
        atlas.finish(campaign.id)
    return atlas


@pytest.fixture(scope="module")
def zero(atlas):
    return next(row["label"] for row in from_table(atlas.minima()) if row["loss"] < 1e-15)


@pytest.fixture
def command(atlas, tmp_path, monkeypatch, capsys):
    """Runs `identify` on a file of these arrays: exit code, the row or None, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(arrays, *options):
        np.savez("network.npz", **arrays)
        code = run_command(["identify", atlas.store.address, "network.npz", *options, "--format", "json"])
        out, err = capsys.readouterr()
        return code, json.loads(out)[0] if out else None, err

    return run


def turned(d=20, K=4, noise=0.0, seed=0):
    """Weights W (K, d) near zero loss, as a network holds them, and their teachers V (4, d), both turned."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(d, d)))[0]
    V = np.sqrt(d) * np.eye(4, d) @ turn
    return V[rng.permutation(4)[:K]] + noise * rng.normal(size=(K, d)), V


@pytest.mark.parametrize("kind", ["double", "single", "copies of single", "half"])
def test_weights_of_any_precision_are_taken_with_their_own_teachers(atlas, zero, kind):
    W, V = turned()
    if kind != "double":
        W, V = (x.astype(np.float16 if kind == "half" else np.float32) for x in (W, V))
    if kind == "copies of single":
        W, V = W.astype(np.float64), V.astype(np.float64)
    found = en.identify(atlas, W=W, V=V)
    eps = {"double": 0.0, "half": 2.0**-10}.get(kind, 2.0**-23)
    assert found.rounding == max(1e-9, 100 * eps)
    assert (found.nearest, found.reached, found.landscape_id) == (zero, zero, FLOW.landscape.id)
    assert found.distance is not None and found.distance < max(1e-12, 20 * eps)
    assert (found.students, found.teachers, found.dimension) == (4, 4, 20)
    assert (found.teacher, found.units, found.hint) == ("orthonormal", "f(x) = sum g(w.x/sqrt d)", None)


def test_overlaps_in_single_precision_are_feasible_up_to_its_rounding(atlas, zero):
    W, V = (x / np.sqrt(20) for x in turned())
    Q, R = (W @ W.T).astype(np.float32), (W @ V.T).astype(np.float32)
    Q[0, 0] -= 2e-6  # its eigenvalue would be negative by that
    found = en.identify(atlas, Q=Q, R=R, T=V @ V.T)
    assert (found.nearest, found.units, found.dimension) == (zero, "overlaps", None)
    exact = Q.astype(np.float64) + 1e-12
    with pytest.raises(en.InputError, match="no weights have these overlaps"):
        en.identify(atlas, Q=(exact + exact.T) / 2, R=W @ V.T, T=V @ V.T)


def test_short_numbers_in_double_precision_are_exact():
    assert given_network(None, None, np.eye(3), np.eye(3), None, False).rounding == 1e-9
    assert given_network(np.eye(3), None, None, None, None, True).rounding == 1e-9


def test_normalized_weights_in_single_precision_are_on_their_manifold(atlas):
    W = np.random.default_rng(0).normal(size=(2, 3))
    W = (W / np.linalg.norm(W, axis=1)[:, None]).astype(np.float32)
    found = en.identify(atlas, W=W, reduced=True, landscape=en.Landscape(2, 2, constraint="normalized"))
    assert found.outcome in ("converged", "saddle")


READINGS = {
    "unit teachers": ({}, lambda W, V: {"W": W / np.sqrt(6), "V": V / np.sqrt(6)}, "give `reduced`"),
    "transposed": ({}, lambda W, V: {"W": W.T, "V": V.T}, "give the transpose"),
    "both": ({}, lambda W, V: {"W": W.T / np.sqrt(6), "V": V.T / np.sqrt(6)}, "give the transpose and `reduced`"),
    "not reduced": ({"reduced": True}, lambda W, V: {"W": W, "V": V}, "leave `reduced` out"),
}


@pytest.mark.parametrize(("options", "given", "advice"), READINGS.values(), ids=READINGS)
def test_another_reading_that_fits_the_catalogue_better_is_named(atlas, zero, command, options, given, advice):
    arrays = given(*turned(6, noise=0.01))
    found = en.identify(atlas, **arrays, **options)
    assert found.hint is not None and found.hint.endswith(f"{advice}.")
    assert "K = 4, M = 4, d = 6" in found.hint and f"away from {zero}" in found.hint
    if "transpose" in advice:
        return
    code, row, err = command(arrays, *(f"--{name}" for name in options))
    assert (code, row) == (0, vars(found) | {"hint": found.hint.replace("`reduced`", "`--reduced`")})
    held, reduced = "f(x) = sum g(w.x/sqrt d) (weights as a network holds them)", "f(x) = sum g(w.x) (reduced weights)"
    taken, meant = (reduced, held) if options else (held, reduced)
    size = f"K = {found.students}, M = {found.teachers}, d = {found.dimension}"
    assert f"Read as {size}, {found.teacher} teachers, {taken}, exact to" in err
    assert found.hint.startswith(f"Read as {meant}, with K = 4, M = 4, d = 6, it is at most")
    assert f"{meant}, with K = 4" in err and "`--reduced`" in err and "`reduced`" not in err
    other = en.identify(atlas, **arrays, reduced=not options)
    assert (other.nearest, other.hint) == (zero, None)


def test_weights_alone_are_read_with_hints_too(atlas, zero, command):
    W = np.sqrt(20) * np.eye(4, 20) + 0.01
    assert en.identify(atlas, W=W, teachers=4).nearest == zero
    assert "give `reduced`." in str(en.identify(atlas, W=W / np.sqrt(20), teachers=4).hint)
    with pytest.raises(en.InputError, match=r"4 students and 4 teachers .* give the transpose\."):
        en.identify(atlas, W=W.T, teachers=4, students=4)
    code, _, err = command({"W": W.T})
    assert (code, "landscapes of this catalogue have 20 students" in err) == (2, True)
    assert err.strip().endswith("give the transpose.")
    code, _, err = command({"W": W.T / np.sqrt(20)})
    assert (code, err.strip().endswith("give the transpose and `--reduced`.")) == (2, True)
    far = en.identify(atlas, W=np.sqrt(20) * np.random.default_rng(0).normal(size=(4, 20)), teachers=4)
    assert far.hint is None


def test_teachers_of_another_size_are_one_line_and_exit_code_2(command):
    arrays = {"Q": np.eye(4), "R": np.eye(4), "T": np.eye(3)}
    code, _, err = command(arrays, "--landscape", FLOW.landscape.id)
    assert (code, err.count("\n")) == (2, 1)
    assert "expected Q (K, K), R (K, M) and T (M, M), got (4, 4), (4, 4), (3, 3)" in err
    W, V = turned()
    for arrays in ({"W": W, "V": V[:3]}, {"W": W[:3], "V": V}, {"W": W, "V": V[:, :19]}):
        code, _, err = command(arrays, "--landscape", FLOW.landscape.id)
        assert (code, err.count("\n")) == (2, 1)


def test_two_landscapes_with_the_same_teachers_are_told_apart_by_the_user(tmp_path):
    atlas = en.Catalogue(tmp_path / "atlas", create=True)
    for activation in ("relu", "erf"):
        atlas.register(en.Campaign(en.Landscape(2, 2, activation=activation)), 1, "cpu")
    with pytest.raises(en.InputError, match="2 landscapes of this catalogue have 2 students and 2 teachers"):
        en.identify(atlas, Q=np.eye(2), R=np.eye(2), T=np.eye(2))


WRONG = {
    "nothing": ({}, "got none of them"),
    "half of it": ({"Q": np.eye(2)}, "got Q"),
    "both": ({"W": np.eye(2), "Q": np.eye(2), "R": np.eye(2)}, "got W, Q, R"),
    "ragged": ({"W": [[1.0, 2.0], [1.0]]}, "finite real numbers"),
    "text": ({"W": [["a", "b"]]}, "finite real numbers"),
    "complex": ({"W": 1j * np.eye(2)}, "finite real numbers"),
    "too large": ({"W": 1e200 * np.eye(2), "teachers": 2}, "squares"),
    "reduced overlaps": ({"Q": np.eye(2), "R": np.eye(2), "reduced": True}, "always reduced"),
    "landscape and teachers": ({"W": np.eye(2), "landscape": "ls-0", "teachers": 2}, "not both"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_what_is_no_network_is_an_input_error(atlas, arguments, message):
    with pytest.raises(en.InputError, match=message):
        en.identify(Path(atlas.store.address), **arguments)


def test_no_flow_is_followed_where_it_is_proven_where_it_ends(atlas, zero, monkeypatch):
    """Within the ball the answer is that of the flow, without the seconds that its compilation takes."""
    W, V = turned(noise=1e-4)
    weights, known = given_network(W, V, None, None, None, False).weights_in(FLOW.landscape), atlas.points
    followed = identify._end_of_flow(FLOW.landscape, weights, known(FLOW.landscape.id, "minima"))
    monkeypatch.delattr(identify, "solve_starts")
    found = en.identify(atlas, W=W, V=V)
    assert (found.inside, found.outcome, found.reached) == (True, followed.outcome, zero)
    assert (found.reached_loss, found.reached_order) == pytest.approx((followed.loss, followed.order), abs=1e-12)
    assert followed.label == zero


def test_the_answer_says_whether_the_distance_is_a_bound(atlas, zero, command):
    """All students of a saddle coincide: how far its flat family is from other students is known from above only."""
    W, V = turned(noise=0.5)
    code, row, err = command({"W": W, "V": V})
    assert (code, row["nearest"], row["proven"], "at most" in err) == (0, zero, True, False)
    equal = 0.1 + 0.01 * np.random.default_rng(0).normal(size=(4, 4))
    code, row, err = command({"Q": equal @ equal.T, "R": equal}, "--teachers", "4")
    assert (code, row["proven"], "at most, and another may be nearer" in err) == (0, False, True)
