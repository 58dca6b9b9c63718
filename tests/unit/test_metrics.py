"""Accuracy and macro-F1 against scikit-learn's own."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from tunesmith.tasks._metrics import accuracy, class_counts, macro_f1

CLASSES = 5
PAIRS = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)


def columns(pairs: list[tuple[int, int]]) -> dict[str, np.ndarray]:
    truth, predicted = zip(*pairs, strict=True)
    return {"truth": np.array(truth), "predicted": np.array(predicted)}


@settings(max_examples=60, deadline=None)
@given(PAIRS)
def test_metrics_equal_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    given_columns = columns(pairs)
    truth, predicted = given_columns["truth"], given_columns["predicted"]
    assert accuracy(given_columns) == pytest.approx(oracle.accuracy_score(truth, predicted))
    expected = oracle.f1_score(truth, predicted, average="macro", zero_division=0)
    assert macro_f1(given_columns, CLASSES) == pytest.approx(expected)


def test_a_class_that_never_occurs_is_not_averaged_and_one_that_is_only_said_is() -> None:
    assert macro_f1(columns([(0, 0), (1, 1)]), classes=9) == 1.0
    assert macro_f1(columns([(0, 0), (1, 2)]), classes=9) == pytest.approx(1 / 3)


def test_class_counts() -> None:
    counts = class_counts(columns([(0, 0), (0, 1), (2, 2), (2, 2)]), classes=4)
    assert counts.truth.tolist() == [2, 0, 2, 0]
    assert counts.predicted.tolist() == [1, 1, 2, 0]
    assert counts.hits.tolist() == [1, 0, 2, 0]


def test_no_examples_is_not_a_score() -> None:
    empty = {"truth": np.array([], dtype=int), "predicted": np.array([], dtype=int)}
    assert math.isnan(accuracy(empty))
    assert math.isnan(macro_f1(empty, 3))
