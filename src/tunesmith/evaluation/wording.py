"""How figures are put into words, the same in the verdict, the terminal and the page; ASCII, for any terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from tunesmith.evaluation.intervals import Interval
from tunesmith.tasks.base import CORRELATIONS

METRIC_TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "entity_f1": "entity F1",
    "f1": "F1",
    "has_answer_f1": "answerable F1",
    "has_answer_exact": "answerable exact match",
    "no_answer_accuracy": "unanswerable accuracy",
    "best_span_f1": "answerable F1 without a threshold",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "rmse": "RMSE",
    "standardised_rmse": "RMSE in standard deviations",
    "loss": "loss a token",
    "bits_per_byte": "bits a byte",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "accuracy_at_1": "accuracy@1",
    "mrr_at_10": "MRR@10",
    "ndcg_at_10": "nDCG@10",
}


def metric_title(name: str, lower: Collection[str] = ()) -> str:
    """The metric's name in words; of one in `lower` also that less is better."""
    title = METRIC_TITLES.get(name, name.replace("_", " "))
    return f"{title} (lower is better)" if name in lower else title


def sentence_case(words: str) -> str:
    """With its first letter as a capital, and the others as they are."""
    return words[:1].upper() + words[1:]


def count(number: int) -> str:
    """1234567 -> "1,234,567"."""
    return f"{number:,}"


def cut_answers(cut: int, full: int) -> str:
    """How many written texts did not come to an end; `full`: those of them for which the model had no more positions."""
    most = "at the most tokens that may be written"
    if not full:
        return f"{cut:,} of them were cut {most}"
    told = f"{cut - full:,} {most}, " if cut > full else ""
    return f"{cut:,} of them were cut: {told}{full:,} where the model takes no more tokens"


def rows_of(number: int, kind: str) -> str:
    """(1, "test row") -> "1 test row"; (3080, "test row") -> "3,080 test rows"."""
    return f"{number:,} {kind}{'' if number == 1 else 's'}"


def every_one(names: Sequence[str]) -> str:
    """("head", "full", "lora") -> "head, full and lora"."""
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)


def further_models(number: int) -> str:
    """(1) -> "1 further model"; (4) -> "4 further models"."""
    return rows_of(number, "further model")


def digits_for(*values: float) -> int:
    """Three decimals, or as many more (to six) as keep every value that is not 0 from being printed as 0."""
    digits = 3
    while digits < 6 and any(value != 0 and round(value, digits) == 0 for value in values):
        digits += 1
    return digits


def figures(*values: float) -> tuple[str, ...]:
    """Each with the digits that suit the largest: 0.942; 74,714 of 1000 and more; 0.0000214 and 2.14e-07 of small units."""
    digits = digits_of(values)
    return tuple(f"{value:.2e}" if digits is None else f"{value:,.{digits}f}" for value in values)


def digits_of(values: Sequence[float]) -> int | None:
    """Decimals that suit the largest of them; None where only powers of ten do."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if 0 < largest < 1e-6:
        return None
    if 0 < largest < 1e-3:
        return 2 - math.floor(math.log10(largest))
    return 0 if largest >= 1000 else 1 if largest >= 100 else 2 if largest >= 10 else 3


def with_interval(interval: Interval) -> str:
    """ "0.942 [0.933, 0.950]" """
    value, low, high = figures(interval.value, interval.low, interval.high)
    return f"{value} [{low}, {high}]"


def gain_with_interval(gain: Interval, lower: bool = False) -> str:
    """ "+0.012 [+0.005, +0.018]"; where less is better "12.3 [10.2, 14.4] lower", or higher"""
    if lower and gain.value < 0:
        value, low, high = figures(-gain.value, -gain.high, -gain.low)
        return f"{value} [{low}, {high}] higher"
    if lower:
        value, low, high = figures(gain.value, gain.low, gain.high)
        return f"{value} [{low}, {high}] lower"
    digits = digits_for(gain.value, gain.low, gain.high)
    return f"{signed(gain.value, digits)} [{signed(gain.low, digits)}, {signed(gain.high, digits)}]"


def p_value(p: float) -> str:
    """ "p = 0.03"; "p < 0.001"; with a third digit where it is less than 0.01, and with as many as tell it from 0.05."""
    if p < 0.001:
        return "p < 0.001"
    digits = 3 if p < 0.01 else 2
    while digits < 5 and round(p, digits) == 0.05:
        digits += 1
    return f"p = {p:.{digits}f}"


def gain_in_words(gain: Interval, metric: str, lower: bool = False) -> str:
    """ "0.6 points of accuracy [0.1, 1.2]", "0.012 of Spearman correlation [0.005, 0.018]", "0.21 lower RMSE [0.1, 0.3]"."""
    title = metric_title(metric)
    if lower:
        value, low, high = figures(gain.value, gain.low, gain.high)
        return f"{value} lower {title} [{low}, {high}]"
    if metric in CORRELATIONS:
        return f"{gain.value:.3f} of {title} [{gain.low:.3f}, {gain.high:.3f}]"
    value, low, high = (f"{100 * edge:.1f}".replace("-0.0", "0.0") for edge in (gain.value, gain.low, gain.high))
    return f"{value} points of {title} [{low}, {high}]"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; 0 has none."""
    return f"{value:+.{digits}f}" if round(value, digits) != 0 else f"{0:.{digits}f}"


def short_count(number: int) -> str:
    """22713216 -> "22.7 M"; 29568 -> "29.6 k"; 77 -> "77"."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit * 0.9995:
            return f"{number / limit:.3g} {unit}"
    return str(number)


def duration(seconds: float, kind: str = "") -> str:
    """(41.3, "CPU") -> "41 CPU seconds"; (600, "") -> "10 minutes"."""
    of = f"{kind} " if kind else ""
    if 0 < seconds < 0.05:
        return f"under 0.1 {of}seconds"
    if seconds < 119.5:
        return f"{_brief(seconds)} {of}seconds"
    if seconds < 119.5 * 60:
        return f"{_brief(seconds / 60)} {of}minutes"
    return f"{_brief(seconds / 3600)} {of}hours"


def _brief(amount: float) -> str:
    return f"{amount:.1f}" if amount < 9.95 else f"{amount:.0f}"


def times_of(share: float) -> str:
    """(0.43) -> "43 % of"; (16.1) -> "16 times"."""
    return f"{100 * share:.0f} % of" if share < 2 else f"{share:.0f} times"


def memory(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"
