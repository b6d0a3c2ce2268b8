"""Intervals of shares, and of differences of shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from enumerator.errors import InputError

Interval = tuple[NDArray[np.float64], NDArray[np.float64]]


def check_confidence(confidence: float) -> float:
    """The confidence of an interval. Raises InputError unless it lies between 0 and 1."""
    if not (isinstance(confidence, float | int | np.floating) and 0 < confidence < 1):
        raise InputError(f"`confidence` must lie between 0 and 1, such as 0.95, got {confidence!r}.")
    return float(confidence)


def normal_quantile(confidence: float) -> float:
    """Standard errors to either side of a normal interval: 1.96 at 0.95. Raises InputError."""
    return float(-special.ndtri((1 - check_confidence(confidence)) / 2))


def chi2_beyond(statistic: float, freedom: int) -> float:
    """The probability that chi-square with `freedom` degrees of freedom exceeds `statistic`."""
    return float(special.chdtrc(freedom, statistic))


def _checked(hits: ArrayLike, starts: ArrayLike) -> Interval:
    k, n = np.broadcast_arrays(np.asarray(hits, np.float64), np.asarray(starts, np.float64))
    if (n < 1).any() or (k < 0).any() or (k > n).any():
        raise InputError("`hits` must lie between 0 and `starts`, and `starts` must be at least 1.")
    return k, n


def exact_interval(hits: ArrayLike, starts: ArrayLike, confidence: float = 0.95) -> Interval:
    """The interval of a share that covers it with at least this probability, whatever the share is.

    Clopper & Pearson (1934), Biometrika 26, 404, by quantiles of the beta distribution.

    Args:
        hits: Numbers of starts that ended there, of any shape.
        starts: Numbers of all starts, of the same shape, or one for all.
        confidence: Probability with which the interval covers the share.

    Returns:
        Low and high ends, each of the shape of `hits`.

    Raises:
        InputError: For more hits than starts, or a confidence outside of (0, 1).
    """
    k, n = _checked(hits, starts)
    tail = (1 - check_confidence(confidence)) / 2
    low = np.where(k == 0, 0.0, special.betaincinv(np.maximum(k, 1), n - k + 1, tail))
    high = np.where(k == n, 1.0, special.betainccinv(k + 1, np.maximum(n - k, 1), tail))
    return low, high


def wilson_interval(hits: ArrayLike, starts: ArrayLike, confidence: float = 0.95) -> Interval:
    """The interval of a share that covers it with about this probability, on average over shares.

    Wilson (1927), J. Am. Stat. Assoc. 22, 209. Fair where three hits or more are expected.

    Args:
        hits: Numbers of starts that ended there, of any shape.
        starts: Numbers of all starts, of the same shape, or one for all.
        confidence: Probability with which the interval covers the share.

    Returns:
        Low and high ends, each of the shape of `hits`.

    Raises:
        InputError: For more hits than starts, or a confidence outside of (0, 1).
    """
    k, n = _checked(hits, starts)
    z2 = normal_quantile(confidence) ** 2
    centre = (k + z2 / 2) / (n + z2)
    half = np.sqrt(z2) / (n + z2) * np.sqrt(k * (n - k) / n + z2 / 4)
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def coverage(
    interval: Callable[[NDArray[np.int64], int], Interval], starts: int, shares: ArrayLike
) -> NDArray[np.float64]:
    """The probability that an interval covers a true share: a sum of binomial probabilities, without simulation.

    The ends of the interval must grow with the hits, so that the hits whose interval covers a share are neighbours.

    Args:
        interval: A function of hits and starts, such as `wilson_interval`.
        starts: Number of starts.
        shares: True shares, of any shape.

    Returns:
        The probabilities, of the shape of `shares`.

    Raises:
        InputError: For what the interval refuses.
    """
    low, high = interval(np.arange(starts + 1), starts)
    p = np.asarray(shares, np.float64)
    first, last = np.searchsorted(high, p, "left"), np.searchsorted(low, p, "right") - 1
    below = np.where(first > 0, special.bdtr(np.maximum(first - 1, 0), starts, p), 0.0)
    return special.bdtr(last, starts, p) - below


def difference_interval(
    hits: tuple[int, int], starts: tuple[int, int], confidence: float = 0.95
) -> tuple[float, float, float]:
    """First share minus second, of two independent samples, with its interval.

    Newcombe (1998), Stat. Med. 17, 873, method 10: from the Wilson intervals of both.

    Args:
        hits: Numbers of starts that ended there, of the first and of the second sample.
        starts: Numbers of all starts of both.
        confidence: Of the interval.

    Returns:
        Difference, low end, high end.

    Raises:
        InputError: For more hits than starts, or a confidence outside of (0, 1).
    """
    share = np.asarray(hits) / np.asarray(starts)
    low, high = wilson_interval(hits, starts, confidence)
    difference = share[0] - share[1]
    below = np.hypot(share[0] - low[0], high[1] - share[1])
    above = np.hypot(high[0] - share[0], share[1] - low[1])
    return float(difference), float(difference - below), float(difference + above)


def paired_difference_interval(
    both: int, first_only: int, second_only: int, neither: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """First share minus second, of the same starts, with its interval.

    Newcombe (1998), Stat. Med. 17, 2635, method 10: as for two samples, with the correlation of the pairs.

    Args:
        both: Number of starts that ended there both times.
        first_only: Number that did the first time only.
        second_only: Number that did the second time only.
        neither: Number that never did.
        confidence: Of the interval.

    Returns:
        Difference, low end, high end.

    Raises:
        InputError: If there are no starts, or for a confidence outside of (0, 1).
    """
    n = both + first_only + second_only + neither
    hits = np.array([both + first_only, both + second_only])
    low, high = wilson_interval(hits, n, confidence)
    share = hits / n
    # His continuity correction of the correlation, for positive ones.
    product = both * neither - first_only * second_only
    product = max(product - n / 2, 0) if product > 0 else product
    margins = float(np.prod(hits * (n - hits), dtype=np.float64))
    correlation = product / np.sqrt(margins) if margins > 0 else 0.0
    difference = share[0] - share[1]
    down, up = share - low, high - share
    below = np.sqrt(max(down[0] ** 2 - 2 * correlation * down[0] * up[1] + up[1] ** 2, 0))
    above = np.sqrt(max(up[0] ** 2 - 2 * correlation * up[0] * down[1] + down[1] ** 2, 0))
    return float(difference), float(difference - below), float(difference + above)
