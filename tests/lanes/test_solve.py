"""The batch loop: no shape is compiled twice, and what is stored of the global minimum is exact."""

import jax
import numpy as np
import pytest

from enumerator.catalogue.catalogue import Catalogue
from enumerator.dynamics import steppers
from enumerator.follow import follow_shard
from enumerator.lanes.batch import BatchShape
from enumerator.problem import Campaign, InitialLaw, Landscape, Tolerances
from tests.support.references import exact_global_spectrum
from tests.support.shapes import FEW


def test_a_few_fixed_shapes_so_that_nothing_recompiles(monkeypatch):
    """A tick is traced once for each of two batch sizes, 16 and 8, whatever the number of starts."""
    traced = []
    plain = steppers.STEPPERS["gradient-flow"]

    def counting(*settings):
        stepper = plain(*settings)

        def tick(V, project, state):
            traced.append(1)
            return stepper.tick(V, project, state)

        return stepper._replace(tick=tick)

    monkeypatch.setitem(steppers.STEPPERS, "gradient-flow", counting)
    # Tolerances of its own, so that no other test has compiled for them.
    campaign = Campaign(Landscape(4, 4), law=InitialLaw(4), tolerances=Tolerances(step_error=1.1e-4))
    shape = BatchShape(lanes=16, ticks=32)
    follow_shard(campaign, 0, 40, shape)
    first = len(traced)
    assert first == 2
    follow_shard(campaign, 40, 57, shape)
    follow_shard(campaign, 57, 200, shape)
    assert len(traced) == first


@pytest.mark.parametrize("M", [6, 13, 24])
def test_the_stored_global_minimum_has_the_exact_spectrum_under_a_rotation_of_the_teacher(M, tmp_path):
    rng = np.random.default_rng(M)
    V = np.linalg.qr(rng.normal(size=(M, M)))[0]
    W = V + 0.1 * rng.normal(size=(4, M, M)) / np.sqrt(M)
    landscape = Landscape(M, M, V @ V.T)
    assert landscape == Landscape(M, M)  # a rotated teacher has the same overlaps
    campaign = Campaign(landscape, law=InitialLaw(Q=W @ W.transpose(0, 2, 1), R=W @ V.T))
    atlas = Catalogue(tmp_path / "atlas", create=True)
    atlas.register(campaign, shard_size=4, device="cpu")
    atlas.commit_shard(follow_shard(campaign, 0, 4, FEW), 0, 4)
    (row,) = atlas.minima().to_pylist()
    assert row["hits"] == 4
    assert row["loss"] < 1e-14
    assert np.abs(np.array(row["hessian_spectrum"]) - exact_global_spectrum(M)).max() < 1e-9
    exact_block = np.array([1 / 4] * (M - 1) + [(M + 1) / 4])
    assert np.abs(np.array(row["perpendicular_spectrum"]) - exact_block).max() < 1e-9
    # Students permuted onto their teachers: the orbit has M! members, log10 of which is stored.
    assert row["isotropy"] == f"S{M}"
    assert row["orbit_size_log10"] == pytest.approx(np.log10(np.arange(1, M + 1)).sum(), abs=1e-9)


def gpus():
    try:
        return jax.devices("gpu")
    except RuntimeError:
        return []


@pytest.mark.gpu
@pytest.mark.skipif(not gpus(), reason="no GPU that JAX can use: set JAX_PLATFORMS=cuda,cpu on a machine with one")
def test_cpu_and_gpu_end_in_the_same_minima():
    """Rounding differs between devices, so a start may end elsewhere only if it lies on a border of two basins."""
    campaign = Campaign(Landscape(9, 9), law=InitialLaw(40))
    losses = []
    for device in (jax.devices("cpu")[0], gpus()[0]):
        with jax.default_device(device):
            result = follow_shard(campaign, 0, 1000, BatchShape(lanes=256, ticks=64))
        losses.append(np.array([point.loss for point in result.points] + [np.nan])[result.starts.point])
    assert np.mean(np.abs(losses[0] - losses[1]) < 1e-12) > 0.998
