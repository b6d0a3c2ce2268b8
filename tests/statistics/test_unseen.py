"""What was not seen, against scikit-bio, a published example of Good & Toulmin, and landscapes with known truth."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats
from skbio.diversity import alpha

from enumerator.errors import InputError
from enumerator.statistics import missing_mass, new_minima, rarefaction, richness

# Numbers of minima hit once, twice, ... become hits.
MANY = np.repeat([1, 2, 3, 4, 5, 9, 20, 100], [30, 18, 11, 7, 5, 4, 3, 2])


def test_missing_mass_is_turings():
    assert missing_mass(MANY, MANY.sum()).estimate == pytest.approx(1 - alpha.goods_coverage(MANY))


def test_interval_solves_its_own_equation():
    """At both ends the estimate is z of Esty's standard errors away, the mass standing in for the estimate."""
    starts = int(MANY.sum())
    found = missing_mass(MANY, starts)
    for end in (found.low, found.high):
        variance = (end * starts * (1 - end) + 2 * 18) / starts**2
        assert abs(end - found.estimate) / math.sqrt(variance) == pytest.approx(stats.norm.isf(0.025))


def test_interval_tends_to_estys():
    """scikit-bio's interval of Esty (1983), where hits are many."""
    hits = np.repeat(MANY, 200)
    found = missing_mass(hits, int(hits.sum()))
    low, high = alpha.esty_ci(hits)
    assert (found.low, found.high) == pytest.approx((low, high), rel=2e-3)


@pytest.mark.parametrize(
    ("hits", "starts", "reason"),
    [
        ([100, 50, 3, 2, 1], 156, "2 minima were hit once or twice, 20 are needed"),
        (np.ones(60), 70, "all but 10 starts ended in minima hit once"),
        ([], 1000, "0 minima were hit once or twice"),
    ],
)
def test_no_interval_where_none_is_valid(hits, starts, reason):
    found = missing_mass(hits, starts)
    assert (found.low, found.high) == (None, None)
    assert reason in found.reason
    assert found.estimate == pytest.approx((np.asarray(hits) == 1).sum() / starts)


def test_bound_is_the_exact_one_sided_one():
    """3 of 100 held-out starts were new: at the bound, 3 or fewer have a probability of 5%; the rule of three at 0."""
    bound = missing_mass([50, 47, 1, 1, 1], 200, held_out=(100, 3)).bound
    assert stats.binom.cdf(3, 100, bound) == pytest.approx(0.05)
    assert missing_mass([200], 200, held_out=(100, 0)).bound == pytest.approx(1 - 0.05 ** (1 / 100))
    assert missing_mass([200], 200).bound is None


@pytest.mark.parametrize("hits", [MANY, [5, 3, 1, 1], [4, 2, 2], [1, 1, 1], [1, 7], [2, 1, 1, 1, 1, 9]])
def test_chao1_is_that_of_scikit_bio(hits):
    hits = np.asarray(hits)
    found = richness(hits, int(hits.sum()), confidence=1 - 2 * stats.norm.sf(1.96))
    assert found.chao1 == pytest.approx(alpha.chao1(hits))
    if (hits == 1).sum() > 1:
        assert (found.chao1_low, found.chao1_high) == pytest.approx(alpha.chao1_ci(hits))
        assert found.reason is None
    else:
        assert found.chao1 == len(hits)
        assert (found.chao1_low, found.chao1_high) == (None, None)


@pytest.mark.parametrize(
    ("hits", "starts", "once"), [([100, 50, 3], 153, 0), ([2] * 30, 60, 0), ([9, 7, 1], 20, 1), ([1], 1, 1), ([], 5, 0)]
)
def test_chao1_has_no_interval_where_nothing_tells_how_far_off_it_is(hits, starts, once):
    """Three minima seen, and an interval from 3 to 3: as if the fourth could not exist."""
    found = richness(hits, starts)
    assert found.chao1 == found.ichao1 == len(hits)
    assert (found.chao1_low, found.chao1_high) == (None, None)
    seldom = "1 minimum was" if once else "0 minima were"
    assert found.reason == f"no interval of Chao1: {seldom} hit once, 2 are needed"


