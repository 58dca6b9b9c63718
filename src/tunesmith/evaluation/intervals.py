"""How far a metric can be trusted: bootstrap intervals over examples, alone and paired."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from tunesmith.evaluation.resampling import Measured, drawn_groups, jackknife_error, measure, spread, weights_of
from tunesmith.evaluation.significance import Discordant, Significance, check_paired, discordant, significances
from tunesmith.tasks._weighted import weigh
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

RESAMPLES = 10_000  # ends that move by less than a hundredth of the width from seed to seed
ERROR_RESAMPLES = 200  # enough for a standard error (Efron and Tibshirani 1993, section 6.4)
LEAST_SEEN = (
    10  # hits and misses, from which on the spread of groups tells enough of a share (Cochran 1977, section 3.9)
)
BEYOND = (
    25  # resamples that lie beyond each end of an interval, at least: an end that rests on fewer is a matter of luck
)
FEWEST = 60  # rows without a mistake from which on fewer than one in 20 is likely: the rule of three (Hanley 1983)
SAME = 1e-12  # share of their size by which values may differ and count as equal: rounding errors


@dataclass(frozen=True)
class Interval:
    """A value measured on some examples, and where it may lie over all examples of their kind."""

    value: float
    low: float
    high: float


def interval_of(plain: Mapping[str, float]) -> Interval:
    """One from the plain data of a report."""
    return Interval(plain["value"], plain["low"], plain["high"])


def best_of(values: Mapping[str, float], lower: bool) -> str | None:
    """The name of the best value, the first of equal ones. Undefined ones (nan) are none; None where there is no other."""
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    return (min if lower else max)(known, key=lambda name: known[name]) if known else None


@dataclass(frozen=True)
class Comparison:
    """A model's test scores beside those of its baselines, all on the same examples."""

    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, Interval]]  # baseline -> metric -> interval
    gains: dict[str, Interval]  # baseline -> the model less it, in the primary metric, paired
    tests: dict[str, Significance]  # baseline -> whether that could be luck

    def of_baselines(self, metric: str) -> dict[str, Interval]:
        return {name: metrics[metric] for name, metrics in self.baselines.items()}


@dataclass(frozen=True)
class Difference:
    """Of two models in one metric, paired; more is better for the first, whatever the metric."""

    alone: Interval  # at the confidence asked for
    together: Interval  # wider, so that those of all pairs hold at once with that confidence


@dataclass(frozen=True)
class Pairwise:
    """Several models, none of which is more than another, all on the same examples."""

    metrics: dict[str, dict[str, Interval]]  # model -> metric -> interval
    differences: dict[tuple[str, str], dict[str, Difference]]  # (a, b) -> metric -> a less b
    level: float  # confidence of each of the intervals that hold together
    resamples: int  # how many there were, and permutations should be: more where there are more pairs


def bootstrap(
    scores: Scores, metric: str, resamples: int, confidence: float, seed: int, strata: Sequence[int] | None = None
) -> Interval:
    """BCa bootstrap over the examples that the metric counts (Efron 1987; Efron and Tibshirani 1993, section 14.3).

    strata: [examples] of whole numbers from 0, for examples that were drawn by class, each class its share: a test split that
    was made stratified. Resamples keep the shares too, for what would vary with them did not vary in the draw. None where
    the examples came as they are. Strata of fewer than 10 rows are pooled.

    Corrections keep it honest where resampling is blind. A share of the examples (accuracy) gets the wider of the
    bootstrap's interval and the exact binomial one (which knows no strata): near 0 and 1 the bootstrap is too sure. The
    interval always holds the measured value, which rare classes can otherwise push out of it. Where the correction is
    undefined (no resample below the value, or none above it) the percentiles themselves are taken. And where hardly a
    resample differs (no mistake seen, say), each side is as wide as the share of examples that could have gone unseen:
    1 - ((1 - confidence) / 2) ** (1 / n), which for a share of 0 or 1 is the exact binomial bound (Clopper and Pearson
    1934). Of a correlation twice that, since it may turn from 1 to -1 there; not of any other metric that is no mean of
    values from 0 to 1 (`Scores.free`), for which a share means nothing.
    Resamples of which the metric is undefined (nan) tell nothing, and are left out.

    Examples in groups (`Scores.groups`) are drawn in whole groups (the cluster bootstrap: Davison and Hinkley 1997, section
    3.8), without strata. Few groups spread less in resamples than they do, and are normal for few only: the ends are those
    at t quantiles times the jackknife's standard error over the bootstrap's, as Hesterberg (2015, "What Teachers Should
    Know About the Bootstrap", section 5.3) expands percentiles, and each at least t standard errors of the jackknife away
    (the cluster-robust CV3: Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023), groups of unequal size counting for
    fewer (`Drawn.freedom`). Of shares near 0 or 1 the exact binomial interval is of as many rows as the groups are worth
    (Korn and Graubard 1998); and what could have gone unseen is a share of the groups, for where hardly a resample differs,
    nothing tells how alike the rows of a group are. From 10 groups on 95 % intervals cover 93 to 98 % where rows of a group
    correlate by 0.3 or less; with fewer that are quite alike within (0.5) 83 to 92 %, and where mistakes are rare and all in
    a few of many groups (accuracy 0.98 on 40 groups, correlation 0.3) 90 % (docs/log.md).

    Raises ValueError when there are no examples.
    """
    (measured,) = measure([scores], [metric], resamples, seed, strata)
    return _alone(scores, metric, measured[metric], confidence)


