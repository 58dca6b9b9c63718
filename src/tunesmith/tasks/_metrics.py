"""Metrics: numpy on columns of truth and prediction, equal to scikit-learn's and SciPy's.

What they are made of is stated once, as sums over the examples or with a weight for each (`_weighted.py`): the value of
all examples and those of thousands of resamples come from the same formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from tunesmith.tasks._weighted import Columns, OfSums, Weighed, Weighted, mean, ratio, stacked

if TYPE_CHECKING:
    import numpy as np
    from scipy.sparse import csr_array


class ClassCounts(NamedTuple):
    """For each class: how often it was the truth, how often it was said, how often both."""

    truth: np.ndarray  # [classes]
    predicted: np.ndarray  # [classes]
    hits: np.ndarray  # [classes]


def class_counts(columns: Mapping[str, np.ndarray], classes: int) -> ClassCounts:
    """Counts of `columns["truth"]` and `columns["predicted"]`, both [examples] of indices below `classes`."""
    import numpy as np

    truth, predicted = columns["truth"], columns["predicted"]
    return ClassCounts(
        np.bincount(truth, minlength=classes),
        np.bincount(predicted, minlength=classes),
        np.bincount(truth[truth == predicted], minlength=classes),
    )


def _entities(top: str, *below: str) -> OfSums:
    """`top` for the mean of those `below`, in sums over the rows; 0 where there is nothing below.

    "truth", "predicted" and "hits" of the columns hold counts, [rows, types] or [rows].
    """

    def statistics(columns: Columns) -> np.ndarray:
        import numpy as np

        hits, *times = (columns[name].sum(axis=tuple(range(1, columns[name].ndim))) for name in (top, *below))
        return stacked(len(below) * hits, np.sum(times, axis=0))

    return OfSums(statistics, lambda sums: ratio(sums[0], sums[1], 0.0))


# Micro F1 of entities: 2 hits / (entities true + entities predicted); 0 where there are none. As seqeval's f1_score.
entity_f1 = _entities("hits", "truth", "predicted")
entity_precision = _entities("hits", "predicted")  # share of the predicted entities that are true ones
entity_recall = _entities("hits", "truth")  # share of the true entities that are predicted

# Share of the examples whose predicted class is the true one; nan when there are none.
accuracy = mean(lambda columns: columns["truth"] == columns["predicted"])


def macro_f1(classes: int) -> OfSums:
    """Mean over classes of 2 hits / (times true + times predicted); nan when there are no examples.

    A class that is neither true nor predicted in these examples is left out of the mean, as
    `sklearn.metrics.f1_score(average="macro")` does. Columns "truth" and "predicted": [examples] of indices below `classes`.
    """

    def statistics(columns: Columns) -> csr_array:
        """[examples, 2 * classes]: 1 for a hit of a class; 1 for each time that it is true or said."""
        import numpy as np
        from scipy.sparse import csr_array

        truth, predicted = columns["truth"], columns["predicted"]
        rows, hits = np.arange(len(truth)), np.flatnonzero(truth == predicted)
        places = np.concatenate([truth[hits], classes + truth, classes + predicted])
        cells = (np.concatenate([hits, rows, rows]), places)
        return csr_array((np.ones(len(places)), cells), shape=(len(truth), 2 * classes))

    return OfSums(statistics, lambda sums: _mean_f1(sums[:classes], sums[classes:], float("nan")))


def _mean_f1(hits: np.ndarray, both: np.ndarray, otherwise: float) -> np.ndarray:
    """[classes, samples] both -> [samples], the mean of F1 over the classes that a sample has; `otherwise` without any."""
    return ratio(ratio(2 * hits, both, 0.0).sum(axis=0), (both > 0).sum(axis=0), otherwise)


def label_f1(average: str) -> OfSums:
    """F1 of labels said, from `columns["truth"]` and `columns["predicted"]`, both [examples, labels] of bool.

    "micro" counts over all labels; "macro" is the mean over the labels that these examples hold or were given. nan when
    there are no examples; 0 where no label is true or said.
    """
    import numpy as np

    def statistics(columns: Columns) -> csr_array:
        """[examples, 1 + 2 * labels]: 1, hits and times true or said; of "micro" the sums over the labels."""
        from scipy.sparse import csr_array

        truth, predicted = columns["truth"], columns["predicted"]
        hits, both = truth & predicted, truth.astype(np.float64) + predicted
        if average == "micro":
            hits, both = hits.sum(axis=1, keepdims=True), both.sum(axis=1, keepdims=True)
        return csr_array(np.hstack([np.ones((len(truth), 1)), hits, both]))

    def value(sums: np.ndarray) -> np.ndarray:
        rows, (hits, both) = sums[0], np.split(sums[1:], 2)
        return np.where(rows > 0, _mean_f1(hits, both, 0.0), np.nan)

    return OfSums(statistics, value)


def ranks(probability: np.ndarray) -> np.ndarray:
    """[examples, labels]: of each label, the place of an example's probability among all examples', highest first.

    Equal probabilities have equal ranks. With them `average_precision` of a resample needs no sorting.
    """
    import numpy as np

    found = np.empty(probability.shape, dtype=np.int64)
    for label in range(probability.shape[1]):
        found[:, label] = np.unique(-probability[:, label], return_inverse=True)[1]
    return found


class AveragePrecision(Weighted):
    """Mean over labels of the average precision, as `sklearn.metrics.average_precision_score` has it.

    Sum over thresholds of (recall gained) times precision, from `columns["truth"]` and `columns["rank"]`, [examples,
    labels]. Labels that no example has are left out; nan where none has any.
    """

    def weighing(self, columns: Columns) -> Weighed:
        import numpy as np

        truth, rank = columns["truth"].astype(bool), columns["rank"]
        parts = [_ranked(truth[:, label], rank[:, label]) for label in range(truth.shape[1]) if truth[:, label].any()]

        def weighed(weights: np.ndarray) -> np.ndarray:
            total, labels = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
            for within, true, of_true in parts:
                said = (within @ weights).cumsum(axis=0)  # [steps, samples]
                hits = np.add.reduceat(weights[true], of_true, axis=0)
                reached = hits.cumsum(axis=0)
                precision = ratio(reached, said, 0.0)
                total += ratio((precision * hits).sum(axis=0), reached[-1], 0.0)
                labels += reached[-1] > 0
            return ratio(total, labels, float("nan"))

        return weighed

    def common(self, columns: Columns) -> Columns:
        return columns  # ranks among the probabilities of one model already


def _ranked(truth: np.ndarray, rank: np.ndarray) -> tuple[csr_array, np.ndarray, np.ndarray]:
    """Of one label: [steps, examples] 1 for those within a step, the true ones by rank, where in these a step begins.

    A step ends with each rank at which an example is true: recall grows there alone. Both [examples] of one label; at
    least one is true.
    """
    import numpy as np
    from scipy.sparse import csr_array

    order = np.argsort(rank, kind="stable")
    true = order[truth[order]]
    steps, of_true = np.unique(rank[true], return_index=True)
    ends = np.searchsorted(rank[order], steps, side="right")
    # Of the rows of a sparse matrix: sums by it take a third of `reduceat`'s time.
    borders = np.concatenate([[0], ends])
    within = csr_array((np.ones(ends[-1]), order[: ends[-1]], borders), shape=(len(steps), len(truth)))
    return within, true, of_true


average_precision = AveragePrecision()


def best_threshold(probability: np.ndarray, truth: np.ndarray, otherwise: float) -> float:
    """The threshold of highest F1: halfway to the next lower probability; `otherwise` where no example is true.

    `probability` [examples], `truth` [examples] of bool. A label is said where its probability is at least this.
    """
    import numpy as np

    if not truth.any():
        return otherwise
    order = np.argsort(-probability, kind="stable")
    sorted_shares, hits = probability[order], truth[order].cumsum()
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + truth.sum())
    ends = np.append(sorted_shares[1:] < sorted_shares[:-1], True)  # equal probabilities are said together
    best = int(np.where(ends, f1, -1.0).argmax())
    lowest = sorted_shares[best]
    below = sorted_shares[best + 1] if best + 1 < len(order) else 0.0
    halfway = (lowest + below) / 2
    return float(halfway if halfway > below else lowest)  # between neighbouring floats there is no other


def best_threshold_by(scores: np.ndarray, said: np.ndarray, none: np.ndarray) -> float:
    """The threshold of highest worth, where what is said from it on is worth `said`, and the rest `none`; all [examples].

    Halfway between two scores; 0 where all is to be said, above the highest score where nothing is.
    """
    import numpy as np

    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    worth = np.concatenate([[0.0], (said - none)[order].cumsum()])
    ends = np.concatenate([[True], ranked[1:] < ranked[:-1], [True]])  # equal scores are said together
    count = int(np.where(ends, worth, -np.inf).argmax())
    if count == len(ranked):
        return 0.0
    above, below = ranked[count - 1] if count else 1.0, ranked[count]
    halfway = (above + below) / 2
    if halfway > below:
        return float(halfway)
    return float(above if count else np.nextafter(1.0, 2.0))


def mean_of(name: str) -> OfSums:
    """Mean of column `name`, [examples]; 0 where there are none."""
    return mean(lambda columns: columns[name], otherwise=0.0)


SAME = 1e-12  # share of the squares below which what is left of them about the mean is rounding


def _moments(columns: Columns) -> np.ndarray:
    """[examples, 1 + 5 * numbers] of 1, and of each number both sides, their squares, and their product."""
    import numpy as np

    truth, predicted = columns["truth"], columns["predicted"]
    if len(truth) == 0:
        return np.zeros((0, 1 + 5 * truth.shape[1]))
    a, b = _centred(truth), _centred(predicted)
    return np.hstack([np.ones((len(a), 1)), a, b, a * a, b * b, a * b])


def _of_moments(sums: np.ndarray) -> np.ndarray:
    import numpy as np

    rows = sums[0]
    count = np.maximum(rows, np.finfo(np.float64).tiny)
    a, b, aa, bb, ab = np.split(sums[1:], 5)  # [numbers, samples]
    spread_a, spread_b = aa - a * a / count, bb - b * b / count
    spread = (spread_a > SAME * aa) & (spread_b > SAME * bb)
    length = np.sqrt(np.where(spread, spread_a, 1.0)) * np.sqrt(np.where(spread, spread_b, 1.0))
    r = np.where(spread, (ab - a * b / count) / length, 0.0)
    return np.where(rows > 0, np.clip(r, -1.0, 1.0).mean(axis=0), np.nan)


def _centred(values: np.ndarray) -> np.ndarray:
    """[examples, numbers] less their mean, each number in a unit of its own; 0 where it is constant.

    The unit is a power of two, so that no digit changes, and squares neither vanish nor overflow. Constant is what spreads
    by less than 1e-13 of its size, which are rounding errors (as in `scipy.stats.pearsonr`).
    """
    import numpy as np

    _, power = np.frexp(np.abs(values).max(axis=0))
    scaled = np.ldexp(values, -power)
    off = scaled - scaled.mean(axis=0)
    off = np.where(np.ptp(scaled, axis=0) > 1e-13, off, 0.0)
    _, power = np.frexp(np.abs(off).max(axis=0))
    return np.ldexp(off, -power)


def _standard(columns: Columns) -> Columns:
    """Both sides in their own standard deviations from their own means, of which r knows nothing."""
    import numpy as np

    off = {side: _centred(columns[side]) for side in ("truth", "predicted")}
    return {side: values / np.maximum(values.std(axis=0), np.finfo(np.float64).tiny) for side, values in off.items()}


# Pearson's r of `columns["truth"]` and `columns["predicted"]`, [examples, numbers], the mean over numbers. 0 where one
# side is constant, as it then tells nothing; nan when there are no examples.
correlation = OfSums(_moments, _of_moments, _standard)


class RankCorrelation(Weighted):
    """Spearman's rho: Pearson's r of the ranks, equal values sharing the mean of their ranks; the mean over numbers.

    `columns["truth"]` and `columns["predicted"]`: [examples, numbers]. 0 where one side is constant; nan when there are no
    examples.
    """

    def weighing(self, columns: Columns) -> Weighed:
        import numpy as np

        numbers = columns["truth"].shape[1]
        sides = [[_Ranked(columns[side][:, at]) for side in ("truth", "predicted")] for at in range(numbers)]

        def weighed(weights: np.ndarray) -> np.ndarray:
            total = np.zeros(weights.shape[1])
            for truth, predicted in sides:
                a, b = truth.ranks(weights), predicted.ranks(weights)
                weighed_a = weights * a
                length = np.sqrt((weighed_a * a).sum(axis=0) * (weights * b * b).sum(axis=0))
                total += ratio((weighed_a * b).sum(axis=0), length, 0.0)
            return np.where(weights.sum(axis=0) > 0, total / numbers, np.nan)

        return weighed

    def common(self, columns: Columns) -> Columns:
        """Both sides as ranks among their own, of whose unit rho knows nothing."""
        import numpy as np

        whole = np.ones((len(columns["truth"]), 1))
        return {
            side: np.hstack([_Ranked(number).ranks(whole) for number in columns[side].T])
            for side in ("truth", "predicted")
        }


class _Ranked:
    """Values [examples] whose ranks can be taken of any weighted sample without sorting again."""

    def __init__(self, values: np.ndarray) -> None:
        import numpy as np

        self._order = np.argsort(values, kind="stable")
        _, self._starts, self._group = np.unique(values[self._order], return_index=True, return_inverse=True)
        self._back = np.argsort(self._order, kind="stable")

    def ranks(self, weights: np.ndarray) -> np.ndarray:
        """Both [examples, samples]: the mean rank of each value in each sample, less the mean over the sample."""
        import numpy as np

        if len(self._order) == 0:
            return weights
        equal = np.add.reduceat(weights[self._order], self._starts, axis=0)  # [values, samples]
        upto = equal.cumsum(axis=0)
        middle = upto - equal / 2 - upto[-1] / 2
        return middle[self._group[self._back]]


rank_correlation = RankCorrelation()


def root_mean_square_error(unit: np.ndarray) -> OfSums:
    """Root of the mean squared error, each number counted in its `unit`; nan when there are no examples."""
    import numpy as np

    def statistics(columns: Columns) -> np.ndarray:
        error = (columns["predicted"] - columns["truth"]) / unit  # [examples, numbers]
        return stacked((error * error).sum(axis=1), np.full(len(error), error.shape[1]))

    return OfSums(statistics, lambda sums: np.sqrt(ratio(sums[0], sums[1], float("nan"))))
