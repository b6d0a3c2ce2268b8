"""Whether two campaigns end differently: in the global minimum, in the orders, in the minima."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray
from scipy import sparse, special

from enumerator.errors import InputError
from enumerator.statistics.counting import ENDED, Sample, StartSelection, opened, samples
from enumerator.statistics.intervals import chi2_beyond, difference_interval, paired_difference_interval
from enumerator.storage.sql import one_of

if TYPE_CHECKING:
    from enumerator.statistics.counting import Countable

# Ends that fewer starts of both campaigns together, or fewer discordant pairs, reached are counted as one: the
# distribution of the statistic is that of many.
RARE = 10
# Ways to exchange the ends of few discordant starts that are tried, or drawn; so many numbers of them at a time.
MOST_EXCHANGES = 2**15
_AT_ONCE = 2**20
# Statistics that are equal differ by rounding of this part.
_ROUNDING = 1e-9
# What is compared: whether a start ended in the global minimum, and in which order, or minimum.
QUESTIONS = ("global", "order", "minimum")


def g_test(first: ArrayLike, second: ArrayLike) -> tuple[float, int, float, float]:
    """Whether two independent samples have one distribution: the G-test. Sokal & Rohlf (1981), Biometry, ch. 17.

    Classes with fewer than 10 of both together are pooled. Where one class is left nothing can be told apart: p is 1.

    Args:
        first: Counts (C,) of the classes in the first sample.
        second: Counts (C,) of the same classes in the second.

    Returns:
        Statistic G, degrees of freedom, p-value, and effect: Cramer's V, 0 for equal shares, 1 for disjoint ones.
    """
    table = _pooled(np.array([first, second], np.int64))
    if table.shape[1] < 2 or (table.sum(axis=1) == 0).any():
        return 0.0, 0, 1.0, 0.0
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    statistic = 2 * float(special.xlogy(table, table / expected).sum())
    pearson = float(((table - expected) ** 2 / expected).sum())
    freedom = table.shape[1] - 1
    return statistic, freedom, chi2_beyond(statistic, freedom), float(np.sqrt(pearson / table.sum()))


def _pooled(table: NDArray[np.int64]) -> NDArray[np.int64]:
    total = table.sum(axis=0)
    kept, rest = table[:, total >= RARE], table[:, total < RARE].sum(axis=1)
    return np.column_stack([kept, rest]) if rest.any() else kept


def marginal_test(pairs: ArrayLike) -> tuple[float, int, float, float]:
    """Whether the same starts end alike by two dynamics: the Stuart-Maxwell test, McNemar's for two classes.

    Stuart (1955), Biometrika 42, 412; Maxwell (1970), Br. J. Psychiatry 116, 651. A start is discordant if it ends in
    different classes. Classes with fewer than 10 discordant starts are pooled.

    Where all classes are so rare none is pooled, and the p-value is exact. It is the chance of such a statistic or a
    larger one if the two ends of each discordant start are exchanged or not at random. With more than 2^15 ways to
    exchange them it is the chance among 2^15 random ways of a fixed seed, the observed one included (Phipson & Smyth
    (2010), Stat. Appl. Genet. Mol. Biol. 9, 39). So it is no less than 2^-15.

    Args:
        pairs: Counts (C, C) of the starts by the class of their end, by the first dynamics (row) and the second.

    Returns:
        Statistic, degrees of freedom, p-value, and effect: the root of the statistic over the number of discordant
            starts, 0 for equal margins, 1 where all discordant starts change in one way.
    """
    return _marginal_test(np.asarray(pairs, np.int64))[1]


def _marginal_test(pairs: NDArray[np.int64]) -> tuple[str, tuple[float, int, float, float]]:
    """How the p-value is found, one word and a blank or nothing for the usual way, and what `marginal_test` gives."""
    discordant = pairs.sum(axis=0) + pairs.sum(axis=1) - 2 * pairs.diagonal()
    if not discordant.any():
        return "", (0.0, 0, 1.0, 0.0)
    is_small = bool((discordant < RARE).all())
    table = _pooled_pairs(pairs, discordant, 1 if is_small else RARE)
    difference = table.sum(axis=1) - table.sum(axis=0)
    covariance = np.diag(table.sum(axis=1) + table.sum(axis=0)) - table - table.T
    # Differences add up to zero, so one is left out; where classes never mix, more follow from the others.
    d, V = difference[:-1].astype(np.float64), covariance[:-1, :-1].astype(np.float64)
    inverse = np.linalg.pinv(V, hermitian=True).astype(np.float64)
    statistic = float(d @ inverse @ d)
    freedom = int(np.linalg.matrix_rank(V, hermitian=True))
    effect = float(np.sqrt(min(statistic / (table.sum() - table.trace()), 1.0)))
    how, p = _chance_of_exchanges(table, inverse, statistic) if is_small else ("", chi2_beyond(statistic, freedom))
    return how, (statistic, freedom, p, effect)


def _pooled_pairs(pairs: NDArray[np.int64], discordant: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Pairs with the classes of fewer than `most` discordant starts as one, and without those of none."""
    groups = [np.array([k]) for k in np.flatnonzero(discordant >= most)]
    rare = np.flatnonzero((discordant > 0) & (discordant < most))
    groups += [rare] if rare.size else []
    return np.array([[pairs[np.ix_(a, b)].sum() for b in groups] for a in groups])


