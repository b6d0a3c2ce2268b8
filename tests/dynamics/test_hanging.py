"""Lanes that explicit steps do not finish: neurons that die, teachers of very different length, nearly flat ends."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from enumerator.dynamics.implicit import implicit_flow
from enumerator.errors import InputError
from enumerator.follow import check_solvable
from enumerator.lanes.sampling import initial_weights
from enumerator.lanes.solve import solve_starts
from enumerator.problem import Campaign, InitialLaw, Landscape, Tolerances
from enumerator.replay import replay
from enumerator.starts import Outcome, Starts
from tests.support.shapes import FEW
from tests.support.stiff_reference import flow_end

# Lanes that explicit steps do not finish in 50,000 evaluations either.
SOON = Tolerances(max_evaluations=20_000)


def solved(campaign: Campaign, indices: list[int]) -> tuple[Starts, np.ndarray]:
    """The starts, and the loss of the point that each ends in."""
    result = solve_starts(campaign, np.array(indices), FEW)
    losses = np.array([point.loss for point in result.points])
    return result.starts, losses[result.starts.point]


def pair(angle: float) -> np.ndarray:
    """T of two unit teachers at an angle."""
    return np.array([[1.0, np.cos(angle)], [np.cos(angle), 1.0]])


def test_implicit_steps_follow_the_flow():
    landscape = Landscape(4, 3)
    W = initial_weights(Campaign(landscape, law=InitialLaw(20)), np.array([3]))[0]
    for time in (1.0, 10.0):
        reached = next(at for at in implicit_flow(landscape, W, 0.0) if at.flow_time >= time)
        exact = flow_end(W, landscape.teacher_factor, reached.flow_time)
        assert np.abs(reached.X - exact).max() < 1e-4


def on_a_line(w: np.ndarray) -> np.ndarray:
    """The exact flow at d = 1 against one teacher of norm 1, to time 100; only neurons of one sign see each other.

    A neuron that comes to zero rests there as long as the loss rises on the other side too, and else passes.
    """

    def rate(t, w):
        error = [w[w > 0].sum() - 1, -w[w < 0].sum()]  # of f - f* on the positive and on the negative side
        speed = np.where(w > 0, -error[0] / 2, error[1] / 2)
        return np.where(w == 0, max(0.0, -error[0] / 2), speed)

    def event(t, w):
        moving = np.abs(w[w != 0])
        return moving.min() - 1e-10 if moving.size else 1.0

    event.terminal, event.direction = True, -1
    t, w = 0.0, w.copy()
    while t < 100:
        done = solve_ivp(rate, (t, 100), w, rtol=1e-10, atol=1e-13, events=event, max_step=1.0)
        t, w = done.t[-1], done.y[:, -1]
        if t < 100:
            w[np.argmin(np.where(w == 0, np.inf, np.abs(w)))] = 0.0
            push = max(0.0, (1 - w[w > 0].sum()) / 2)
            w[w == 0] = 2e-10 if push > 0 else 0.0
    return w


def test_neurons_that_die_on_a_line_leave_or_stay():
    """Before, 4 of these 100 hung at a neuron of norm 1e-5. All reach zero loss, as the exact flow does."""
    campaign = Campaign(Landscape(3, 1), law=InitialLaw(1), tolerances=SOON)
    starts, losses = solved(campaign, [6, 24, 47, 52, 0, 1, 2, 3])
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert (losses < 1e-12).all()
    for index in (6, 24):
        w = on_a_line(initial_weights(campaign, np.array([index]))[0][:, 0])
        assert w[w > 0].sum() == pytest.approx(1, abs=1e-6)
        assert w[w < 0].sum() == pytest.approx(0, abs=1e-6)


# Losses where the exact flow ends with a dying neuron of negative weight held at zero as long as no direction descends.
SIGNS = [(2, {41: 0.08851194}), (3, {0: 0.07683386, 41: 0.24235503, 91: 0.24235503}), (4, {52: 0.06974293})]


@pytest.mark.parametrize(("K", "ends"), SIGNS)
def test_a_neuron_of_negative_weight_dies_and_the_rest_goes_on(K, ends):
    landscape = Landscape(K, K, second_layer="trained")
    campaign = Campaign(landscape, law=InitialLaw(second_layer="signs"), tolerances=SOON)
    starts, losses = solved(campaign, list(ends))
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert losses == pytest.approx(np.array(list(ends.values())), abs=1e-8)


def test_a_student_can_lose_all_its_neurons():
    """Both weights are negative and stay so: the student ends at zero, with the loss of the teacher, 1/2 + 1/(2 pi)."""
    landscape = Landscape(2, 2, second_layer="trained")
    campaign = Campaign(landscape, law=InitialLaw(second_layer="signs"), tolerances=SOON)
    result = solve_starts(campaign, np.array([66]), FEW)
    assert result.starts.outcome[0] == Outcome.CONVERGED
    point = result.points[0]
    assert point.effective_students == 0
    assert point.verdict == point.verdict_above == "flat-minimum"
    assert point.loss == pytest.approx(0.5 + 1 / (2 * np.pi), abs=1e-14)
    path = replay(campaign, 66)
    assert path["evaluations"][-1].as_py() == result.starts.evaluations[0]
    assert path["loss"][-1].as_py() == pytest.approx(point.loss, abs=1e-7)


def test_neurons_of_both_signs_cancel_on_a_line():
    """d = 1: the sum of a w vanishes on the other side, nobody is on the teacher's, and E[relu(x)^2]/2 = 1/4 is left.

    SciPy's BDF ends there too, with neurons that die held at zero until they descend.
    """
    landscape = Landscape(3, 1, second_layer="trained")
    campaign = Campaign(landscape, law=InitialLaw(1, second_layer="normal"), tolerances=SOON)
    result = solve_starts(campaign, np.array([0, 18, 20]), FEW)
    starts = result.starts
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert np.abs((starts.second_layer * starts.R[:, :, 0]).sum(axis=1)).max() < 1e-9
    assert (np.abs(starts.second_layer) > 1e-3).all()
    assert [(point.loss, point.effective_students) for point in result.points] == [(0.25, 0)]
    assert (starts.distance < 1e-9).all()


def test_teachers_of_very_different_length():
    """A third teacher a thousand times shorter: the flow takes 10^9, and ends where SciPy's BDF does."""
    landscape = Landscape(3, 3, T=np.diag([1, 1, 1e-6]))
    campaign = Campaign(landscape, law=InitialLaw(3), tolerances=Tolerances(max_flow_time=1e4))
    indices = [0, 1, 2, 3, 4, 5]
    starts, losses = solved(campaign, indices)
    assert (starts.outcome == Outcome.CONVERGED).all()
    for row, index in enumerate(indices[:3]):
        W = initial_weights(campaign, np.array([index]))[0]
        end = flow_end(W, landscape.teacher_factor, 1e12, at_rest=1e-14)
        assert np.linalg.norm(end, axis=1) == pytest.approx(np.sqrt(np.diag(starts.Q[row])), abs=1e-5)
    assert losses.max() < 1.1e-7  # below that of the two long teachers alone, 1.2174e-7


