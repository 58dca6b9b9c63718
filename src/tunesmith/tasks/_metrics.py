"""Metrics: numpy on columns of truth and prediction, equal to scikit-learn's and SciPy's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np


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


def entity_f1(columns: Mapping[str, np.ndarray]) -> float:
    """Micro F1 of entities: 2 hits / (entities true + entities predicted); 0 where there are none. As seqeval's f1_score.

    "truth", "predicted" and "hits" of `columns` hold counts, [rows, types].
    """
    return _ratio(2 * columns["hits"].sum(), columns["truth"].sum() + columns["predicted"].sum())


def entity_precision(columns: Mapping[str, np.ndarray]) -> float:
    """Share of the predicted entities that are true ones; 0 where none is predicted."""
    return _ratio(columns["hits"].sum(), columns["predicted"].sum())


def entity_recall(columns: Mapping[str, np.ndarray]) -> float:
    """Share of the true entities that are predicted; 0 where there are none."""
    return _ratio(columns["hits"].sum(), columns["truth"].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def accuracy(columns: Mapping[str, np.ndarray]) -> float:
    """Share of the examples whose predicted class is the true one; nan when there are none."""
    hits = columns["truth"] == columns["predicted"]
    return float(hits.mean()) if len(hits) else float("nan")


def macro_f1(columns: Mapping[str, np.ndarray], classes: int) -> float:
    """Mean over classes of 2 hits / (times true + times predicted); nan when there are no examples.

    A class that is neither true nor predicted in these examples is left out of the mean, as
    `sklearn.metrics.f1_score(average="macro")` does.
    """
    import numpy as np

    counts = class_counts(columns, classes)
    both = counts.truth + counts.predicted
    present = both > 0
    return float(np.mean(2 * counts.hits[present] / both[present])) if present.any() else float("nan")


def label_f1(columns: Mapping[str, np.ndarray], average: str) -> float:
    """F1 of labels said, from `columns["truth"]` and `columns["predicted"]`, both [examples, labels] of bool.

    "micro" counts over all labels; "macro" is the mean over the labels that these examples hold or were given. nan when
    there are no examples; 0 where no label is true or said.
    """
    truth, predicted = columns["truth"], columns["predicted"]
    if len(truth) == 0:
        return float("nan")
    hits, both = (truth & predicted).sum(axis=0), truth.sum(axis=0) + predicted.sum(axis=0)
    if average == "micro":
        return float(2 * hits.sum() / both.sum()) if both.sum() else 0.0
    present = both > 0
    return float((2 * hits[present] / both[present]).mean()) if present.any() else 0.0


def ranks(probability: np.ndarray) -> np.ndarray:
    """[examples, labels]: of each label, the place of an example's probability among all examples', highest first.

    Equal probabilities have equal ranks. With them `average_precision` of a resample needs no sorting.
    """
    import numpy as np

    found = np.empty(probability.shape, dtype=np.int64)
    for label in range(probability.shape[1]):
        found[:, label] = np.unique(-probability[:, label], return_inverse=True)[1]
    return found


def average_precision(columns: Mapping[str, np.ndarray]) -> float:
    """Mean over labels of the average precision, as `sklearn.metrics.average_precision_score` has it.

    Sum over thresholds of (recall gained) times precision, from `columns["truth"]` and `columns["rank"]`. Labels that
    no example has are left out; nan where none has any.
    """
    import numpy as np

    truth, rank = columns["truth"], columns["rank"]
    labels = truth.shape[1]
    if len(truth) == 0 or not truth.any():
        return float("nan")
    size = int(rank.max()) + 1
    cells = (rank + size * np.arange(labels)).ravel()
    said = np.bincount(cells, minlength=size * labels).reshape(labels, size)
    hits = np.bincount(cells, weights=truth.ravel(), minlength=size * labels).reshape(labels, size)
    reached = hits.cumsum(axis=1)
    precision = reached / np.maximum(said.cumsum(axis=1), 1)
    total = reached[:, -1]
    present = total > 0
    return float(((precision * hits).sum(axis=1)[present] / total[present]).mean())


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


def mean_of(columns: Mapping[str, np.ndarray], name: str) -> float:
    """Mean of column `name`, [examples]; 0 where there are none."""
    values = columns[name]
    return float(values.mean()) if len(values) else 0.0


def correlation(columns: Mapping[str, np.ndarray]) -> float:
    """Pearson's r of `columns["truth"]` and `columns["predicted"]`, [examples, numbers], the mean over numbers.

    0 where one side is constant, as it then tells nothing; nan when there are no examples.
    """
    import numpy as np

    truth, predicted = columns["truth"], columns["predicted"]
    if len(truth) == 0:
        return float("nan")
    a, b = _centred(truth), _centred(predicted)
    length = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    spread = (np.abs(a).max(axis=0) > 0) & (np.abs(b).max(axis=0) > 0)
    return float(np.where(spread, (a * b).sum(axis=0) / np.where(spread, length, 1.0), 0.0).mean())


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


def rank_correlation(columns: Mapping[str, np.ndarray]) -> float:
    """Spearman's rho: Pearson's r of the ranks, equal values sharing the mean of their ranks."""
    ranked = {side: _mean_ranks(columns[side]) for side in ("truth", "predicted")}
    return correlation(ranked)


def _mean_ranks(values: np.ndarray) -> np.ndarray:
    import numpy as np

    found = np.empty(values.shape, dtype=np.float64)
    for place in range(values.shape[1]):
        _, inverse, counts = np.unique(values[:, place], return_inverse=True, return_counts=True)
        ends = counts.cumsum()
        found[:, place] = (ends - (counts - 1) / 2)[inverse]
    return found


def root_mean_square_error(columns: Mapping[str, np.ndarray], unit: np.ndarray) -> float:
    """Root of the mean squared error, each number counted in its `unit`; nan when there are no examples."""
    import numpy as np

    error = (columns["predicted"] - columns["truth"]) / unit
    return float(np.sqrt((error * error).mean())) if len(error) else float("nan")
