"""The page of the answers of `stats` and `early-stops`: every column, with what it says."""

from __future__ import annotations

from scripts.site.text import cell, code, table

_HEAD = """\
# Answers of stats

`enumerator stats`, `GET /statistics/...` and [`enumerator.statistics`](python.md) give these columns. A terminal
cuts the wide tables: `--columns` chooses from them, and files hold them all. Shares are of all starts of
a sample, whatever became of them. Intervals have the confidence that you ask for, 95% otherwise. How they are made:
[What the statistics rest on](../concepts/statistics.md).

"""
# Of every table whose rows are of one sample.
SAMPLE = {
    "students": "Number K of hidden units of the student.",
    "teachers": "Number M of hidden units of the teacher.",
    "starts": "All starts of the sample.",
    "activation": "Name of the activation function.",
    "dynamics": "How the landscape is descended, with its settings.",
    "law": "The initial law.",
    "settings": "The settings that differ from the defaults.",
    "campaigns": "Ids of the campaigns that are counted together: they differ in the seed alone.",
    "campaign_names": "Their names.",
    "landscape_id": "The landscape.",
}
_WHERE = {
    "outcome": "What became of the starts of this row.",
    "label": "Label of the minimum; null for other outcomes, and for all minima of an order.",
    "anti_aligned": "Order of the minimum; null where it is not defined.",
}
_DIFFERENCE = {
    "first": "Id of the first campaign.",
    "second": "Id of the second.",
    "first_name": "Name of the first campaign.",
    "second_name": "Name of the second.",
    "question": "What is compared: global (the global minimum is reached), order, or minimum.",
    "test": "McNemar and Stuart-Maxwell for the same starts, exact where few differ; G for two samples.",
    "statistic": "Value of the test statistic.",
    "freedom": "Its degrees of freedom.",
    "p_value": "Probability of a difference at least as large if the two ended alike.",
    "p_corrected": "The same after Holm's correction for all rows with this question.",
    "effect": "Size of the difference, 0 for none to 1: Cramer's V of two samples; of pairs the root of the statistic "
    "over the number of starts that end differently.",
    "first_share": "Share of the first campaign, for question global.",
    "second_share": "Share of the second.",
    "difference": "The first share minus the second.",
    "difference_low": "Lower end of its interval.",
    "difference_high": "Upper end.",
    "first_starts": "Starts of the first campaign that were compared.",
    "second_starts": "Starts of the second.",
    "first_dynamics": "Dynamics of the first campaign.",
    "second_dynamics": "Dynamics of the second.",
    "first_law": "Initial law of the first campaign.",
    "second_law": "Initial law of the second.",
    "first_settings": "Settings of the first campaign that differ from the defaults.",
    "second_settings": "Settings of the second.",
}
# By the name that `stats --of` takes; the last is a command of its own.
ANSWERS: dict[str, dict[str, str]] = {
    "frequencies": _WHERE
    | {
        "loss": "Loss of the minimum.",
        "hits": "Starts that ended here.",
        "frequency": "hits/starts.",
        "exact_low": "Lower end of the Clopper-Pearson interval, which covers in at least 95 of 100 repetitions.",
        "exact_high": "Its upper end.",
        "wilson_low": "Lower end of Wilson's interval, which is shorter and covers in 95 of 100 on average.",
        "wilson_high": "Its upper end.",
        "orbit_size_log10": "Decimal logarithm of the number of copies of the minimum under permutations.",
        "frequency_per_copy_log10": "Decimal logarithm of frequency over copies: how often one copy is reached.",
        "minimum_id": "Id of the minimum.",
    }
    | SAMPLE,
    "unseen": {
        "in_no_minimum": "Starts that ended in no minimum.",
        "minima": "Distinct minima seen.",
        "hit_once": "Minima in which one start ended.",
        "hit_twice": "Minima in which two did.",
        "missing_mass": "Probability that the next start ends in a minimum that none has ended in.",
        "missing_low": "Lower end of its interval; null where none is valid.",
        "missing_high": "Its upper end.",
        "missing_bound": "An upper bound of the missing mass that always holds, with the confidence asked for.",
        "chao1": "A lower bound of the number of minima that this initial law reaches, by Chao.",
        "chao1_low": "Lower end of its interval; null where none is valid.",
        "chao1_high": "Its upper end.",
        "ichao1": "A sharper lower bound of the same number.",
        "more": "The number of further starts that new_minima is for.",
        "new_minima": "New minima expected in so many further starts; null beyond more_limit.",
        "new_low": "Lower end of its interval.",
        "new_high": "Its upper end.",
        "more_limit": "The largest number of further starts that can be predicted for.",
        "note": "Why an interval or a prediction is not there, or what it must not be quoted without.",
    }
    | SAMPLE,
    "accumulation": {
        "found": "Distinct minima among the first `starts`, in the order of their indices.",
        "expected": "Distinct minima expected among as many starts in any order.",
        "low": "Lower end of the spread over orders.",
        "high": "Its upper end.",
    }
    | SAMPLE
    | {"starts": "Number of starts taken."},
    "distributions": {
        "campaign_id": "The campaign.",
        "campaign_name": "Its name.",
        "quantity": "The column of starts that is summarised.",
    }
    | _WHERE
    | {
        "starts": "Starts of this row.",
        "null": "Those without a finite value, which no quantile counts.",
        "mean": "Mean.",
        "least": "Smallest value.",
        "q05": "Quantile 5%.",
        "q25": "Quantile 25%.",
        "median": "Median.",
        "q75": "Quantile 75%.",
        "q95": "Quantile 95%.",
        "largest": "Largest value.",
    },
    "comparison": _DIFFERENCE,
    "trend": {
        "quantity": "global, the share of the global minimum, or order, the mean order.",
        "value": "That share, or that mean.",
        "low": "Lower end of its interval.",
        "high": "Its upper end.",
        "curve": "The fitted curve at this width: a polynomial in K, for the logit of a share.",
        "curve_low": "Lower end of its interval, widened by the dispersion.",
        "curve_high": "Its upper end.",
        "degree": "Degree of the polynomial.",
        "dispersion": "Scatter of the points about the curve, in units of what sampling explains: 1 is a good fit.",
        "counted": "Starts in the mean, or all.",
    }
    | SAMPLE,
    "early-stops": {
        "anti_aligned": "The order; null where it is not defined.",
        "zero_loss": "Whether the row is that of a loss near zero.",
        "stopped": "Starts that would have been counted here at the stop.",
        "stopped_frequency": "Their share of all starts.",
        "stopped_low": "Lower end of its interval (Wilson).",
        "stopped_high": "Its upper end.",
        "hits": "Starts that end here.",
        "frequency": "Their share of all starts.",
        "low": "Lower end of its interval (Wilson).",
        "high": "Its upper end.",
    },
}


def _section(name: str, columns: dict[str, str]) -> str:
    command = f"enumerator stats --of {name}" if name != "early-stops" else "enumerator early-stops"
    rows = [(code(column), cell(meaning)) for column, meaning in columns.items()]
    return f"## {name}\n\nBy {code(command)}.\n\n{table(('column', 'meaning'), rows)}\n"


def page() -> str:
    """One section for each answer."""
    return _HEAD + "\n".join(_section(*entry) for entry in ANSWERS.items())
