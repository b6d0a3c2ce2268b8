"""Constrained students: the flow stays on the manifold and descends; second order there; points outside the span."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from enumerator import Campaign, Catalogue, Dynamics, InitialLaw, InputError, Landscape
from enumerator.dynamics.steppers import stepper_for
from enumerator.follow import check_solvable, follow_shard
from enumerator.lanes.sampling import initial_weights
from enumerator.loss.population import exact_loss, weight_loss
from enumerator.minima.balls import geodesic_ball
from enumerator.minima.curvature import curvature_of
from enumerator.starts import Outcome
from enumerator.verification.verify import verify
from tests.support.shapes import FEW

CONSTRAINTS = ["normalized", "orthonormalized"]


def on_manifold(landscape, seed=0, width=None):
    rng = np.random.default_rng(seed)
    width = landscape.teacher_rank + 2 if width is None else width
    return landscape.equations.manifold.project(rng.normal(size=(landscape.students, width)))


@pytest.mark.parametrize("constraint", CONSTRAINTS)
@pytest.mark.parametrize("dynamics", [Dynamics(), Dynamics("gradient-descent", step=0.1)], ids=["flow", "descent"])
def test_the_flow_stays_on_the_manifold_and_descends(constraint, dynamics):
    """Q_kk = 1, or Q = I, to 1e-12 all along, held by projection at each accepted step."""
    campaign = Campaign(Landscape(5, 4, constraint=constraint), dynamics, InitialLaw(20))
    landscape, V = campaign.landscape, jnp.eye(4)
    stepper = stepper_for(dynamics, landscape.equations, campaign.tolerances)
    state = stepper.init(V, lambda rate: rate, jnp.asarray(initial_weights(campaign, np.array([0]))[0]))
    tick = jax.jit(lambda state: stepper.tick(V, lambda rate: rate, state))
    losses = []
    for _ in range(200):
        state = tick(state)
        assert landscape.equations.manifold.deviation(np.asarray(state.W @ state.W.T)) < 1e-12
        losses.append(float(weight_loss(landscape.g, state.W, V)))
    assert (np.diff(losses) <= 1e-6).all()
    assert losses[-1] < losses[0] - 0.05


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_second_order_is_that_along_curves_on_the_manifold(constraint):
    """Second differences of the loss along retracted straight lines, at a stationary point outside the span."""
    landscape = Landscape(4, 3, constraint=constraint)
    points = follow_shard(Campaign(landscape, law=InitialLaw(20)), 0, 40, FEW).points
    point = next(point for point in points if point.W.shape[1] > 3)
    manifold, V = landscape.equations.manifold, np.eye(3)
    at = curvature_of(landscape.equations, point.W, V)
    assert np.abs(at.basis @ at.basis.T - np.eye(len(at.basis))).max() < 1e-12
    rng, h = np.random.default_rng(0), 1e-3
    for _ in range(5):
        coefficients = rng.normal(size=len(at.basis))
        way = (coefficients @ at.basis).reshape(point.W.shape)
        values = [exact_loss(landscape.g, manifold.project(point.W + s * h * way), V) for s in (-1, 0, 1)]
        second = (values[0] - 2 * values[1] + values[2]) / h**2
        assert second == pytest.approx(coefficients @ at.hessian @ coefficients, rel=1e-3, abs=1e-4)
    # Above: a further dimension.
    wide = np.pad(point.W, ((0, 0), (0, 1)))
    outside = np.linalg.qr(point.W[:, 3:], mode="complete")[0][:, point.W.shape[1] - 3 :]
    for _ in range(5):
        coefficients = rng.normal(size=outside.shape[1])
        way = np.zeros_like(wide)
        way[:, -1] = outside @ coefficients
        values = [exact_loss(landscape.g, manifold.project(wide + s * h * way), V) for s in (-1, 0, 1)]
        second = (values[0] - 2 * values[1] + values[2]) / h**2
        assert second == pytest.approx(coefficients @ at.above @ coefficients, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_inside_the_ball_the_gradient_points_inwards(constraint):
    landscape = Landscape(4, 3, constraint=constraint)
    manifold, V = landscape.equations.manifold, np.eye(3)
    points = follow_shard(Campaign(landscape, law=InitialLaw(20)), 0, 40, FEW).points
    point = max(points, key=lambda point: point.radius)
    radius = geodesic_ball(point, min(point.hessian_min, point.perpendicular_min))[0]
    assert radius == pytest.approx(point.radius)
    rng = np.random.default_rng(1)
    centre = np.pad(point.W, ((0, 0), (0, 2)))
    basis = curvature_of(landscape.equations, point.W, V).basis
    for _ in range(50):
        way = (rng.normal(size=len(basis)) @ basis).reshape(point.W.shape)
        way = np.pad(way, ((0, 0), (0, 2)))
        moved = manifold.project(centre + radius / np.linalg.norm(way) * way)
        slope = curvature_of(landscape.equations, moved, V).gradient
        assert (slope * (moved - centre)).sum() > 0


def test_the_minima_are_those_of_projected_descent_from_scratch():
    """K = M = 6 on the sphere against plain projected gradient descent on weights in d = 12."""
    landscape = Landscape(6, 6, constraint="normalized")
    campaign = Campaign(landscape, law=InitialLaw(12))
    result = follow_shard(campaign, 0, 12, FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    descend = jax.jit(jax.grad(lambda W: weight_loss(landscape.g, W, jnp.eye(6))))
    for index, W in enumerate(initial_weights(campaign, np.arange(12))):
        for _ in range(3000):
            W = np.asarray(W - 0.1 * descend(jnp.asarray(W)))
            W = W / np.linalg.norm(W, axis=1)[:, None]
        end = result.points[result.starts.point[index]]
        assert abs(exact_loss(landscape.g, W, np.eye(6)) - end.loss) < 1e-8


def test_more_students_than_teachers_leave_the_span():
    """No K > r orthonormal students fit into the span; on the sphere the lowest level is not zero."""
    stiefel = follow_shard(Campaign(Landscape(4, 3, constraint="orthonormalized"), law=InitialLaw(20)), 0, 40, FEW)
    assert {point.W.shape[1] for point in stiefel.points} == {4}
    sphere = follow_shard(Campaign(Landscape(4, 3, constraint="normalized"), law=InitialLaw(20)), 0, 40, FEW)
    assert min(point.loss for point in sphere.points) > 0.1
    for result in (stiefel, sphere):
        assert (result.starts.outcome == Outcome.CONVERGED).all()
        assert all(len(point.W) == 4 for point in result.points)


def test_what_does_not_fit_is_said():
    with pytest.raises(InputError, match="at least 5 for 5 orthonormalized students, got 4"):
        Campaign(Landscape(5, 3, constraint="orthonormalized"), law=InitialLaw(4))
    with pytest.raises(InputError, match="newton goes with constraint none"):
        check_solvable(Campaign(Landscape(3, 3, constraint="normalized"), Dynamics("newton")))
    W = 2 * np.eye(3)
    table = InitialLaw(Q=(W @ W.T)[None], R=W[None])
    with pytest.raises(InputError, match="must be those of normalized students, row 0 misses by 3"):
        check_solvable(Campaign(Landscape(3, 3, constraint="normalized"), law=table))


@pytest.mark.parametrize(
    "landscape",
    [
        Landscape(4, 4, constraint="normalized"),
        Landscape(4, 3, constraint="normalized"),
        Landscape(4, 3, constraint="orthonormalized"),
        Landscape(3, 3, constraint="normalized", activation="erf"),
    ],
    ids=["sphere", "more on the sphere", "Stiefel", "erf"],
)
def test_verification_agrees_by_its_own_route(tmp_path, landscape):
    atlas = Catalogue(tmp_path / "atlas", create=True)
    campaign = Campaign(landscape, law=InitialLaw(20))
    atlas.register(campaign, 60, "cpu")
    atlas.commit_shard(follow_shard(campaign, 0, 60, FEW), 0, 60)
    atlas.finish(campaign.id)
    assert atlas.minima().num_rows >= 1
    assert verify(atlas, sample=4).to_pylist() == []
