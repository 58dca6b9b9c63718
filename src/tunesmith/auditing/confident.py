"""Confident learning: which labels a classifier that never saw them has good reason to doubt.

Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (JAIR 70, 2021).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def thresholds(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[classes]: of each class the mean probability that rows labelled with it have of being it (section 3.1, equation 2).

    probabilities: [rows, classes]; truth: [rows] of int. A class without rows gets 2, which no probability reaches.
    """
    import numpy as np

    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(truth)), truth]
    counts = np.bincount(truth, minlength=classes)
    sums = np.bincount(truth, weights=own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), 2.0)


def confident_classes(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[rows] of int: the class that a row is confidently of, -1 where there is none.

    Of the classes whose threshold its probability reaches, the one with the highest probability (section 3.1, equation 1).
    """
    import numpy as np

    # A millionth less: the mean of equal numbers may round above each of them.
    reached = probabilities >= thresholds(probabilities, truth) - 1e-6
    best = np.where(reached, probabilities, -1.0).argmax(axis=1)
    return np.where(reached.any(axis=1), best, -1)


def off_diagonal(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """[rows] of bool: rows that are confidently of another class than their label (section 3.2, method 2)."""
    found = confident_classes(probabilities, truth)
    return (found >= 0) & (found != truth)
