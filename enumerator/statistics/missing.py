"""What was not seen: the share of unseen minima, how many there are, and how many more starts would find.

All from hits: an array of the number of starts that ended in each minimum seen, and from the number of all starts,
those that ended in no minimum included. They count as ends that were seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import special

from enumerator.errors import InputError
from enumerator.statistics.intervals import check_confidence, exact_interval, normal_quantile

# The interval of the missing mass is given from so many minima hit once or twice, and so many starts that did not end
# in a minimum hit once: then it covers in 93 to 97 of 100 cases (scripts/coverage), whatever the frequencies.
RARE_NEEDED = OTHERS_NEEDED = 20


@dataclass(frozen=True)
class MissingMass:
    """The probability that the next start ends in a minimum that was not seen.

    Attributes:
        estimate: Turing's estimate.
        low: Low end of its interval; None where no interval is valid.
        high: High end, likewise.
        bound: Upper bound of the same confidence that needs no condition; None where no starts were held out.
        reason: Why there is no interval; None where there is one.
    """

    estimate: float
    low: float | None
    high: float | None
    bound: float | None
    reason: str | None


def _hits(hits: ArrayLike, starts: int) -> NDArray[np.int64]:
    found = np.asarray(hits, np.int64)
    found = found[found > 0]
    if starts < 1 or found.sum() > starts:
        raise InputError(f"`starts` must be at least 1 and at least the sum of `hits`, {found.sum()}, got {starts}.")
    return found


def _times(hits: NDArray[np.int64], times: int) -> int:
    """Minima that were hit so many times."""
    return int((hits == times).sum())


def _hit_once(minima: int) -> str:
    return f"{minima} {'minimum was' if minima == 1 else 'minima were'} hit once"


def missing_mass(
    hits: ArrayLike, starts: int, held_out: tuple[int, int] | None = None, confidence: float = 0.95
) -> MissingMass:
    """The probability that the next start ends in a minimum that was not seen, with its interval where one is valid.

    It is Turing's estimate, minima hit once over all starts: Good (1953), Biometrika 40, 237. The variance is that of
    Esty (1983), Ann. Stat. 11, 905, at the unknown mass instead of the estimate, as in Wilson's interval.

    Args:
        hits: Number of starts (C,) that ended in each minimum seen; zeros are left out.
        starts: Number of all starts, those included that ended in no minimum.
        held_out: (m, k): of m starts that were left out, k ended in minima that all others had not found. These k
            are binomial, and the mass that all starts together miss is smaller. So the exact one-sided bound holds,
            whatever the frequencies.
        confidence: Of the interval and of the bound.

    Raises:
        InputError: For fewer starts than hits.
    """
    found = _hits(hits, starts)
    once, twice = _times(found, 1), _times(found, 2)
    check_confidence(confidence)
    bound = None
    if held_out is not None and held_out[0] > 0:
        bound = float(exact_interval(held_out[1], held_out[0], 2 * confidence - 1)[1]) if confidence > 0.5 else None
    reason = None
    if once + twice < RARE_NEEDED:
        reason = f"no valid interval: {once + twice} minima were hit once or twice, {RARE_NEEDED} are needed"
    elif starts - once < OTHERS_NEEDED:
        reason = f"no valid interval: all but {starts - once} starts ended in minima hit once: more starts are needed"
    if reason is not None:
        return MissingMass(once / starts, None, None, bound, reason)
    # (x - once)^2 = z2 (x (1 - x/starts) + 2 twice), in x = starts * mass.
    z2 = normal_quantile(confidence) ** 2
    a, b, c = 1 + z2 / starts, 2 * once + z2, once**2 - 2 * z2 * twice
    root = math.sqrt(max(b * b - 4 * a * c, 0))
    low, high = (max((b - root) / (2 * a), 0) / starts, min((b + root) / (2 * a), starts) / starts)
    return MissingMass(once / starts, low, high, bound, None)


@dataclass(frozen=True)
class Richness:
    """How many minima there are, at least: those seen, and two estimates of a lower bound.

    Attributes:
        observed: Number of minima seen.
        chao1: Lower bound by Chao's estimate.
        chao1_low: Low end of the log-normal interval of `chao1`, that is of the lower bound: the number of minima may
            lie anywhere above. None where at most one minimum was hit once: `chao1` is `observed` then.
        chao1_high: High end, likewise.
        ichao1: The improved estimate.
        reason: Why there is no interval; None where there is one.
    """

    observed: int
    chao1: float
    chao1_low: float | None
    chao1_high: float | None
    ichao1: float
    reason: str | None


def richness(hits: ArrayLike, starts: int, confidence: float = 0.95) -> Richness:
    """How many minima there are, at least, from how often each was hit: Chao1 and iChao1.

    Chao1 (Chao 1984, Scand. J. Stat. 11, 265) is bias-corrected, with the interval of Chao (1987). iChao1 uses the
    minima hit three and four times too, with f4 = 1 where there is none (Chiu, Wang, Walther & Chao 2014, Biometrics
    70, 671, eq. 6).

    Args:
        hits: Number of starts (C,) that ended in each minimum seen; zeros are left out.
        starts: Number of all starts, those included that ended in no minimum.
        confidence: Of the interval.

    Raises:
        InputError: For fewer starts than hits.
    """
    found = _hits(hits, starts)
    f1, f2, f3, f4 = (_times(found, times) for times in (1, 2, 3, 4))
    observed = len(found)
    extra = f1 * (f1 - 1) / (2 * (f2 + 1))
    low = high = None
    reason = f"no interval of Chao1: {_hit_once(f1)}, 2 are needed"
    if extra > 0:
        reason = None
        spread = math.exp(
            normal_quantile(confidence) * math.sqrt(math.log1p(_chao1_variance(f1, f2, observed + extra) / extra**2))
        )
        low, high = observed + extra / spread, observed + extra * spread
    more = 0.0
    if starts > 3:
        ratio = f3 / (f4 or 1)
        more = (starts - 3) / (4 * starts) * ratio * max(f1 - (starts - 3) / (2 * (starts - 1)) * f2 * ratio, 0)
    return Richness(observed, observed + extra, low, high, observed + extra + more, reason)


def _chao1_variance(f1: int, f2: int, chao1: float) -> float:
    if f2 == 0:
        return f1 * (f1 - 1) / 2 + f1 * (2 * f1 - 1) ** 2 / 4 - f1**4 / (4 * chao1)
    return (
        f1 * (f1 - 1) / (2 * (f2 + 1))
        + f1 * (2 * f1 - 1) ** 2 / (4 * (f2 + 1) ** 2)
        + f1**2 * f2 * (f1 - 1) ** 2 / (4 * (f2 + 1) ** 4)
    )


def rarefaction(hits: ArrayLike, starts: int, sizes: ArrayLike, confidence: float = 0.95) -> pa.Table:
    """Distinct minima expected among fewer of the same starts. Hurlbert (1971), Ecology 52, 577.

    The interval says nothing about what other starts would find.

    Args:
        hits: Number of starts (C,) that ended in each minimum seen; zeros are left out.
        starts: Number of all starts, those included that ended in no minimum.
        sizes: Numbers of starts (n,), each at most `starts`.
        confidence: The part of all choices of so many of these starts whose count lies in the interval.

    Returns:
        `starts`, the sizes; `minima`, expected; `low` and `high`, whole numbers: normal ends, rounded outwards, with
            the variance of Heck, van Belle & Simberloff (1975), Ecology 56, 1459.

    Raises:
        InputError: For sizes beyond `starts`.
    """
    found = _hits(hits, starts)
    sizes = np.asarray(sizes, np.int64)
    if ((sizes < 0) | (sizes > starts)).any():
        raise InputError(f"`sizes` must lie between 0 and the number of starts, {starts}.")
    # Minima with the same hits are alike; there are few different numbers of hits, however many minima.
    values, minima = np.unique(found, return_counts=True)
    expected, spread = np.zeros(len(sizes)), np.zeros(len(sizes))
    pairs = np.outer(minima, minima) - np.diag(minima)
    for position, size in enumerate(sizes):
        missed = _missed(values, starts, int(size))
        together = _missed(values[:, None] + values, starts, int(size)) - np.outer(missed, missed)
        expected[position] = (minima * (1 - missed)).sum()
        variance = (minima * missed * (1 - missed)).sum() + (pairs * together).sum()
        spread[position] = np.sqrt(max(variance, 0))
    half = normal_quantile(confidence) * spread
    # Rounding of the sums must not push an end that is a whole number to the next one.
    low, high = np.floor(expected - half + 1e-6), np.ceil(expected + half - 1e-6)
    # One start finds one minimum at most, and one at least where there are more starts than ended in none.
    low = np.maximum(low, sizes > starts - found.sum())
    high = np.minimum(high, np.minimum(sizes, len(found)))
    columns = {"starts": sizes, "minima": expected, "low": low, "high": high}
    return pa.table(columns)


def _missed(hits: NDArray[np.int64], starts: int, size: int) -> NDArray[np.float64]:
    """The probability that none of so many hits is among `size` of the starts; shape of `hits`."""
    rest = starts - hits
    with np.errstate(invalid="ignore"):
        logs = (
            special.gammaln(rest + 1)
            - special.gammaln(np.maximum(rest - size, 0) + 1)
            - special.gammaln(starts + 1)
            + special.gammaln(starts - size + 1)
        )
    return np.where(rest < size, 0.0, np.exp(np.minimum(logs, 0)))


@dataclass(frozen=True)
class NewMinima:
    """Minima that so many more starts would find: expected, and an interval for what they find.

    Attributes:
        more: Number of further starts.
        expected: Number of new minima; None beyond `limit`.
        low: Low end of the interval. None beyond `limit`, and where too few minima were hit once to tell.
        high: High end, likewise.
        limit: Number of further starts up to which hits tell anything.
        reason: Why something is None; None where nothing is.
    """

    more: int
    expected: float | None
    low: float | None
    high: float | None
    limit: int
    reason: str | None = None


def new_minima(hits: ArrayLike, starts: int, more: int, confidence: float = 0.95) -> NewMinima:
    """How many new minima more starts would find: Good & Toulmin's series, smoothed.

    It is valid up to about starts x log(starts) further starts. The series is cut at a binomial length of k trials with
    success 2/(2 + t), t = more/starts (Orlitsky, Suresh & Wu 2016, PNAS 113, 13283). So the terms of minima hit often,
    which are nothing but noise, drop out. The interval adds the Poisson noise of what is found to that of the estimate
    (Efron & Thisted 1976, Biometrika 63, 435, sec. 4).

    Args:
        hits: Number of starts (C,) that ended in each minimum seen; zeros are left out.
        starts: Number of all starts, those included that ended in no minimum.
        more: Number of further starts.
        confidence: Of the interval.

    Raises:
        InputError: For fewer starts than hits, or a negative `more`.
    """
    found = _hits(hits, starts)
    if more < 0:
        raise InputError(f"`more` must be a whole number >= 0, got {more}.")
    limit = int(starts * math.log(starts))
    if more > limit:
        return NewMinima(more, None, None, None, limit, f"no prediction beyond {limit:,} further starts")
    t = more / starts
    # Between a half and twice as many starts the length of the paper grows without bound; what is there is enough.
    trials = 1 + int(0.5 * math.log2(starts * (t * t / (t - 1) if t > 2 else 4)))
    terms = np.arange(1, trials + 1)
    weights = -((-t) ** terms) * special.bdtrc(terms - 1, trials, 2 / (2 + t))
    counts = np.array([_times(found, int(times)) for times in terms])
    expected = float((weights * counts).sum())
    variance = float((weights**2 * counts).sum()) + max(expected, 0.0)
    half = normal_quantile(confidence) * math.sqrt(variance)
    if more and expected + half <= 0:
        # Not that none is left: the series has nothing to go by, and its own error is none.
        reason = f"no interval of new minima: {_hit_once(counts[0])}, too few to tell"
        return NewMinima(more, max(expected, 0.0), None, None, limit, reason)
    return NewMinima(more, max(expected, 0.0), max(expected - half, 0.0), max(expected + half, 0.0), limit)
