"""In which order bases come, which of them cannot be told apart, and where other scores say otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.evaluation.intervals import Interval, Pairwise

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores

FEWEST = 4  # bases, from which on a correlation of two orders says something
APART = 0.5  # Kendall's tau below which two scores are said to order the bases otherwise


class Gain(NamedTuple):
    """What the better of two bases is better by, whatever the metric."""

    better: str
    worse: str
    interval: Interval  # holds with those of all other pairs


def ordered(values: Mapping[str, float], lower: bool = False) -> list[str]:
    """Names, the best first; of equal values the first named; undefined ones (nan) last."""
    worst = math.inf

    def key(name: str) -> float:
        value = values[name]
        return worst if math.isnan(value) else value if lower else -value

    return sorted(values, key=key)


def gain(found: Pairwise, metric: str, better: str, worse: str) -> Gain:
    """Of two bases that were compared in this metric. Raises KeyError for others."""
    if (better, worse) in found.differences:
        return Gain(better, worse, found.differences[better, worse][metric].together)
    other = found.differences[worse, better][metric].together
    return Gain(better, worse, Interval(-other.value, -other.high, -other.low))


def alike(found: Pairwise, metric: str, order: Sequence[str]) -> list[str]:
    """Those that cannot be told from the first, itself not among them: the interval of the difference holds 0."""
    return [name for name in order[1:] if not gain(found, metric, order[0], name).interval.low > 0]


def agreement(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Weighted Kendall tau of two scores of the same bases, the best counting most: 1 for the same order, -1 for the reverse.

    scipy's `weightedtau` with hyperbolic weights (Vigna 2015, "A weighted correlation index for rankings with ties"). NaN for
    fewer than two bases, and where either is the same for all. More must be better in both.
    """
    from scipy.stats import weightedtau

    names = [name for name in one if name in other and not math.isnan(one[name]) and not math.isnan(other[name])]
    if len(names) < 2:
        return math.nan
    return float(weightedtau([one[name] for name in names], [other[name] for name in names]).statistic)  # type: ignore[union-attr]


def disagreements(
    deciding: str, by_score: Mapping[str, Mapping[str, float]], order: Sequence[str], same: Sequence[str]
) -> list[str]:
    """A line for each score that puts another base first than `deciding` does, or orders them quite otherwise.

    by_score: title of a score -> base -> value, more being better; bases that it says nothing of are not there. same: the
    bases that cannot be told from the first of `order`, so that putting one of them first says nothing else.
    """
    lines = []
    for title, values in by_score.items():
        if title == deciding or len(values) < 2 or order[0] not in values:
            continue
        first = ordered(values)[0]
        if first != order[0] and first not in same and values[first] > values[order[0]]:
            lines.append(f"{title} puts {first} first, and not {order[0]}")
            continue
        tau = agreement(by_score[deciding], values)
        if len(values) >= FEWEST and tau < APART:
            lines.append(f"{title} orders the bases otherwise (weighted Kendall tau {tau:.2f} with {deciding})")
    return lines


def as_gain(scores: Scores, value: float) -> float:
    """The primary metric so that more is better."""
    return -value if scores.primary in scores.lower else value