@pytest.mark.parametrize("angle", [0.03, 1e-3, 1e-5])
def test_nearly_collinear_teachers_are_learnt(angle):
    """The smallest eigenvalue falls like the third power of the angle: zero loss is reached in digits, and listed."""
    landscape = Landscape(2, 2, T=pair(angle))
    result = solve_starts(Campaign(landscape, tolerances=Tolerances(max_evaluations=5000)), np.arange(10), FEW)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    ends = {result.points[k].loss for k in result.starts.point}
    assert ends == {0.0}
    point = result.points[result.starts.point[0]]
    assert point.effective_students == 2
    assert point.verdict in ("minimum", "flat-minimum")
    assert (result.starts.loss <= 1e-8).all()


def test_students_that_cannot_part_on_a_line_end_there():
    """d = 1, teachers 1 and -1, both students on one side: nothing in one dimension takes one to the other side."""
    landscape = Landscape(2, 2, T=np.array([[1.0, -1.0], [-1.0, 1.0]]))
    campaign = Campaign(landscape, law=InitialLaw(1), tolerances=SOON)
    starts, losses = solved(campaign, list(range(12)))
    W = initial_weights(campaign, np.arange(12))[:, :, 0]
    one_side = (W > 0).all(axis=1) | (W < 0).all(axis=1)
    assert one_side.any() and not one_side.all()
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert losses == pytest.approx(np.where(one_side, 0.25, 0.0), abs=1e-12)


def test_starts_a_million_times_longer_than_the_teachers():
    """Neurons die on the way down, where f is far above f*, and leave again for the teachers."""
    starts, losses = solved(Campaign(Landscape(3, 3), law=InitialLaw(scale=1e6), tolerances=SOON), [0, 1, 2])
    assert (starts.outcome == Outcome.CONVERGED).all()
    assert losses == pytest.approx(np.zeros(3), abs=1e-12)


def test_a_teacher_too_short_to_be_seen_is_refused():
    """At 10^-6 of the others a student without it would count as having zero loss."""
    with pytest.raises(InputError, match="teacher 1 has 1e-06 of it"):
        check_solvable(Campaign(Landscape(2, 2, T=np.diag([1, 1e-12]))))
    check_solvable(Campaign(Landscape(2, 2, T=np.diag([1, 1e-11]))))
    check_solvable(Campaign(Landscape(2, 2, T=np.diag([1, 0]))))