@pytest.mark.parametrize("more", [1, 153, 600])
@pytest.mark.parametrize(("hits", "starts"), [([100, 50, 3], 153), ([2] * 80, 160), ([], 200), ([150], 150)])
def test_new_minima_have_no_interval_of_zero_width(hits, starts, more):
    found = new_minima(hits, starts, more)
    assert found.expected is not None
    if found.low is None:
        assert found.high is None and found.reason == (
            "no interval of new minima: 0 minima were hit once, too few to tell"
        )
    else:
        assert found.low < found.high and found.reason is None


def test_no_interval_has_zero_width_but_that_of_no_more_starts():
    """All hits of up to four minima in up to 30 starts, of which some ended in none."""
    for starts in (3, 7, 30):
        for hits in combinations([0, 0, 1, 1, 2, 3, 5, 9, 14], 4):
            if sum(hits) > starts:
                continue
            rich = richness(hits, starts)
            assert rich.chao1_low is None or rich.chao1_low < rich.chao1_high
            for more in (1, starts, 3 * starts):
                new = new_minima(hits, starts, more)
                assert new.low is None or new.low < new.high
            assert (new_minima(hits, starts, 0).low, new_minima(hits, starts, 0).high) == (0, 0)
            mass = missing_mass(hits, starts)
            assert mass.low is None or mass.low < mass.high


def test_ichao1_by_hand():
    """Chiu et al. (2014), eq. 6, on f = (20, 10, 6, 3), n = 92, in fractions."""
    hits = np.repeat([1, 2, 3, 4, 11], [20, 10, 6, 3, 2])
    n = int(hits.sum())
    assert n == 92
    chao1 = len(hits) + 20 * 19 / (2 * 11)
    extra = 89 / (4 * 92) * 6 / 3 * (20 - 89 / (2 * 91) * 10 * 6 / 3)
    assert richness(hits, n).ichao1 == pytest.approx(chao1 + extra)


def test_lower_bounds_stay_below_the_truth():
    """400 equal minima: Chao1 is unbiased there, and iChao1 above it; elsewhere both are below the truth."""
    generator = np.random.default_rng(0)
    shares = np.arange(1, 401) ** -1.0
    found = [richness(generator.multinomial(1000, shares / shares.sum()), 1000) for _ in range(300)]
    assert np.mean([one.observed for one in found]) < np.mean([one.chao1 for one in found]) < 400
    assert np.mean([one.chao1 for one in found]) < np.mean([one.ichao1 for one in found]) < 400
    assert np.mean([one.chao1_low is not None and one.chao1_low <= 400 for one in found]) > 0.99


def test_rarefaction_is_the_hypergeometric_expectation():
    hits, starts = np.array([50, 30, 10, 5, 2, 1, 1]), 120
    sizes = [0, 1, 7, 60, 119, 120]
    curve = rarefaction(hits, starts, sizes)["minima"].to_numpy()
    expected = [sum(1 - stats.hypergeom.pmf(0, starts, k, size) for k in hits) for size in sizes]
    assert np.allclose(curve, expected, rtol=1e-9, atol=1e-12)
    assert curve[-1] == len(hits)
    # One start ends in a minimum with the share of those that did.
    assert curve[1] == pytest.approx(99 / 120)


def test_rarefaction_of_draws():
    """Against drawing without replacement, 4,000 times."""
    hits, generator = np.array([40, 25, 10, 3, 1, 1]), np.random.default_rng(0)
    drawn = generator.multivariate_hypergeometric(hits, 20, size=4000)
    found = rarefaction(hits, 80, [20])["minima"][0].as_py()
    assert found == pytest.approx((drawn > 0).sum(axis=1).mean(), abs=0.05)


@pytest.mark.parametrize("confidence", [0.6, 0.95])
def test_spread_of_rarefaction_by_enumeration(confidence):
    """All choices of 0 to 11 of 11 starts, one of which ended in no minimum."""
    hits = [4, 3, 1, 1, 1]
    ends = [minimum for minimum, times in enumerate(hits) for _ in range(times)] + [None]
    z = stats.norm.isf((1 - confidence) / 2)
    table = rarefaction(hits, len(ends), range(len(ends) + 1), confidence)
    for row in table.to_pylist():
        counts = [len(set(chosen) - {None}) for chosen in combinations(ends, row["starts"])]
        assert row["minima"] == pytest.approx(np.mean(counts))
        assert row["low"] == max(math.floor(np.mean(counts) - z * np.std(counts) + 1e-9), int(row["starts"] > 1))
        assert row["high"] == min(math.ceil(np.mean(counts) + z * np.std(counts) - 1e-9), len(hits), row["starts"])


