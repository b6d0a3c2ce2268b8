"""What docs/contribute.md tells: an activation, constraint or dynamics is a class or stepper, and one line."""

import numpy as np
import pytest

from cluster.inputs import check_settings, request
from enumerator.activations import ACTIVATIONS
from enumerator.activations.relu import Rectifier
from enumerator.constraints import CONSTRAINTS
from enumerator.dynamics import gradient_flow
from enumerator.dynamics.steppers import STEPPERS
from enumerator.follow import follow_shard
from enumerator.problem import DYNAMICS
from tests.support.shapes import FEW


def third():
    """Leaky ReLU of one slope."""
    return Rectifier(1 / 3)


CASES = [
    ({"activation": "third"}, {"activation": "leaky_relu", "activation_slope": 1 / 3}),
    ({"constraint": "unit"}, {"constraint": "normalized"}),
    ({"dynamics": "stream"}, {"dynamics": "gradient-flow"}),
    ({"dynamics": "stream", "precision": "mixed"}, {"dynamics": "gradient-flow", "precision": "mixed"}),
]


@pytest.mark.parametrize(("new", "known"), CASES, ids=["activation", "constraint", "dynamics", "mixed"])
def test_a_line_makes_it_known_to_campaign_files_and_solver(monkeypatch, new, known):
    monkeypatch.setitem(ACTIVATIONS, "third", f"{__name__}:third")
    monkeypatch.setitem(CONSTRAINTS, "unit", "enumerator.constraints.normalized:Normalized")
    monkeypatch.setitem(STEPPERS, "stream", gradient_flow.stepper)
    monkeypatch.setitem(DYNAMICS, "stream", ())
    results = []
    for setting in (new, known):
        settings = {"students": 4, "teachers": 4, "dimension": 6, "starts": 24} | setting
        check_settings(settings, "campaign.toml")
        results.append(follow_shard(request(settings).campaign, 0, 24, FEW))
    first, second = results
    assert first.campaign.id != second.campaign.id
    assert np.array_equal(first.starts.outcome, second.starts.outcome)
    assert np.array_equal(first.starts.loss, second.starts.loss)
    assert [point.loss for point in first.points] == [point.loss for point in second.points]
