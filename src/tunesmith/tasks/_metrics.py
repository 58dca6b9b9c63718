"""Metrics of classification: numpy on columns of class indices, equal to scikit-learn's."""

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