@pytest.mark.parametrize("shares", [0.6 ** np.arange(20), np.ones(60), np.arange(1, 201) ** -1.0])
def test_spread_of_rarefaction_holds_the_counts_of_draws(shares):
    """2,000 choices of a tenth, half and nearly all of 1,000 starts: 95% of the counts lie within, at least."""
    generator = np.random.default_rng(0)
    hits = generator.multinomial(1000, shares / shares.sum())
    hits = hits[hits > 0]
    for size in (100, 500, 950, 1000):
        (row,) = rarefaction(hits, 1000, [size]).to_pylist()
        counts = (generator.multivariate_hypergeometric(hits, size, size=2000) > 0).sum(axis=1)
        # Three standard errors of 2,000 draws.
        assert ((row["low"] <= counts) & (counts <= row["high"])).mean() > 0.95 - 0.015
        # Rounded outwards, and no wider.
        assert row["high"] - row["low"] < 2 * 1.96 * counts.std() * 1.1 + 2


@pytest.mark.parametrize("more", [100, 500, 1000, 3000])
def test_new_minima_are_as_many_as_come(more):
    """On average, over draws, the prediction is what is found, within a fifth; and its interval holds what is found."""
    generator = np.random.default_rng(more)
    shares = np.arange(1, 1001) ** -1.2
    shares /= shares.sum()
    predicted, came, held = [], [], []
    for _ in range(400):
        hits = generator.multinomial(1000, shares)
        found = new_minima(hits, 1000, more)
        new = int(((generator.multinomial(more, shares) > 0) & (hits == 0)).sum())
        predicted.append(found.expected)
        came.append(new)
        held.append(found.low <= new <= found.high)
    assert np.mean(predicted) == pytest.approx(np.mean(came), rel=0.2 if more > 1000 else 0.05)
    assert np.mean(held) > 0.9


# Fisher, Corbet & Williams (1943), J. Anim. Ecol. 12, 42: species of butterflies in Malaya, of which 1, 2, ... 24
# specimens were caught; 119 more species were caught more often, 9,031 specimens in all. As in R package VGAM.
CORBET = [118, 74, 44, 24, 29, 22, 20, 19, 20, 15, 12, 14, 6, 12, 6, 9, 9, 6, 10, 10, 11, 5, 3, 3]


def test_published_example_of_good_and_toulmin():
    """As many more specimens were to bring 75 new species: Fisher, in Orlitsky, Suresh & Wu (2016), PNAS 113, 13283."""
    rare = np.repeat(np.arange(1, 25), CORBET)
    assert len(rare) + 119 == 620
    # Species with many specimens count by their number only: their terms are far beyond the smoothing.
    often = np.full(119, (9031 - rare.sum()) // 119)
    hits = np.concatenate([rare, often])
    # The smoothing leaves out a part of the series, whose own standard error is near 19.
    assert new_minima(hits, 9031, 9031).expected == pytest.approx(75, abs=6)
    # Half as many: the series converges, and nothing is left out.
    series = -sum((-0.5) ** times * species for times, species in enumerate(CORBET, 1))
    assert new_minima(hits, 9031, 9031 // 2).expected == pytest.approx(series, abs=0.1)


def test_new_minima_knows_its_limit():
    found = new_minima([5, 3, 1, 1], 100, 1000)
    assert found.limit == int(100 * math.log(100)) and found.expected is None and found.high is None
    assert found.reason == "no prediction beyond 460 further starts"
    assert new_minima([5, 3, 1, 1], 100, 0).expected == 0


@pytest.mark.parametrize("call", [missing_mass, richness])
def test_more_hits_than_starts_are_refused(call):
    with pytest.raises(InputError, match="`starts` must be at least"):
        call([5, 6], 10)
