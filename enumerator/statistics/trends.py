"""How a share or a mean order changes with the width, and a curve through it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import special

from enumerator.errors import InputError
from enumerator.statistics.counting import SAMPLE_FIELDS, Sample, samples
from enumerator.statistics.intervals import check_confidence, chi2_beyond, normal_quantile, wilson_interval

if TYPE_CHECKING:
    from enumerator.statistics.counting import Countable

# What changes: the share of all starts that end in the global minimum, or the mean order of those that have one.
QUANTITIES = ("global", "order")
# Points that a curve needs beyond its coefficients: with fewer it says nothing about its own error.
SPARE_POINTS = 2
# A curve has the lowest degree, up to this one, that the points do not contradict at this level of chi-square.
MOST_DEGREE, CONTRADICTED = 4, 0.01


class Curve(NamedTuple):
    """A fitted curve with its interval.

    Attributes:
        value: The curve at the points asked for.
        low: Low end of its interval there.
        high: High end there.
        coefficients: Of the powers of (x - mean)/(half range), from 0 on.
        dispersion: Mean squared residual over what sampling explains: near 1 where the curve is right.
    """

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    coefficients: NDArray[np.float64]
    dispersion: float

    @property
    def degree(self) -> int:
        """Of the polynomial."""
        return len(self.coefficients) - 1


def _basis(x: NDArray[np.float64], points: NDArray[np.float64], degree: int) -> NDArray[np.float64]:
    """Powers of the points, centred and scaled by those of `x`."""
    scaled = (points - x.mean()) / max(float(np.ptp(x)) / 2, 1e-300)
    return np.vander(scaled, degree + 1, increasing=True)


def _check(x: NDArray[np.float64], degree: int) -> None:
    if len(np.unique(x)) < degree + 1 + SPARE_POINTS:
        raise InputError(
            f"a curve of degree {degree} needs at least {degree + 1 + SPARE_POINTS} widths, got {len(np.unique(x))}."
        )


def fit_share(
    x: ArrayLike, hits: ArrayLike, starts: ArrayLike, at: ArrayLike, degree: int, confidence: float = 0.95
) -> Curve:
    """A share with a logit that is a polynomial in x: the most likely one, by iteratively reweighted least squares.

    The interval of the curve is widened by the dispersion where it exceeds 1 (quasi-likelihood). McCullagh & Nelder
    (1989), Generalized Linear Models, ch. 4.

    Args:
        x: Widths (n,).
        hits: Numbers of starts (n,) that are in the share.
        starts: Numbers of all starts (n,).
        at: Widths at which you want the curve.
        degree: Degree of the polynomial.
        confidence: Of the interval of the curve.

    Raises:
        InputError: For fewer than `degree` + 3 different widths.
    """
    x, hits, n = (np.asarray(value, np.float64) for value in (x, hits, starts))
    _check(x, degree)
    X = _basis(x, x, degree)
    eta = special.logit((hits + 0.5) / (n + 1))
    beta = np.zeros(degree + 1)
    for _ in range(100):
        p = special.expit(eta)
        weight = np.maximum(n * p * (1 - p), 1e-12)
        information = X.T @ (weight[:, None] * X)
        new = np.linalg.solve(information, X.T @ (weight * (eta + (hits - n * p) / weight)))
        moved = np.abs(new - beta).max()
        beta, eta = new, X @ new
        if moved < 1e-10:
            break
    p = special.expit(eta)
    pearson = float((((hits - n * p) ** 2) / np.maximum(n * p * (1 - p), 1e-12)).sum())
    covariance = np.linalg.inv(X.T @ (np.maximum(n * p * (1 - p), 1e-12)[:, None] * X))
    low, value, high = _band(x, at, beta, covariance, pearson, degree, confidence)
    return Curve(special.expit(value), special.expit(low), special.expit(high), beta, pearson / (len(x) - degree - 1))


def fit_mean(
    x: ArrayLike, means: ArrayLike, errors: ArrayLike, at: ArrayLike, degree: int, confidence: float = 0.95
) -> Curve:
    """A mean that is a polynomial in x, by least squares weighted with the standard errors.

    Args:
        x: Widths (n,).
        means: Means (n,).
        errors: Their standard errors (n,).
        at: Widths at which you want the curve.
        degree: Degree of the polynomial.
        confidence: Of the interval of the curve, widened as in `fit_share`.

    Raises:
        InputError: For fewer than `degree` + 3 different widths.
    """
    x, means, errors = (np.asarray(value, np.float64) for value in (x, means, errors))
    _check(x, degree)
    X, weight = _basis(x, x, degree), 1 / np.maximum(errors, 1e-12) ** 2
    covariance = np.linalg.inv(X.T @ (weight[:, None] * X))
    beta = covariance @ (X.T @ (weight * means))
    chi2 = float((weight * (means - X @ beta) ** 2).sum())
    low, value, high = _band(x, at, beta, covariance, chi2, degree, confidence)
    return Curve(value, low, high, beta, chi2 / (len(x) - degree - 1))


def _band(
    x: NDArray[np.float64],
    at: ArrayLike,
    beta: NDArray[np.float64],
    covariance: NDArray[Any],
    chi2: float,
    degree: int,
    confidence: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Low end, curve and high end, of the linear predictor."""
    freedom = len(x) - degree - 1
    B = _basis(x, np.asarray(at, np.float64), degree)
    error = np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", B, covariance, B), 0) * max(1.0, chi2 / freedom))
    reach = -float(special.stdtrit(freedom, (1 - check_confidence(confidence)) / 2)) * error
    return B @ beta - reach, B @ beta, B @ beta + reach


