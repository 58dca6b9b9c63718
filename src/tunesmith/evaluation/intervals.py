"""How far a metric can be trusted: bootstrap intervals over examples, alone and paired."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.seeds import seed_of
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

ERROR_RESAMPLES = 200  # enough for a standard error (Efron and Tibshirani 1993, section 6.4)


@dataclass(frozen=True)
class Interval:
    """A value measured on some examples, and where it may lie over all examples of their kind."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A model's test scores beside those of its baselines, all on the same examples."""

    metrics: dict[str, Interval]
    baselines: dict[str, dict[str, Interval]]  # baseline -> metric -> interval
    gains: dict[str, Interval]  # baseline -> the model less it, in the primary metric, paired

    def of_baselines(self, metric: str) -> dict[str, Interval]:
        return {name: metrics[metric] for name, metrics in self.baselines.items()}


def bootstrap(scores: Scores, metric: str, resamples: int, confidence: float, seed: int) -> Interval:
    """Percentile bootstrap over the examples that the metric counts (Efron 1979).

    Corrections keep it honest where resampling is blind. A share of the examples (accuracy) gets the wider of the
    bootstrap's interval and the exact binomial one: near 0 and 1 the bootstrap is too sure. The interval always holds the
    measured value, which rare classes can otherwise push out of it. And where hardly a resample differs (no mistake seen,
    say), each side is as wide as the share of examples that could have gone unseen: 1 - ((1 - confidence) / 2) ** (1 / n),
    which for a share of 0 or 1 is the exact binomial bound (Clopper and Pearson 1934); not of a metric that is no mean of
    values from 0 to 1 (`Scores.free`), for which a share means nothing. Resamples of which the metric is
    undefined (nan) tell nothing, and are left out.

    Raises ValueError when there are no examples.
    """
    function = scores.metrics[metric]
    columns = scores.of(metric)
    rows = _rows(columns)
    drawn = [function(_take(columns, indices)) for indices in _resamples(rows, resamples, seed)]
    found = _interval(function(columns), drawn, rows, confidence, None if scores.free(metric) else (0.0, 1.0))
    if metric not in scores.shares:
        return found
    exact = binomial(round(found.value * rows), rows, confidence)
    return Interval(found.value, min(found.low, exact.low), max(found.high, exact.high))


def binomial(hits: int, rows: int, confidence: float) -> Interval:
    """The exact interval of a share of `rows` (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, hits, rows - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, rows - hits)) if hits < rows else 1.0
    return Interval(hits / rows, low, high)


def paired_difference(a: Scores, b: Scores, metric: str, resamples: int, confidence: float, seed: int) -> Interval:
    """Interval of metric(a) - metric(b), both taken on the same resampled examples; of metric(b) - metric(a) where less
    is better, so that more is a gain.

    Paired, so that examples easy or hard for both cancel out. Raises ValueError unless `a` and `b` score the same
    examples in the same order, and count the same of them for this metric.
    """
    import numpy as np

    columns, others = a.of(metric), b.of(metric)
    rows, same = _rows(columns), np.array_equal(a.columns["truth"], b.columns["truth"])
    if not same or not np.array_equal(a.rows_of.get(metric, True), b.rows_of.get(metric, True)):
        raise ValueError("a paired difference needs two scores of the same examples in the same order")
    first, second = a.metrics[metric], b.metrics[metric]
    sign = -1.0 if metric in a.lower else 1.0
    bounds = None if a.free(metric) else (-1.0, 1.0)
    drawn = [
        sign * (first(_take(columns, indices)) - second(_take(others, indices)))
        for indices in _resamples(rows, resamples, seed)
    ]
    return _interval(sign * (first(columns) - second(others)), drawn, rows, confidence, bounds)


def compare(
    scores: Scores, baselines: Mapping[str, Scores], resamples: int, confidence: float, seed: int
) -> Comparison:
    """Intervals of every metric of the model and of each baseline, and the paired gains in the primary metric.

    More of a gain is better, whatever the metric.
    """
    return Comparison(
        {name: bootstrap(scores, name, resamples, confidence, seed) for name in scores.metrics},
        {
            baseline: {name: bootstrap(other, name, resamples, confidence, seed) for name in scores.metrics}
            for baseline, other in baselines.items()
        },
        {
            baseline: paired_difference(scores, other, scores.primary, resamples, confidence, seed)
            for baseline, other in baselines.items()
        },
    )


def standard_error(scores: Scores, metric: str | None = None) -> float:
    """Standard error of a metric (the primary one by default) over examples.

    sqrt(p (1 - p) / n) for a share of the examples; the spread of 200 bootstrap resamples for any other.
    """
    import numpy as np

    name = scores.primary if metric is None else metric
    function, columns = scores.metrics[name], scores.of(name)
    rows = _rows(columns)
    if name in scores.shares:
        share = function(columns)
        return float(np.sqrt(share * (1 - share) / rows))
    drawn = [function(_take(columns, indices)) for indices in _resamples(rows, ERROR_RESAMPLES, 0)]
    known = _defined(drawn)
    return float(np.std(known, ddof=1)) if len(known) > 1 else 0.0


def _interval(
    value: float, drawn: list[float], rows: int, confidence: float, bounds: tuple[float, float] | None
) -> Interval:
    import numpy as np

    tail = (1 - confidence) / 2
    known = _defined(drawn)
    low, high = (float(edge) for edge in np.quantile(known if known else [value], [tail, 1 - tail]))
    if low == high == value and bounds is not None:
        least, most = bounds
        unseen = 1 - tail ** (1 / rows)
        return Interval(value, max(least, value - unseen), min(most, value + unseen))
    return Interval(value, min(low, value), max(high, value))


def _defined(drawn: list[float]) -> list[float]:
    return [value for value in drawn if value == value]


def _rows(columns: Mapping[str, np.ndarray]) -> int:
    rows = len(columns["truth"])
    if rows == 0:
        raise ValueError("no examples to score")
    return rows


def _resamples(rows: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The same draws for every metric and model of as many rows, so that all comparisons are paired."""
    import numpy as np

    draw = np.random.default_rng(seed_of(seed, "bootstrap"))
    for _ in range(resamples):
        yield draw.integers(rows, size=rows)


def _take(columns: Mapping[str, np.ndarray], indices: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[indices] for name, values in columns.items()}
