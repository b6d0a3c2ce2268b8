"""Published minima and frequencies (Safran & Shamir 2018, recomputed): a small case; all in `scripts/validate`."""

import numpy as np
import pytest
from scipy import stats

from enumerator.follow import follow_shard
from enumerator.problem import Campaign, InitialLaw, Landscape
from enumerator.starts import Outcome
from tests.support.references import published_cases

# The published losses have ten digits, the eigenvalues nine decimals.
LOSS, EIGENVALUE = 1e-9, 1e-6


def test_minima_and_frequencies_of_nine_students():
    """w ~ N(0, I/d), d = M = 9: all published minima, once each, as often as published."""
    case = next(case for case in published_cases() if case["students"] == case["teachers"] == 9)
    result = follow_shard(Campaign(Landscape(9, 9), law=InitialLaw(9)), 0, 1000)
    assert (result.starts.outcome == Outcome.CONVERGED).all()
    ours, theirs = [], []
    for family in case["families"]:
        same = [k for k, point in enumerate(result.points) if abs(point.loss - family["loss"]) < LOSS]
        assert len(same) == 1, family
        point = result.points[same[0]]
        assert point.verdict == point.verdict_above == "minimum"
        assert point.hessian_min == pytest.approx(family["hessian_min"], abs=EIGENVALUE)
        assert point.hessian_max == pytest.approx(family["hessian_max"], abs=EIGENVALUE)
        assert point.anti_aligned == family["anti_aligned"]
        ours.append(int((result.starts.point == same[0]).sum()))
        theirs.append(family["hits"])
    counts = np.array([[*ours, 1000 - sum(ours)], [*theirs, case["runs"] - sum(theirs)]])
    # The global minimum is what neither lists; a fixed seed, so this holds for ever or points at a change.
    assert stats.chi2_contingency(counts).pvalue > 0.001