def stretched(scores: Scores, metric: str, resamples: int, confidence: float, seed: int) -> np.ndarray:
    """[resamples] of the metric, each side of the value stretched, so that their percentiles are the ends of `bootstrap`.

    For what is reckoned from resamples, where plain ones of few groups lie too close together.
    """
    import numpy as np

    (found,) = measure([scores], [metric], resamples, seed)
    measured = found[metric]
    end, tail = _alone(scores, metric, measured, confidence), (1 - confidence) / 2
    off = measured.resampled - measured.value
    low, high = np.nanquantile(off, [tail, 1 - tail]) if (off == off).any() else (0.0, 0.0)
    below = (end.low - measured.value) / low if low < 0 else 1.0
    above = (end.high - measured.value) / high if high > 0 else 1.0
    return measured.value + np.where(off < 0, below, above) * off


def _alone(scores: Scores, metric: str, measured: Measured, confidence: float) -> Interval:
    found = _interval(measured, confidence, scores.bounds(metric))
    if metric not in scores.shares:
        return found
    if measured.drawn is None:
        return _wider(found, binomial(round(found.value * measured.rows), measured.rows, confidence))
    rows = worth(measured, confidence)
    if min(found.value, 1 - found.value) * rows >= LEAST_SEEN:
        return found
    return _wider(found, binomial(found.value * rows, rows, confidence))


def worth(measured: Measured, confidence: float) -> float:
    """Of how many independent rows a share of rows in groups is known as well (Korn and Graubard 1998, equation 2.8).

    p (1 - p) over the squared standard error, times that of the t quantiles of rows and of groups; all rows at most. Of a
    share of 0 or 1, of which no spread is seen, the groups.
    """
    from scipy.stats import t

    assert measured.drawn is not None, "rows in groups"
    error, share, tail = jackknife_error(measured), measured.value, (1 - confidence) / 2
    if error == 0:
        return measured.draws
    reach = float(t.ppf(tail, measured.rows - 1) / t.ppf(tail, measured.drawn.freedom))
    return min(measured.rows, share * (1 - share) * (reach / error) ** 2)


def share_of(hits: np.ndarray, groups: np.ndarray | None, confidence: float) -> Interval:
    """The exact interval of a share of rows, of as many as rows in groups are worth (`worth`; Korn and Graubard 1998).

    hits: [rows] bool; groups: [rows] of whole numbers. Rows that are all of one group are worth one: nothing tells how far
    another group is off. Without resamples, for shares of which many are told. Raises ZeroDivisionError of no rows.
    """
    import numpy as np

    count, hit = len(hits), int(hits.sum())
    drawn = drawn_groups(groups)
    if drawn is None:
        alone = groups is None or len(np.unique(groups)) == count
        return binomial(hit, count, confidence) if alone else binomial(hit / count, 1, confidence)
    left, kept = hit - np.bincount(drawn.place, hits), count - np.bincount(drawn.place)
    measured = Measured(count, hit / count, np.empty(0), left / kept, np.zeros(drawn.groups, np.int64), drawn)
    rows = worth(measured, confidence)
    exact = binomial(measured.value * rows, rows, confidence)
    return Interval(measured.value, exact.low, exact.high)


