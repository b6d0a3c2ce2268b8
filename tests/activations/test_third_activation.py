"""An activation in one more file, neither homogeneous nor odd: everything runs over it, verification included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cluster.cli import run_command
from enumerator import Campaign, Catalogue, Dynamics, InitialLaw, Landscape
from enumerator.activations import ACTIVATIONS, activation_named, homogeneous
from enumerator.follow import follow_shard
from enumerator.loss.population import exact_loss, gradient, hessian, perpendicular_block
from enumerator.minima.balls import hessian_lipschitz
from enumerator.starts import Outcome
from enumerator.verification.recompute import recompute
from enumerator.verification.verify import verify
from tests.support.shapes import FEW

SMOOTH, CENTRED = "smooth_relu", "centred_relu"
# Rounding of sums of some dozens of terms of size one.
ROUNDING = 1e-12


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    monkeypatch.setitem(ACTIVATIONS, SMOOTH, "tests.support.third_activation:SmoothRectifier")
    monkeypatch.setitem(ACTIVATIONS, CENTRED, "tests.support.third_activation:CentredRectifier")


def networks(seed, K=2, M=2, D=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(K, D)), rng.normal(size=(M, D))


@pytest.mark.parametrize("name", [*ACTIVATIONS, SMOOTH, CENTRED])
def test_an_activation_is_what_it_says(name):
    g = activation_named(name, 0.3 if name == "leaky_relu" else None)
    z = jnp.linspace(-3, 3, 41)
    value = np.asarray(g.apply(z))
    assert g.is_homogeneous == bool(np.abs(g.apply(2.5 * z) - 2.5 * value).max() < 1e-14) == (name in homogeneous())
    assert g.is_odd == bool(np.abs(g.apply(-z) + value).max() < 1e-14)
    assert np.abs(g.apply(-z) - value).max() > 0.1  # w and -w are two neurons
    assert g.vanishes_at_rest == (name != SMOOTH)
    if g.is_homogeneous:
        slopes = g.slopes
        assert np.abs(np.where(z > 0, slopes[0], slopes[1]) * z - value).max() < 1e-14


@pytest.mark.parametrize("name", ["leaky_relu", "erf", SMOOTH, CENTRED])
def test_verification_derives_what_the_solvers_write_out(name):
    """Loss, gradient, spectra of Hessian and C of a network that is no stationary point, by both routes."""
    landscape = Landscape(2, 2, activation=name, activation_slope=0.3 if name == "leaky_relu" else None)
    W, V = networks(0, D=2)[0], np.eye(2)
    value = recompute(W @ W.T, W, landscape)
    H = np.asarray(hessian(landscape.g, jnp.asarray(W), jnp.asarray(V))).reshape(4, 4)
    C = np.asarray(perpendicular_block(landscape.g, jnp.asarray(W), jnp.asarray(V)))
    slope = float(jnp.linalg.norm(gradient(landscape.g, jnp.asarray(W), jnp.asarray(V))))
    assert value.loss == pytest.approx(exact_loss(landscape.g, W, V), abs=ROUNDING)
    assert value.gradient_norm == pytest.approx(slope, abs=ROUNDING)
    assert np.abs(value.hessian - np.linalg.eigvalsh(H)).max() < ROUNDING
    assert np.abs(value.perpendicular - np.linalg.eigvalsh(C)).max() < ROUNDING


@pytest.mark.parametrize("name", [SMOOTH, CENTRED])
def test_its_loss_is_half_the_mean_squared_error(name):
    g, (W, V) = activation_named(name), networks(7)
    x = np.random.default_rng(0).normal(size=(400_000, 3))
    errors = np.asarray(g.apply(jnp.asarray(x @ W.T)).sum(axis=1) - g.apply(jnp.asarray(x @ V.T)).sum(axis=1))
    values = errors**2 / 2
    assert abs(values.mean() - exact_loss(g, W, V)) < 4 * values.std() / np.sqrt(len(x))


@pytest.mark.parametrize("name", [SMOOTH, CENTRED])
def test_its_hessian_moves_by_no_more_than_the_lipschitz_bound(name):
    g, (W, V), radius = activation_named(name), networks(5), 0.2
    bound = hessian_lipschitz(g, np.linalg.norm(W, axis=1), np.linalg.norm(V, axis=1), radius)
    at = jax.jit(lambda W: hessian(g, W, jnp.asarray(V)).reshape(6, 6))
    before, rng = np.asarray(at(jnp.asarray(W))), np.random.default_rng(1)
    for _ in range(50):
        step = rng.normal(size=W.shape)
        step *= radius / np.linalg.norm(step)
        assert np.linalg.norm(np.asarray(at(jnp.asarray(W + step))) - before, 2) <= bound * radius


def test_it_is_enumerated_verified_and_identified(tmp_path, capsys):
    """K = 3, M = 2: no zero loss where g is positive; with g(0) = 0 the third student rests at zero, isolated."""
    atlas = Catalogue(tmp_path / "atlas", create=True)
    for name, dynamics in ((SMOOTH, Dynamics()), (CENTRED, Dynamics("gradient-descent", step=0.5))):
        campaign = Campaign(Landscape(3, 2, activation=name), dynamics, InitialLaw(5))
        atlas.register(campaign, 20, "cpu")
        result = follow_shard(campaign, 0, 20, FEW)
        assert (result.starts.outcome == Outcome.CONVERGED).all()
        atlas.commit_shard(result, 0, 20)
        atlas.finish(campaign.id)
    losses = {name: atlas.minima(activation=name)["loss"].to_numpy() for name in (SMOOTH, CENTRED)}
    assert losses[SMOOTH].min() > 1e-6
    (zero,) = atlas.minima(activation=CENTRED, where="loss < 1e-15").to_pylist()
    assert (zero["effective_students"], zero["flat_dimension"], zero["verdict"]) == (2, 0, "minimum")
    assert verify(atlas, sample=1).to_pylist() == []

    row = atlas.minima(activation=SMOOTH).to_pylist()[0]
    R = np.array(row["R"]).reshape(3, 2)
    np.savez(tmp_path / "network.npz", Q=np.array(row["Q"]).reshape(3, 3), R=R)
    of = ["identify", str(tmp_path / "atlas"), str(tmp_path / "network.npz"), "--landscape", row["landscape_id"]]
    assert run_command(of) == 0
    assert f"Nearest: {row['label']}" in capsys.readouterr().err


def test_a_trained_second_layer_names_the_activations_that_it_goes_with(tmp_path, capsys):
    code = run_command(["run", *f"--students 2 --teachers 2 --activation {SMOOTH} --second-layer trained".split(),
                        "--starts", "1", "--catalogue", str(tmp_path / "atlas")])  # fmt: skip
    assert code == 2
    assert "constraint none and activation relu or leaky_relu" in capsys.readouterr().err