def _chance_of_exchanges(table: NDArray[np.int64], inverse: NDArray[np.float64], statistic: float) -> tuple[str, float]:
    """How it is found, and the chance of such a statistic or a larger one if the ends of starts are exchanged.

    An exchange leaves the covariance of the differences as it is, whose `inverse` is given.
    """
    first, second = np.nonzero(np.triu(table + table.T, 1))
    starts = (table + table.T)[first, second]
    pairs = np.arange(len(starts))
    change = sparse.csr_array((np.ones(len(pairs)), (pairs, first)), (len(pairs), len(table)))
    change = change - sparse.csr_array((np.ones(len(pairs)), (pairs, second)), (len(pairs), len(table)))

    def is_as_large(kept: NDArray[np.int64]) -> NDArray[np.bool_]:
        d = ((2 * kept - starts) @ change)[:, :-1]
        return ((d @ inverse) * d).sum(axis=1) >= (1 - _ROUNDING) * statistic

    if np.log1p(starts).sum() <= np.log(MOST_EXCHANGES) + _ROUNDING:
        kept = np.stack(np.meshgrid(*map(np.arange, starts + 1), indexing="ij"), axis=-1).reshape(-1, len(starts))
        chance = np.prod(special.comb(starts, kept), axis=1) / 2.0 ** starts.sum()
        return "exact ", min(1.0, float(chance[is_as_large(kept)].sum()))
    rng, rows = np.random.default_rng(0), max(1, _AT_ONCE // len(table))
    found = int(is_as_large(table[first, second][None]).sum())
    for begun in range(1, MOST_EXCHANGES, rows):
        size = min(rows, MOST_EXCHANGES - begun), len(starts)
        found += int(is_as_large(rng.binomial(starts, 0.5, size)).sum())
    return "sampled ", found / MOST_EXCHANGES


def holm(pvalues: ArrayLike) -> NDArray[np.float64]:
    """The p-values `pvalues` (n,) corrected for their number, (n,): Holm (1979), Scand. J. Stat. 6, 65."""
    p = np.asarray(pvalues, np.float64)
    order = np.argsort(p)
    steps = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(steps, 1)
    return corrected


_COMPARISONS = pa.schema(
    [
        ("first", pa.string()),
        ("second", pa.string()),
        ("first_name", pa.string()),
        ("second_name", pa.string()),
        ("question", pa.string()),
        ("test", pa.string()),
        ("statistic", pa.float64()),
        ("freedom", pa.int64()),
        ("p_value", pa.float64()),
        ("p_corrected", pa.float64()),
        ("effect", pa.float64()),
        ("first_share", pa.float64()),
        ("second_share", pa.float64()),
        ("difference", pa.float64()),
        ("difference_low", pa.float64()),
        ("difference_high", pa.float64()),
        ("first_starts", pa.int64()),
        ("second_starts", pa.int64()),
        ("first_dynamics", pa.string()),
        ("second_dynamics", pa.string()),
        ("first_law", pa.string()),
        ("second_law", pa.string()),
        ("first_settings", pa.string()),
        ("second_settings", pa.string()),
    ]
)


def compare(
    catalogue: Countable,
    campaigns: Sequence[str] | None = None,
    questions: Sequence[str] = QUESTIONS,
    confidence: float = 0.95,
    **selection: Any,
) -> pa.Table:
    """Do these campaigns end differently? A row for each pair of them and each question.

    Two campaigns that share their law, seed and network sizes share their starts. The tests are then paired (McNemar,
    Stuart-Maxwell, see `marginal_test`) and count the starts stored of both. Other pairs are independent samples
    (`g_test`). Starts that ended in no minimum are classes of their own.

    Args:
        catalogue: A catalogue, or what `enumerate_minima` found.
        campaigns: Names or ids; all campaigns selected if none are given.
        questions: What is compared: `global`, whether a start ended in the global minimum (the lowest known of its
            landscape); `order`, in which order; `minimum`, in which minimum, on one landscape only.
        confidence: Of every interval.
        **selection: Which starts, by the keywords of `StartSelection`.

    Returns:
        `test`, `statistic`, `freedom`, `p_value` and `effect`. `p_corrected` is corrected by Holm for all rows with the
            same question. For `global` the shares stand beside their `difference`, first minus second, with its
            interval.

    Raises:
        InputError: For fewer than two campaigns with starts, names that do not exist, or another question.
    """
    if wrong := [question for question in questions if question not in QUESTIONS]:
        raise InputError(f"`questions` must be of {', '.join(QUESTIONS)}, got {wrong[0]!r}.")
    several = isinstance(campaigns, Sequence) and not isinstance(campaigns, str)
    wanted: Any = campaigns if campaigns is None else list(campaigns) if several else [campaigns]
    chosen = samples(catalogue, pool_seeds=False, campaign=wanted, **selection)
    if len(chosen) < 2:
        raise InputError(f"a comparison needs at least two campaigns with starts, got {len(chosen)}.")
    selected = opened(catalogue, StartSelection(campaign=[sample.campaigns for sample in chosen])).campaigns
    settings = {entry.id: entry.settings for entry in selected}
    if wanted is not None:
        places = {entry.id: min(map(wanted.index, {entry.id, entry.name} & set(wanted))) for entry in selected}
        chosen.sort(key=lambda sample: places[sample.campaigns])
    rows: list[dict[str, Any]] = []
    for first, second in combinations(chosen, 2):
        paired = _share_starts(settings[first.campaigns], settings[second.campaigns])
        pairs = _pairs(catalogue, first, second, selection) if paired else None
        for question in questions:
            if question != "minimum" or first.landscape_id == second.landscape_id:
                rows.append(_comparison(first, second, question, pairs, confidence))
    for question in questions:
        asked = [row for row in rows if row["question"] == question]
        for row, corrected in zip(asked, holm([row["p_value"] for row in asked]), strict=True):
            row["p_corrected"] = float(corrected)
    return pa.Table.from_pylist(rows, schema=_COMPARISONS)


def _share_starts(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether start i of both has the same initial overlaps: drawn by law, seed and index from the same sizes and T."""
    drawn = [
        json.dumps([s["law"], s["seed"], [s["landscape"].get(name) for name in ("students", "teachers", "T")]])
        for s in (first, second)
    ]
    return drawn[0] == drawn[1]


def _comparison(
    first: Sample, second: Sample, question: str, pairs: list[dict[str, Any]] | None, confidence: float
) -> dict[str, Any]:
    """A row of `compare`, p_corrected left out; `pairs` as `_pairs` gives them, None for independent samples."""
    names = [_class_names(sample, question) for sample in (first, second)]
    row: dict[str, Any] = {"first": first.campaigns, "second": second.campaigns, "question": question}
    row |= {"first_name": first.campaign_names, "second_name": second.campaign_names}
    row |= {"first_law": first.law, "second_law": second.law}
    row |= {"first_dynamics": first.dynamics, "second_dynamics": second.dynamics}
    row |= {"first_settings": first.settings, "second_settings": second.settings}
    if pairs is not None:
        table, labels = _pair_table(pairs, names)
        starts = [int(table.sum())] * 2
        how, found = _marginal_test(table)
        test = how + ("McNemar" if question == "global" else "Stuart-Maxwell")
        counts = table.sum(axis=1), table.sum(axis=0)
    else:
        labels, counts = _counts(first, second, names)
        starts = [int(count.sum()) for count in counts]
        found, test, table = g_test(*counts), "G", None
    row |= {"test": test, **dict(zip(("statistic", "freedom", "p_value", "effect"), found, strict=True))}
    row |= {"first_starts": starts[0], "second_starts": starts[1]}
    if question == "global" and min(starts):
        here = labels.index("global") if "global" in labels else None
        hits = [0 if here is None else int(count[here]) for count in counts]
        if table is not None and here is not None:
            both = int(table[here, here])
            alone = hits[0] - both, hits[1] - both
            interval = paired_difference_interval(both, *alone, starts[0] - both - sum(alone), confidence)
        else:
            interval = difference_interval((hits[0], hits[1]), (starts[0], starts[1]), confidence)
        row |= {"first_share": hits[0] / starts[0], "second_share": hits[1] / starts[1]}
        row |= dict(zip(("difference", "difference_low", "difference_high"), interval, strict=True))
    return row


def _class_names(sample: Sample, question: str) -> dict[tuple[str, str | None], str]:
    """The class of each end: by outcome and minimum."""
    lowest = sample.global_minimum()
    names = {}
    for row in sample.classes.to_pylist():
        if question == "global":
            is_global = lowest is not None and row["minimum_id"] == lowest["minimum_id"] and row["outcome"] == ENDED
            name = "global" if is_global else "other"
        elif row["outcome"] != ENDED:
            name = row["outcome"]
        else:
            name = row["minimum_id"] if question == "minimum" else f"order {row['anti_aligned']}"
        names[row["outcome"], row["minimum_id"]] = name
    return names


def _counts(first: Sample, second: Sample, names: list[dict[Any, str]]) -> tuple[list[str], tuple[NDArray, NDArray]]:
    """The classes of both, and the counts of each in their order."""
    labels = sorted({name for one in names for name in one.values()})
    counts = np.zeros((2, len(labels)), np.int64)
    for side, (sample, named) in enumerate(zip((first, second), names, strict=True)):
        for row in sample.classes.to_pylist():
            counts[side, labels.index(named[row["outcome"], row["minimum_id"]])] += row["hits"]
    return labels, (counts[0], counts[1])


def _pairs(catalogue: Countable, first: Sample, second: Sample, selection: dict[str, Any]) -> list[dict[str, Any]]:
    """Starts of both, counted by their ends in the first (a_outcome, a_point) and in the second (b_...)."""
    source = opened(
        catalogue, StartSelection(campaign=[first.campaigns, second.campaigns], where=selection.get("where"))
    )
    columns = "start_index, outcome, coalesce(minimum_id, saddle_id) as point"

    def of(sample: Sample) -> str:
        return f"select {columns} from starts where {one_of('campaign_id', [sample.campaigns])} and {source.condition}"

    return source.query(f"""
        select a.outcome as a_outcome, a.point as a_point, b.outcome as b_outcome, b.point as b_point, count(*) as n
        from ({of(first)}) a join ({of(second)}) b using (start_index) group by all""").to_pylist()


def _pair_table(pairs: list[dict[str, Any]], names: list[dict[Any, str]]) -> tuple[NDArray[np.int64], list[str]]:
    """Pairs by their classes in the first (rows) and in the second (columns), and the classes."""
    labels = sorted({name for one in names for name in one.values()})
    table = np.zeros((len(labels), len(labels)), np.int64)
    for row in pairs:
        a, b = (
            labels.index(named[row[f"{side}_outcome"], row[f"{side}_point"]])
            for side, named in zip("ab", names, strict=True)
        )
        table[a, b] += row["n"]
    return table, labels