_TREND = pa.schema(
    [
        *SAMPLE_FIELDS[:2],
        ("quantity", pa.string()),
        ("value", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("curve", pa.float64()),
        ("curve_low", pa.float64()),
        ("curve_high", pa.float64()),
        ("degree", pa.int32()),
        ("dispersion", pa.float64()),
        ("counted", pa.int64()),
        ("starts", pa.int64()),
        *SAMPLE_FIELDS[2:],
    ]
)


def trend(
    catalogue: Countable, of: str = "global", confidence: float = 0.95, degree: int | None = None, **selection: Any
) -> pa.Table:
    """The share of the global minimum (or the mean order) at each size, and a curve in the width through them.

    The global minimum is the lowest that is known of a landscape. Samples that differ in K and M alone, at one K - M,
    lie on one curve. A law with d = M, whatever M, is one law here.

    Args:
        catalogue: A catalogue, or what `enumerate_minima` found.
        of: `global`, the share of all starts that end in the global minimum, or `order`, the mean order.
        confidence: Of every interval.
        degree: Degree of the curve; by default the lowest up to 4 that the points do not contradict.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        A row for each sample: `value` with `low` and `high`, Wilson's for shares, normal ones for means; `curve` with
            its interval, null where the widths are too few for one; `dispersion`, far above 1 where the points
            contradict the curve; `counted`, the starts in the mean, or all.

    Raises:
        InputError: For names that do not exist, or another `of`.
    """
    if of not in QUANTITIES:
        raise InputError(f"`of` must be one of {', '.join(QUANTITIES)}, got {of!r}.")
    rows: list[dict[str, Any]] = []
    for sample in samples(catalogue, **selection):
        value = _share(sample, confidence) if of == "global" else _mean_order(sample, confidence)
        if value is not None:
            rows.append(sample.row() | value | {"quantity": of, "starts": sample.starts})
    curves: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        curves.setdefault(curve_key(row), []).append(row)
    for members in curves.values():
        curve = fitted(of, members, [row["students"] for row in members], degree, confidence)
        if curve is None:
            continue
        for position, row in enumerate(members):
            row |= {"curve": float(curve.value[position]), "degree": curve.degree, "dispersion": curve.dispersion}
            row |= {"curve_low": float(curve.low[position]), "curve_high": float(curve.high[position])}
    return pa.Table.from_pylist(rows, schema=_TREND)


def fitted(of: str, rows: list[dict[str, Any]], at: ArrayLike, degree: int | None, confidence: float) -> Curve | None:
    """The curve through the rows of a trend, at these widths; None where they are too few for any."""
    x = [row["students"] for row in rows]
    most = len(set(x)) - 1 - SPARE_POINTS
    curve = None
    for tried in range(1, min(most, MOST_DEGREE) + 1) if degree is None else [degree] if degree <= most else []:
        if of == "global":
            starts = np.array([row["starts"] for row in rows])
            hits = np.round(np.array([row["value"] for row in rows]) * starts)
            curve = fit_share(x, hits, starts, at, tried, confidence)
        else:
            reach = 2 * normal_quantile(confidence)
            errors = [(row["high"] - row["low"]) / reach for row in rows]
            curve = fit_mean(x, [row["value"] for row in rows], errors, at, tried, confidence)
        freedom = len(x) - tried - 1
        if chi2_beyond(curve.dispersion * freedom, freedom) > CONTRADICTED:
            break
    return curve


def curve_key(row: dict[str, Any]) -> tuple[Any, ...]:
    """What the samples of one curve have in common: K - M, activation, dynamics, law, settings."""
    law = row["law"].replace(f"d={row['teachers']} ", "d=M ")
    return row["students"] - row["teachers"], row["activation"], row["dynamics"], law, row["settings"]


def _share(sample: Sample, confidence: float) -> dict[str, Any] | None:
    lowest = sample.global_minimum()
    if lowest is None:
        return None
    low, high = wilson_interval([lowest["hits"]], sample.starts, confidence)
    share = lowest["hits"] / sample.starts
    return {
        "value": share,
        "low": float(low[0]),
        "high": float(high[0]),
        "hits": lowest["hits"],
        "counted": sample.starts,
    }


def _mean_order(sample: Sample, confidence: float) -> dict[str, Any] | None:
    rows = [row for row in sample.ends() if row["hits"] and row["anti_aligned"] is not None]
    hits = np.array([row["hits"] for row in rows], np.float64)
    if hits.sum() < 2:
        return None
    orders = np.array([row["anti_aligned"] for row in rows], np.float64)
    mean = float((hits * orders).sum() / hits.sum())
    spread = float(np.sqrt((hits * (orders - mean) ** 2).sum() / (hits.sum() - 1)))
    # Where all have one order the spread is not zero but unseen: one start in so many may differ by one.
    error = max(spread, 1 / np.sqrt(hits.sum())) / np.sqrt(hits.sum())
    half = normal_quantile(confidence) * error
    return {"value": mean, "low": mean - half, "high": mean + half, "counted": int(hits.sum())}
