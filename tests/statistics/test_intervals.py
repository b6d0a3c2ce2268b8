"""Intervals of shares and of differences, against SciPy, statsmodels and published examples."""

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from enumerator.errors import InputError
from enumerator.statistics import (
    coverage,
    difference_interval,
    exact_interval,
    paired_difference_interval,
    wilson_interval,
)

CASES = [(0, 10), (1, 10), (5, 10), (10, 10), (0, 10_000), (1, 10_000), (1274, 10_000), (9999, 10_000)]


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
@pytest.mark.parametrize(("interval", "method"), [(exact_interval, "exact"), (wilson_interval, "wilson")])
def test_intervals_are_those_of_scipy(interval, method, confidence):
    hits, starts = np.transpose(CASES)
    low, high = interval(hits, starts, confidence)
    for position, (k, n) in enumerate(CASES):
        expected = stats.binomtest(k, n).proportion_ci(confidence, method=method)
        # SciPy finds the exact ends by bisection, to about 1e-12.
        assert low[position] == pytest.approx(expected.low, abs=1e-10)
        assert high[position] == pytest.approx(expected.high, abs=1e-10)


def test_intervals_are_those_of_statsmodels():
    for k, n in CASES:
        for interval, method in ((exact_interval, "beta"), (wilson_interval, "wilson")):
            assert np.allclose(interval(k, n), proportion_confint(k, n, method=method), atol=1e-12)


def test_published_example_of_wilson():
    """Newcombe (1998), Stat. Med. 17, 857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29."""
    low, high = wilson_interval([81, 15, 0, 1], [263, 148, 20, 29])
    assert np.allclose(low, [0.2553, 0.0624, 0.0, 0.0061], atol=5e-5)
    assert np.allclose(high, [0.3662, 0.1605, 0.1611, 0.1718], atol=5e-5)


def test_exact_ends_are_where_the_tails_hold_half_of_the_rest():
    low, high = exact_interval(7, 50)
    assert stats.binom.sf(6, 50, low) == pytest.approx(0.025)
    assert stats.binom.cdf(7, 50, high) == pytest.approx(0.025)


SHARES = np.linspace(0.0005, 0.9995, 2000)


@pytest.mark.parametrize("interval", [exact_interval, wilson_interval])
@pytest.mark.parametrize("n", [10, 30, 200])
def test_coverage_adds_up_binomial_probabilities(interval, n):
    k = np.arange(n + 1)
    low, high = interval(k, n)
    inside = (low <= SHARES[:, None]) & (SHARES[:, None] <= high)
    expected = (stats.binom.pmf(k, n, SHARES[:, None]) * inside).sum(axis=1)
    assert np.allclose(coverage(interval, n, SHARES), expected, rtol=0, atol=1e-12)


def beside_jumps(interval, n):
    """To either side of every end of an interval, where coverage jumps and is least."""
    ends = np.concatenate(interval(np.arange(n + 1), n))
    shares = np.concatenate([np.nextafter(ends, 0), np.nextafter(ends, 1)])
    return shares[(shares > 0) & (shares < 1)]


@pytest.mark.parametrize("n", [30, 100, 1000, 10_000])
def test_exact_interval_covers_everywhere(n):
    for shares in (SHARES, beside_jumps(exact_interval, n)):
        assert coverage(exact_interval, n, shares).min() >= 0.95


@pytest.mark.parametrize("n", [30, 100, 1000, 10_000])
def test_wilson_covers_on_average_and_everywhere_from_ten_hits_on(n):
    """The README's figures: from n p = 3 on 0.95 on average, and within bounds; from 10 on 0.93 to 0.97 everywhere.

    Shares above 1/2 are the mirror image.
    """
    even = coverage(wilson_interval, n, np.geomspace(3 / n, 0.5, 5000))
    assert 0.945 < even.mean() < 0.955
    assert ((even >= 0.93) & (even <= 0.97)).mean() > 0.93
    jumps = beside_jumps(wilson_interval, n)
    jumps = jumps[(n * jumps >= 3) & (jumps <= 0.5)]
    beside = coverage(wilson_interval, n, jumps)
    assert beside.min() > 0.92 and beside.max() < 0.979
    often = beside[n * jumps >= 10]
    assert often.min() >= 0.93 and often.max() <= 0.97


def test_difference_of_two_samples():
    """Newcombe (1998), Stat. Med. 17, 873, table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339; and statsmodels."""
    assert difference_interval((56, 48), (70, 80)) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    for hits, starts in (((56, 48), (70, 80)), ((1574, 1274), (10_000, 10_000)), ((0, 5), (30, 20))):
        expected = confint_proportions_2indep(hits[0], starts[0], hits[1], starts[1], method="newcomb", compare="diff")
        assert difference_interval(hits, starts)[1:] == pytest.approx(expected, abs=1e-12)


def test_difference_of_pairs():
    """Newcombe (1998), Stat. Med. 17, 2635, table II: 36, 12, 2, 0 gives 0.2 (0.0569 to 0.3404) by method 10."""
    assert paired_difference_interval(36, 12, 2, 0) == pytest.approx((0.2, 0.0569, 0.3404), abs=5e-5)


def test_pairs_that_agree_say_more_than_samples_that_do_not_know_each_other():
    _, low, high = paired_difference_interval(1000, 60, 40, 8900)
    _, apart_low, apart_high = difference_interval((1060, 1040), (10_000, 10_000))
    assert high - low < 0.5 * (apart_high - apart_low)


@pytest.mark.parametrize(("hits", "starts"), [(-1, 10), (11, 10), (0, 0)])
def test_impossible_counts_are_refused(hits, starts):
    with pytest.raises(InputError, match="`hits` must lie between 0 and `starts`"):
        exact_interval(hits, starts)


@pytest.mark.parametrize("confidence", [0, 1, 95])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(InputError, match="`confidence` must lie between 0 and 1"):
        wilson_interval(1, 10, confidence)
