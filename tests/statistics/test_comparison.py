"""Tests of differences against SciPy, statsmodels and published tables, and how often they reject."""

import itertools

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import SquareTable, mcnemar
from statsmodels.stats.multitest import multipletests

from enumerator.statistics import g_test, holm, marginal_test
from enumerator.statistics.comparison import MOST_EXCHANGES


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


@pytest.mark.parametrize(("gained", "lost"), [(1, 0), (0, 4), (9, 0), (7, 2), (3, 3), (1, 8)])
def test_few_changes_between_two_classes_are_mcnemars_exact_test(gained, lost):
    table = [[500, lost], [gained, 100]]
    statistic, freedom, pvalue, effect = marginal_test(table)
    assert pvalue == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-12)
    assert pvalue == pytest.approx(stats.binomtest(gained, gained + lost).pvalue, rel=1e-12)
    assert (statistic, freedom) == (pytest.approx((gained - lost) ** 2 / (gained + lost)), 1)
    assert effect == pytest.approx(abs(gained - lost) / (gained + lost))


# Four classes, the last of which no start leaves: seven starts that change, fewer than ten of each class.
FEW = np.array([[80, 4, 1, 0], [0, 40, 2, 0], [0, 0, 9, 0], [0, 0, 0, 3]])


def test_few_changes_between_several_classes_are_exchanged_in_all_ways():
    def statistic(table):
        return SquareTable(table, shift_zeros=False).homogeneity(method="stuart_maxwell").statistic

    observed, starts = FEW[:3, :3], [(a, b) for a in range(3) for b in range(3) if a != b for _ in range(FEW[a, b])]
    as_large = 0
    for exchanged in itertools.product((False, True), repeat=len(starts)):
        table = np.diag(observed.diagonal())
        for (a, b), is_exchanged in zip(starts, exchanged, strict=True):
            table[(b, a) if is_exchanged else (a, b)] += 1
        as_large += statistic(table) >= statistic(observed) - 1e-9
    found, freedom, pvalue, _ = marginal_test(FEW)
    assert (found, freedom, pvalue) == (pytest.approx(statistic(observed)), 2, pytest.approx(as_large / 2**7))


def test_more_exchanges_than_can_be_tried_are_sampled():
    """Blocks of classes that never mix: the statistic is the sum of theirs, whose exact distributions are convolved."""
    blocks = [(9, 0), (7, 2), (4, 5), (8, 1), (3, 6), (5, 4)]
    table = np.zeros((12, 12), int)
    sums = np.ones(1)
    values = np.zeros(1)
    for k, (gained, lost) in enumerate(blocks):
        table[2 * k : 2 * k + 2, 2 * k : 2 * k + 2] = [[50, gained], [lost, 50]]
        ups = np.arange(10)
        values = np.add.outer(values, (2 * ups - 9) ** 2 / 9).ravel()
        sums = np.multiply.outer(sums, stats.binom.pmf(ups, 9, 0.5)).ravel()
    observed = sum((a - b) ** 2 / 9 for a, b in blocks)
    expected = sums[values >= observed - 1e-9].sum()
    statistic, freedom, pvalue, _ = marginal_test(table)
    assert (statistic, freedom) == (pytest.approx(observed), 6)
    # Four standard errors of so many draws.
    assert pvalue == pytest.approx(expected, abs=4 * np.sqrt(expected / MOST_EXCHANGES))
    assert pvalue == marginal_test(table)[2]


def test_few_changes_reject_no_more_often_than_said():
    generator = np.random.default_rng(2)
    joint = np.array([[0.9, 0.01, 0.01], [0.01, 0.03, 0.005], [0.01, 0.005, 0.02]])
    drawn = generator.multinomial(150, joint.ravel(), size=1000).reshape(-1, 3, 3)
    pvalues = np.array([marginal_test(table)[2] for table in drawn])
    assert 0 < (pvalues < 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)


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
