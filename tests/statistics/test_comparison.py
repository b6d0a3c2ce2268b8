"""Tests of differences against SciPy, statsmodels and published tables, and how often they reject."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable, mcnemar
from statsmodels.stats.multitest import multipletests

from enumerator.statistics import g_test, holm, marginal_test


def test_g_is_that_of_scipy_and_pools_rare_classes():
    first, second = [100, 50, 30, 3, 1, 0], [80, 70, 35, 2, 4, 1]
    table = [[100, 50, 30, 4], [80, 70, 35, 7]]
    statistic, freedom, pvalue, effect = g_test(first, second)
    expected = stats.chi2_contingency(table, lambda_="log-likelihood")
    assert (statistic, freedom, pvalue) == pytest.approx((expected[0], expected[2], expected[1]))
    assert effect == pytest.approx(stats.contingency.association(np.array(table), method="cramer"))


def test_g_by_hand():
    """Twice the sum of observed x log(observed/expected)."""
    statistic, _, _, _ = g_test([40, 60], [60, 40])
    assert statistic == pytest.approx(2 * (2 * 40 * np.log(40 / 50) + 2 * 60 * np.log(60 / 50)))


def test_nothing_to_tell_apart():
    assert g_test([10, 0], [12, 0]) == (0.0, 0, 1.0, 0.0)
    assert marginal_test(np.diag([5, 7, 9])) == (0.0, 0, 1.0, 0.0)


# Stuart (1953), unaided distance vision of 7,477 women, right eye (rows) and left eye: statistic 11.96, 3 degrees.
VISION = np.array([[1520, 266, 124, 66], [234, 1512, 432, 78], [117, 362, 1772, 205], [36, 82, 179, 492]])


def test_published_example_of_stuart():
    statistic, freedom, pvalue, _ = marginal_test(VISION)
    assert (round(statistic, 2), freedom) == (11.96, 3)
    expected = SquareTable(VISION, shift_zeros=False).homogeneity(method="stuart_maxwell")
    assert (statistic, pvalue) == pytest.approx((expected.statistic, expected.pvalue))


def test_two_classes_are_mcnemars():
    table = [[100, 30], [12, 60]]
    statistic, freedom, pvalue, _ = marginal_test(table)
    expected = mcnemar(table, exact=False, correction=False)
    assert (statistic, freedom, pvalue) == pytest.approx((expected.statistic, 1, expected.pvalue))


def test_rare_changes_are_pooled():
    """Classes with fewer than ten discordant starts count as one, so their places do not matter."""
    table = np.zeros((6, 6), int)
    table[:2, :2] = [[500, 40], [20, 300]]
    table[0, 2], table[3, 0], table[4, 1], table[1, 5] = 3, 2, 4, 5
    pooled = np.zeros((3, 3), int)
    pooled[:2, :2] = table[:2, :2]
    pooled[0, 2], pooled[2, 0], pooled[2, 1], pooled[1, 2] = 3, 2, 4, 5
    assert marginal_test(table) == pytest.approx(marginal_test(pooled))


def test_effects_lie_between_none_and_all():
    assert g_test([100, 0], [0, 100])[3] == pytest.approx(1)
    assert marginal_test([[0, 50], [0, 0]])[3] == pytest.approx(1)
    assert g_test([50, 50], [50, 50])[3] == marginal_test([[5, 20], [20, 5]])[3] == 0


def test_holm_is_that_of_statsmodels():
    pvalues = [0.01, 0.04, 0.03, 0.005, 0.6]
    assert np.allclose(holm(pvalues), multipletests(pvalues, method="holm")[1])
    assert holm([]).shape == (0,)


# Shares of orders at K = M = 17.
SHARES = np.array([1274, 2783, 2941, 1982, 709, 94, 3, 87, 53, 37, 19, 9, 6, 3]) / 10_000


def test_two_seeds_reject_as_often_as_said_and_a_difference_is_found():
    """scripts/coverage at 600 repetitions; bounds 3 to 7% with three standard errors."""
    generator, more = np.random.default_rng(0), SHARES.copy()
    more[[0, 2]] += [0.03, -0.03]
    null = found = 0
    for _ in range(600):
        first, second = generator.multinomial(10_000, SHARES), generator.multinomial(10_000, SHARES)
        null += g_test(first, second)[2] < 0.05
        other = generator.multinomial(10_000, more)
        found += g_test([first[0], first[1:].sum()], [other[0], other[1:].sum()])[2] < 0.05
    assert 0.03 - 0.021 < null / 600 < 0.07 + 0.031
    assert found / 600 >= 0.95


def test_the_same_starts_reject_as_often_as_said():
    generator = np.random.default_rng(1)
    joint = 0.8 * np.diag(SHARES) + 0.2 * np.outer(SHARES, SHARES)
    null = sum(
        marginal_test(generator.multinomial(10_000, joint.ravel()).reshape(joint.shape))[2] < 0.05 for _ in range(600)
    )
    assert 0.03 - 0.021 < null / 600 < 0.07 + 0.031
