"""Metrics against scikit-learn's and SciPy's own, on data with ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from tunesmith.tasks._metrics import (
    accuracy,
    average_precision,
    best_threshold,
    class_counts,
    correlation,
    label_f1,
    macro_f1,
    rank_correlation,
    ranks,
    root_mean_square_error,
)

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
    assert macro_f1(CLASSES)(given_columns) == pytest.approx(expected)


def test_a_class_that_never_occurs_is_not_averaged_and_one_that_is_only_said_is() -> None:
    assert macro_f1(9)(columns([(0, 0), (1, 1)])) == 1.0
    assert macro_f1(9)(columns([(0, 0), (1, 2)])) == pytest.approx(1 / 3)


def test_class_counts() -> None:
    counts = class_counts(columns([(0, 0), (0, 1), (2, 2), (2, 2)]), classes=4)
    assert counts.truth.tolist() == [2, 0, 2, 0]
    assert counts.predicted.tolist() == [1, 1, 2, 0]
    assert counts.hits.tolist() == [1, 0, 2, 0]


def test_no_examples_is_not_a_score() -> None:
    empty = {"truth": np.array([], dtype=int), "predicted": np.array([], dtype=int)}
    assert math.isnan(accuracy(empty))
    assert math.isnan(macro_f1(3)(empty))


LABELS = 4
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.25 + 1e-12, 0.5, 0.9, 1.0])  # few values: ties are what goes wrong
MARKS = st.lists(
    st.tuples(*[st.tuples(st.booleans(), SHARES)] * LABELS), min_size=1, max_size=30
)  # rows of (true, probability) of each label


def marked(rows: list[tuple[tuple[bool, float], ...]]) -> dict[str, np.ndarray]:
    truth = np.array([[true for true, _ in row] for row in rows])
    shares = np.array([[share for _, share in row] for row in rows])
    return {"truth": truth, "predicted": shares >= 0.3, "probability": shares, "rank": ranks(shares)}


@settings(max_examples=80, deadline=None)
@given(MARKS)
def test_label_f1_equals_scikit_learn_on_the_labels_that_are_there(rows: list[tuple[tuple[bool, float], ...]]) -> None:
    of = marked(rows)
    micro = oracle.f1_score(of["truth"], of["predicted"], average="micro", zero_division=0)
    assert label_f1("micro")(of) == pytest.approx(micro)
    present = [place for place in range(LABELS) if of["truth"][:, place].any() or of["predicted"][:, place].any()]
    expected = oracle.f1_score(of["truth"], of["predicted"], average=None, zero_division=0)
    assert label_f1("macro")(of) == pytest.approx(np.mean(expected[present]) if present else 0.0)


@settings(max_examples=80, deadline=None)
@given(MARKS)
def test_average_precision_equals_scikit_learn_on_labels_there_are_also_of_a_resample(
    rows: list[tuple[tuple[bool, float], ...]],
) -> None:
    of = marked(rows)
    draw = np.random.default_rng(len(rows)).integers(len(rows), size=len(rows))
    for taken in (np.arange(len(rows)), draw):  # ranks are made once, and hold for every resample
        part = {name: values[taken] for name, values in of.items()}
        present = [place for place in range(LABELS) if part["truth"][:, place].any()]
        expected = [oracle.average_precision_score(part["truth"][:, k], part["probability"][:, k]) for k in present]
        found = average_precision(part)
        assert found == pytest.approx(np.mean(expected)) if present else math.isnan(found)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), SHARES | st.floats(0, 1)), min_size=1, max_size=30))
def test_best_threshold_reaches_the_highest_f1_that_any_threshold_does(rows: list[tuple[bool, float]]) -> None:
    truth, shares = (np.array(side) for side in zip(*rows, strict=True))
    found = best_threshold(shares, truth, otherwise=0.7)
    if not truth.any():
        assert found == 0.7
        return
    every = [oracle.f1_score(truth, shares >= edge, zero_division=0) for edge in shares]
    assert oracle.f1_score(truth, shares >= found, zero_division=0) == pytest.approx(max(every))


def test_a_threshold_between_neighbouring_floats_leaves_the_lower_one_out() -> None:
    above = np.nextafter(0.5, 1)
    for high, low in ((above, 0.5), (np.nextafter(above, 1), above), (5e-324, 0.0)):
        shares, truth = np.array([high, low, low]), np.array([True, False, False])
        assert (shares >= best_threshold(shares, truth, 0.5)).tolist() == [True, False, False]


VALUES = st.sampled_from([-3.0, 0.0, 0.5, 1.0, 1e3]) | st.floats(-100, 100).map(lambda value: round(value, 3))
NUMBERS = st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=2, max_size=40)


@settings(max_examples=80, deadline=None)
@given(NUMBERS)
def test_correlations_and_error_equal_scipys_and_scikit_learns(rows: list[tuple[float, ...]]) -> None:
    values = np.array(rows)
    of = {"truth": values[:, :2], "predicted": values[:, 2:]}
    for ours, theirs in ((correlation, stats.pearsonr), (rank_correlation, stats.spearmanr)):
        each = [
            theirs(of["truth"][:, place], of["predicted"][:, place]).statistic
            if np.ptp(of["truth"][:, place]) > 0 and np.ptp(of["predicted"][:, place]) > 0
            else 0.0
            for place in range(2)
        ]
        assert ours(of) == pytest.approx(np.mean(each), abs=1e-9)
    unit = np.array([1.0, 2.0])
    expected = math.sqrt(oracle.mean_squared_error(of["truth"] / unit, of["predicted"] / unit))
    assert root_mean_square_error(unit)(of) == pytest.approx(expected)


@pytest.mark.parametrize("scale", [1e-20, 1e-9, 1.0, 1e150])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_a_correlation_knows_no_unit(scale: float, offset: float) -> None:
    if offset and scale < 1e-9:
        scale = 1e-9  # beside 1.0 there are no digits left for less
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(50, 1))
    predicted = truth + draw.normal(size=(50, 1))
    expected = stats.pearsonr(truth[:, 0], predicted[:, 0]).statistic
    found = correlation({"truth": scale * truth + offset, "predicted": scale * predicted + offset})
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1e12 + 0.1, -7.7])
def test_a_constant_side_has_no_correlation(value: float) -> None:
    of = {"truth": np.arange(7.0)[:, None], "predicted": np.full((7, 1), value)}
    assert correlation(of) == rank_correlation(of) == 0.0
    assert correlation({"truth": of["predicted"], "predicted": of["truth"]}) == 0.0


def test_no_examples_are_no_score_of_labels_or_numbers_either() -> None:
    none = {"truth": np.zeros((0, 2), bool), "predicted": np.zeros((0, 2), bool), "rank": np.zeros((0, 2), int)}
    assert math.isnan(label_f1("micro")(none)) and math.isnan(average_precision(none))
    numbers = {"truth": np.zeros((0, 2)), "predicted": np.zeros((0, 2))}
    assert math.isnan(correlation(numbers)) and math.isnan(root_mean_square_error(np.ones(2))(numbers))