def binomial(hits: float, rows: float, confidence: float) -> Interval:
    """The exact interval of a share of `rows` (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, rows - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Interval(hits / rows, low, high)


def paired_difference(
    a: Scores, b: Scores, metric: str, resamples: int, confidence: float, seed: int, strata: Sequence[int] | None = None
) -> Interval:
    """Interval of metric(a) - metric(b), both taken on the same resampled examples; of metric(b) - metric(a) where less
    is better, so that more is a gain.

    Paired, so that examples easy or hard for both cancel out. As `bootstrap`, and where the metric is a share of the
    examples it also holds whatever McNemar's exact test does: of those examples that only one of both gets right, the
    exact binomial interval of the share that is a's. So it never leaves out 0 where that test takes the difference for
    luck. Raises ValueError unless `a` and `b` score the same examples in the same order, and count the same of them for
    this metric.
    """
    check_paired(a, b, metric)
    own, other = measure([a, b], [metric], resamples, seed, strata)
    return _gain(a, b, metric, own[metric], other[metric], confidence)


def _gain(a: Scores, b: Scores, metric: str, own: Measured, other: Measured, confidence: float) -> Interval:
    less = own.less(other, -1.0 if metric in a.lower else 1.0)
    found = _interval(less, confidence, a.bounds(metric), paired=True)
    counts = discordant(a, b, metric) if metric in a.shares and metric not in a.lower else Discordant(0, 0)
    differing = sum(counts)
    if differing == 0:
        return found
    share = binomial(counts.gained, differing, confidence)
    edges = [(2 * edge - 1) * differing / less.rows for edge in (share.low, share.high)]
    return _wider(found, Interval(found.value, *edges))


def compare(
    scores: Scores,
    baselines: Mapping[str, Scores],
    resamples: int,
    confidence: float,
    seed: int,
    strata: Sequence[int] | None = None,
) -> Comparison:
    """Intervals of every metric of the model and of each baseline, the paired gains in the primary metric, and their tests.

    More of a gain is better, whatever the metric. `strata` as for `bootstrap`; the tests need none, since they swap what
    two models say of a row and leave the rows as they are. There are as many permutations as resamples.
    """
    for other in baselines.values():
        check_paired(scores, other, scores.primary)
    measured = measure([scores, *baselines.values()], scores.metrics, resamples, seed, strata)
    own, *others = (
        {name: _alone(of, name, found[name], confidence) for name in scores.metrics}
        for of, found in zip([scores, *baselines.values()], measured, strict=True)
    )
    gains = {
        name: _gain(scores, other, scores.primary, measured[0][scores.primary], found[scores.primary], confidence)
        for (name, other), found in zip(baselines.items(), measured[1:], strict=True)
    }
    return Comparison(
        own, dict(zip(baselines, others, strict=True)), gains, significances(scores, baselines, resamples, seed)
    )


def compare_all(
    models: Mapping[str, Scores],
    metrics: Sequence[str],
    resamples: int,
    confidence: float,
    seed: int,
    strata: Sequence[int] | None = None,
) -> Pairwise:
    """Intervals of each model, and of the difference of each two (the later less the earlier), paired.

    Of m pairs the intervals that hold together have confidence 1 - (1 - confidence) / m each (Bonferroni; Dunn 1961,
    "Multiple comparisons among means"), in each metric by itself. That asks nothing of how the pairs depend on each other,
    serves the bootstrap and McNemar's exact test alike, and is hardly wider than what is made for all pairs of equal models
    (Tukey's studentized range): by 2 % for 3 models, 3 % for 8. There are more resamples than asked for where the ends
    would rest on fewer than 25 of them. `strata` as for `bootstrap`.

    Raises ValueError unless all score the same examples in the same order, and count the same of them.
    """
    pairs = [(b, a) for a, b in combinations(models, 2)]
    level = 1 - (1 - confidence) / max(1, len(pairs))
    needed = max(resamples, math.ceil(2 * BEYOND / (1 - level)))
    for a, b in pairs:
        for metric in metrics:
            check_paired(models[a], models[b], metric)
    measured = dict(zip(models, measure(list(models.values()), metrics, needed, seed, strata), strict=True))

    def less(a: str, b: str, metric: str) -> Difference:
        sides = (models[a], models[b], metric, measured[a][metric], measured[b][metric])
        return Difference(_gain(*sides, confidence), _gain(*sides, level))

    return Pairwise(
        {
            name: {metric: _alone(of, metric, measured[name][metric], confidence) for metric in metrics}
            for name, of in models.items()
        },
        {(a, b): {metric: less(a, b, metric) for metric in metrics} for a, b in pairs},
        level,
        needed,
    )


def standard_error(scores: Scores, metric: str | None = None) -> float:
    """Standard error of a metric (the primary one by default) over examples.

    sqrt(p (1 - p) / n) for a share of the examples; the spread of 200 bootstrap resamples for any other, and for examples in
    groups, which are drawn whole.
    """
    import numpy as np

    name = scores.primary if metric is None else metric
    columns = scores.of(name)
    rows = len(columns["truth"])
    if rows == 0:
        raise ValueError("no examples to score")
    groups = drawn_groups(scores.groups_of(name))
    if name in scores.shares and groups is None:
        share = scores.value(name)
        return float(np.sqrt(share * (1 - share) / rows))
    weighed = weigh(scores.metrics[name], columns)
    alike = np.zeros(rows, np.int64)
    return spread(np.concatenate([weighed(some) for some in weights_of(rows, ERROR_RESAMPLES, 0, alike, groups)]))


def _interval(
    measured: Measured, confidence: float, bounds: tuple[float, float] | None, paired: bool = False
) -> Interval:
    """`bounds` of the metric; `paired`: the values are differences between two."""
    import numpy as np

    tail, value = (1 - confidence) / 2, measured.value
    known = measured.resampled[~np.isnan(measured.resampled)]
    known = known if len(known) else np.array([value])
    low, high = (float(edge) for edge in np.quantile(known, [tail, 1 - tail]))
    same = SAME * max(abs(value), float(np.abs(known).max()))
    least, most = (-math.inf, math.inf) if bounds is None else bounds
    span = most - least
    if paired:
        least, most = -span, span
    if max(value - low, high - value) <= same and bounds is not None:
        unseen = span * unseen_share(measured.draws, confidence)
        return Interval(value, max(least, value - unseen), min(most, value + unseen))
    reach, error = _reach(known, measured, tail)
    low, high = (float(edge) for edge in np.quantile(known, _levels(known, measured, reach, same)))
    return Interval(value, max(least, min(low, value - error)), min(most, max(high, value + error)))


def unseen_share(draws: int, confidence: float) -> float:
    """The largest share of all rows of which none among so many draws is likely enough: about 3.7 / draws of 95 %.

    1 - ((1 - confidence) / 2)^(1 / draws), the exact binomial bound (Clopper and Pearson 1934); the "rule of three"
    (Hanley and Lippman-Hand 1983) where one side alone is asked for.
    """
    return 1 - ((1 - confidence) / 2) ** (1 / draws)


def _reach(known: np.ndarray, measured: Measured, tail: float) -> tuple[float, float]:
    """How many standard deviations the interval reaches, and how far at least: of rows the normal's, and not at all."""
    from scipy.special import ndtri
    from scipy.stats import t

    if measured.drawn is None:
        return float(-ndtri(tail)), 0.0
    reach, error, drawn = -float(t.ppf(tail, measured.drawn.freedom)), jackknife_error(measured), spread(known)
    narrow = math.sqrt(measured.draws / (measured.draws - 1))
    return reach * (max(error / drawn, narrow) if drawn > 0 else narrow), reach * error


def _levels(known: np.ndarray, measured: Measured, reach: float, same: float) -> tuple[float, float]:
    """The quantiles of the resamples at which BCa's interval ends (Efron and Tibshirani 1993, equations 14.10, 14.14, 14.15).

    The bias correction is from the share of resamples below the value (of equal ones half), the acceleration from the
    jackknife, within strata (Davison and Hinkley 1997, section 5.3.2): leaving out a row also moves a stratum's share, which
    is no part of the spread. The plain percentiles where either is undefined. `reach`: of the normal, 1.96 of 95 %.
    """
    import numpy as np
    from scipy.special import ndtr, ndtri

    plain = float(ndtr(-reach)), float(ndtr(reach))
    off = known - measured.value
    below = float((off < -same).mean() + (np.abs(off) <= same).mean() / 2)
    if not 0 < below < 1:
        return plain
    bias, speed = float(ndtri(below)), _acceleration(measured)
    levels = []
    for edge in (-reach, reach):
        slowed = 1 - speed * (bias + edge)
        if not slowed > 0:
            return plain
        levels.append(float(ndtr(bias + (bias + edge) / slowed)))
    return levels[0], levels[1]


def _acceleration(measured: Measured) -> float:
    """Sum of d^3 / (6 (sum of d^2)^1.5), d being how far each value of the jackknife is below its stratum's mean."""
    import numpy as np

    there = ~np.isnan(measured.left_out)
    values, strata = measured.left_out[there], measured.group_strata[there]
    if len(values) == 0:
        return 0.0
    sums, counts = np.bincount(strata, weights=values), np.bincount(strata)
    off = (sums / np.maximum(counts, 1))[strata] - values
    size = np.abs(off).max()
    if size == 0:
        return 0.0
    off = off / size  # squares of tiny differences would vanish
    return float((off**3).sum() / (6 * (off**2).sum() ** 1.5))


def _wider(found: Interval, exact: Interval) -> Interval:
    return Interval(found.value, min(found.low, exact.low), max(found.high, exact.high))
