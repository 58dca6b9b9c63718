"""Temperature, thresholds, sets and calibration errors against scikit-learn, scipy and simulations; runs that store them."""

from __future__ import annotations

import io
import json
import math
import random
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, softmax
from scipy.stats import betabinom

from shortruns import HINTS, METHODS, recipe_for, rows
from tunesmith import calibration, load
from tunesmith.calibration import (
    FEWEST,
    HOTTEST,
    KEPT,
    Calibration,
    Step,
    Tempered,
    class_losses,
    class_set,
    fit_temperature,
    label_losses,
    log_of,
    order_statistics,
    ranks,
    steps,
    tempered_classes,
    tempered_labels,
)
from tunesmith.cli.predict import Asked, predict_with
from tunesmith.errors import ArtifactError, DataError, RecipeError
from tunesmith.evaluation import calibrating
from tunesmith.evaluation.calibrating import (
    Units,
    calibration_error,
    covered_range,
    equal_mass,
    error_interval,
    error_of_the_calibrated,
    reliability,
    risk_coverage,
)
from tunesmith.evaluation.intervals import binomial, share_of
from tunesmith.evaluation.page import render
from tunesmith.evaluation.panels.calibration import show
from tunesmith.evidence.calibration import _said, gather
from tunesmith.models.seal import seal
from tunesmith.pipeline import start
from tunesmith.predictor import Card
from tunesmith.recipe import Recipe
from tunesmith.tasks import _certainty
from tunesmith.tasks._metrics import accuracy
from tunesmith.tasks.base import Labels, Prediction, Scores
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.regression import Regression

if TYPE_CHECKING:
    from tunesmith.evidence.base import Subject

Folder = Callable[[str], Path]
World = tuple[np.ndarray, np.ndarray]


def world(draw: np.random.Generator, count: int, temperature: float = 1.0, spread: float = 2.0) -> World:
    """Probabilities [rows, 5] and classes [rows], drawn from the true ones; what is given is `temperature` times as sure."""
    logits = spread * draw.normal(size=(count, 5))
    truth = (softmax(logits, axis=1).cumsum(axis=1) < draw.random(count)[:, None]).sum(axis=1).clip(0, 4)
    return softmax(logits * temperature, axis=1), truth


def fitted(shares: np.ndarray, truth: np.ndarray) -> Tempered:
    wrong = int((shares.argmax(axis=1) != truth).sum())
    return fit_temperature(class_losses(shares, truth), len(truth), wrong, np.random.default_rng(1))


@pytest.mark.parametrize("sure", [0.4, 1.7, 4.0])
def test_the_temperature_is_that_of_scikit_learn(sure: float) -> None:
    from sklearn.calibration import _TemperatureScaling

    shares, truth = world(np.random.default_rng(3), 800, sure)
    oracle: Any = _TemperatureScaling().fit(np.log(shares), truth)
    found = fitted(shares, truth)
    assert found.temperature == pytest.approx(1 / oracle.beta_, rel=1e-3)
    assert found.temperature == pytest.approx(sure, rel=0.25)
    assert "fitted on 800 validation rows" in found.why
    assert tempered_classes(shares, found.temperature) == pytest.approx(oracle.predict(np.log(shares)), abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_the_highest_precision_that_is_proven_is_named(seed: int) -> None:
    draw = np.random.default_rng(seed)
    shares, truth = world(draw, 300)
    probability, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    known = Calibration(300, steps=steps(probability, right))
    found = known.highest()
    assert found is not None
    precision, step = found
    assert known.threshold(precision) == step
    assert all(known.threshold(share / 100) is None for share in range(round(100 * precision) + 1, 100))
    assert f"the highest that is proven is {precision:g}" in known.instead()
    assert f"{step.rows} of the 300 validation rows pass" in known.instead()
    never = Calibration(300, steps=steps(probability, np.zeros(300, dtype=bool)))
    assert never.highest() is None and never.instead() == "no other precision is proven either"


def test_losses_are_those_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    draw = np.random.default_rng(0)
    shares, truth = world(draw, 50)
    every = np.arange(50)
    assert class_losses(shares, truth)(every)(1.0).mean() == pytest.approx(log_loss(truth, shares, labels=range(5)))
    cooler = softmax(np.log(shares) / 3, axis=1)
    assert class_losses(shares, truth)(every)(3.0).mean() == pytest.approx(log_loss(truth, cooler, labels=range(5)))
    said = draw.random((50, 4)) < shares[:, :4]
    own = label_losses(shares[:, :4], said)(every)(1.0).mean()
    assert own == pytest.approx(4 * log_loss(said.ravel(), shares[:, :4].ravel()))


def test_the_temperature_of_labels_undoes_what_made_them_too_sure() -> None:
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(5)
    logits = 2 * draw.normal(size=(2000, 6))
    true = draw.random(logits.shape) < expit(logits)
    found = fit_temperature(label_losses(expit(2.5 * logits), true), 2000, 500, draw)
    oracle = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8).fit(2.5 * logits.reshape(-1, 1), true.ravel())
    assert found.temperature == pytest.approx(1 / oracle.coef_[0, 0], rel=1e-3)
    assert found.temperature == pytest.approx(2.5, rel=0.1)
    assert tempered_labels(expit(2.5 * logits), 2.5) == pytest.approx(expit(logits), abs=1e-3), (
        "as far as float32 tells 1"
    )


def test_none_is_fitted_on_few_rows_or_few_mistakes_and_none_kept_that_is_chance() -> None:
    draw = np.random.default_rng(2)
    shares, truth = world(draw, 2000, 3.0)
    few = fitted(shares[: FEWEST - 1], truth[: FEWEST - 1])
    assert few == (1.0, "none fitted: 99 validation rows, and it takes 100")
    assert fitted(shares[:FEWEST], truth[:FEWEST]).temperature > 1.5, "control: one row more"
    flawless = fitted(shares, shares.argmax(axis=1))
    assert flawless == (
        1.0,
        "none fitted: 0 of the 2000 validation rows are wrong, and it takes 10".replace("2000", "2,000"),
    )
    kept = [fitted(*world(draw, 200)).temperature != 1 for _ in range(100)]
    assert np.mean(kept) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 100), "of calibrated ones about one in twenty, by chance"
    shares, truth = world(draw, 300)
    said = fitted(shares, truth).why
    assert said.startswith("none kept: ") and (" higher" in said or " lower, less than the " in said)


@pytest.mark.parametrize(("errors", "kept"), [(1.3, False), (1.7, True)])
def test_the_words_on_a_temperature_agree_with_the_rule_that_judged_it(errors: float, kept: bool) -> None:
    rows = 200
    bare = np.tile([1.0, -1.0], rows // 2)
    gains = bare + errors * bare.std(ddof=1) / math.sqrt(rows)  # each row's at a temperature of 2

    def losses(some: np.ndarray) -> Callable[[float], np.ndarray]:
        return lambda temperature: 2 + gains[some] * (abs(math.log2(temperature) - 1) - 1)

    found = fit_temperature(losses, rows, 50, np.random.default_rng(0))
    assert (found.temperature != 1) == kept
    assert ("more than the" in found.why, "less than the" in found.why) == (kept, not kept)
    assert "1.645 standard errors" in found.why


@given(
    st.lists(st.lists(st.floats(-60, 60, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    st.floats(0.1, HOTTEST),
)
@settings(max_examples=60, deadline=None)
def test_no_temperature_changes_what_is_said(logits: list[list[float]], temperature: float) -> None:
    """Probabilities as a float32 holds them; equal ones stay equal, and the first of them is said."""
    shares = softmax(np.array(logits), axis=1).astype(np.float32).astype(np.float64)
    found = tempered_classes(shares, temperature)
    top = shares.argmax(axis=1)
    assert found.sum(axis=1) == pytest.approx(1)
    assert (found[np.arange(len(top)), top] >= found.max(axis=1)).all()


def test_what_a_float32_cannot_hold_stays_finite() -> None:
    shares = np.array([[1.0, 0.0], [0.5, 0.5]])
    assert np.isfinite(log_of(shares)).all()
    assert np.isfinite(class_losses(shares, np.array([1, 0]))(np.arange(2))(10.0)).all()
    assert np.isfinite(label_losses(shares, shares < 0.5)(np.arange(2))(0.1)).all()


# Sets


@pytest.mark.parametrize(("count", "coverage"), [(20, 0.9), (50, 0.8), (300, 0.95), (2500, 0.9)])
def test_sets_cover_on_average_what_the_theorem_says(count: int, coverage: float) -> None:
    """1,000 experiments: the mean coverage of a new row is k / (n + 1), between the level and the level + 1 / (n + 1).

    With so many experiments the mean's own error is known; a set of the plain quantile, without the one row more, is the
    control that falls short where rows are few. Scores are uniform: coverage depends on their ranks alone.
    """
    draw = np.random.default_rng(count)
    found, plain = [], []
    for _ in range(1000):
        scores = draw.random(count)
        known = Calibration(count, scores=order_statistics(scores))
        quantile = known.quantile(coverage)
        assert quantile is not None
        found.append(min(1.0, quantile))  # the probability that a uniform score is at most that
        plain.append(np.sort(scores)[math.ceil(count * coverage) - 1])
    rank = math.ceil((count + 1) * coverage - 1e-9)
    error = 3 * math.sqrt(rank * (count + 1 - rank) / ((count + 1) ** 2 * (count + 2)) / 1000)
    thinned = 1 / KEPT if count > KEPT else 0  # of more rows each rank is rounded up to one that is stored
    assert coverage - error <= np.mean(found) <= coverage + 1 / (count + 1) + thinned + error
    if count == 20:
        assert np.mean(plain) < coverage - error, "control"


def test_sets_of_classes_cover_in_simulated_worlds() -> None:
    draw, held = np.random.default_rng(9), []
    for _ in range(1000):
        shares, truth = world(draw, 140, 2.5)
        known = Calibration(99, scores=order_statistics(1 - shares[np.arange(99), truth[:99]]))
        quantile = known.quantile(0.9)
        assert quantile is not None
        held += [true in class_set(row, quantile) for row, true in zip(shares[99:].tolist(), truth[99:], strict=True)]
    assert 0.9 - 0.004 <= np.mean(held) <= 0.9 + 1 / 100 + 0.004, "3 standard errors of 1,000 experiments"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40), st.floats(0.01, 0.99))
@settings(deadline=None)
def test_the_quantile_is_the_order_statistic(scores: list[float], coverage: float) -> None:
    known = Calibration(len(scores), scores=order_statistics(np.array(scores)))
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    found = known.quantile(coverage)
    if rank > len(scores):
        assert found is None
        assert coverage > known.most_coverage() - 1e-9
    else:
        assert found is not None
        assert 0 <= found - sorted(scores)[rank - 1] <= 1.1e-6, "rounded up"


@pytest.mark.parametrize("rows", [45, 80, 150, 300])
def test_probabilities_that_hold_are_seldom_called_untrue_and_others_are(rows: int) -> None:
    draw, alarms, seen, tries = np.random.default_rng(rows), 0, 0, 200
    for seed in range(tries):
        sure = draw.uniform(0.3, 1.0, rows)
        for share in (sure, sure**4):  # what is said, and how often it is right in truth
            units = Units(sure, draw.random(rows) < share, np.arange(rows), rows)
            said = _said(units, error_interval(units, 300, 0.95, seed).low)
            alarms, seen = alarms + (share is sure and len(said)), seen + (share is not sure and len(said))
    assert alarms / tries <= 0.05
    assert seen / tries >= 0.9


def test_few_scores_of_many_are_stored_and_never_cover_less() -> None:
    scores = np.random.default_rng(0).random(25_003)
    known = Calibration(len(scores), scores=order_statistics(scores))
    assert len(known.scores) == KEPT
    ascending = np.sort(scores)
    for coverage in (0.5, 0.9, 0.951, 0.999, 0.9999):
        exact = ascending[math.ceil((len(scores) + 1) * coverage) - 1]
        found = known.quantile(coverage)
        assert found is not None
        assert exact <= found <= exact + 0.003 or found >= ascending[-1]


def test_a_set_is_never_empty_and_the_most_probable_comes_first() -> None:
    assert class_set([0.2, 0.5, 0.3], 0.1) == [1]
    assert class_set([0.2, 0.5, 0.3], 0.7) == [1, 2]
    assert class_set([0.2, 0.5, 0.3], 1.0) == [1, 2, 0]


# Thresholds


def test_what_is_above_a_threshold_is_right_as_often_as_wanted() -> None:
    """In at least 95 % of 400 worlds; the lowest threshold that looks right on the validation rows is the control."""
    draw = np.random.default_rng(4)
    shares, truth = world(draw, 200_000, 1.6, spread=5)
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == truth
    broken, naive, given_ = [], [], 0
    for _ in range(400):
        some, true = world(draw, 300, 1.6, spread=5)
        tried = steps(some.max(axis=1), some.argmax(axis=1) == true)
        found = Calibration(300, steps=tried).threshold(0.9)
        given_ += found is not None
        broken.append(found is not None and right[sure > found.above].mean() < 0.9)
        looks = [step for step in tried if step.rows and step.right / step.rows >= 0.9][-1]
        naive.append(right[sure > looks.above].mean() < 0.9)
    assert given_ > 300
    assert np.mean(broken) <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert np.mean(naive) > 0.2, "control"


def test_a_threshold_passes_the_exact_test_and_the_first_failure_ends_it() -> None:
    from scipy.stats import binomtest

    tried = (Step(0.99, 20, 20), Step(0.9, 60, 60), Step(0.8, 100, 99), Step(0.7, 200, 180), Step(0.5, 900, 890))
    known = Calibration(300, steps=tried)
    assert known.fewest(0.95) == 59
    assert known.threshold(0.95) == tried[2], "the fourth fails, and what follows is not looked at"
    low = binomtest(99, 100).proportion_ci(0.90, "exact").low  # one-sided 95 %
    assert low >= 0.95 > binomtest(180, 200).proportion_ci(0.90, "exact").low
    assert known.threshold(0.99) is None
    assert Calibration(300, steps=tried[:1]).threshold(0.95) is None, "20 rows prove nothing"
    late = Calibration(900, steps=(Step(0.9, 60, 59), Step(0.8, 150, 149), *tried[3:]))
    assert late.threshold(0.95) == (0.8, 150, 149), "of many rows the first test is one that forgives a mistake"


def test_where_nothing_is_proven_the_wrong_ones_among_the_surest_are_counted() -> None:
    right = np.ones(120, dtype=bool)
    right[[3, 5]] = False
    known = Calibration(120, steps=steps(np.linspace(0.99, 0.5, 120), right))
    assert known.threshold(0.9) is None
    failed = next(step for step in known.steps if step.rows >= known.fewest(0.9))
    assert known.unproven(0.9).startswith(f"2 of the {failed.rows} surest of its 120 validation rows are wrong")


def test_steps_count_rows_strictly_above_their_threshold() -> None:
    sure = np.array([1.0] * 30 + [0.9] * 40 + list(np.linspace(0.5, 0.8, 30)))
    right = np.array([True] * 70 + [False] * 30)
    found = steps(sure, right)
    assert len(found) == len(ranks(100)) == 50
    assert found[0] == (1.0, 0, 0), "rows that are all as sure cannot be told apart"
    assert found[-1] == (0.0, 100, 70)
    assert Calibration(100, steps=found).threshold(0.9) == (pytest.approx(found[35].above), 71, 70)


# Calibration error


def test_the_error_is_that_of_bins_made_by_scikit_learn() -> None:
    from sklearn.calibration import calibration_curve

    draw = np.random.default_rng(6)
    probability = draw.random(3000)
    right = draw.random(3000) < probability**2
    units = Units(probability, right, np.arange(3000), 3000)
    shares, means = calibration_curve(right, probability, n_bins=15, strategy="quantile")
    assert np.bincount(equal_mass(probability)).tolist() == [200] * 15
    assert calibration_error(units) == pytest.approx(np.abs(shares - means).mean(), abs=2e-3)
    bins = reliability(units)
    shares, means = calibration_curve(right, probability, n_bins=10)
    assert [item.right.mean() for item in bins] == pytest.approx(shares)
    assert [item.probability for item in bins] == pytest.approx(means)
    assert sum(item.units for item in bins) == 3000


def test_the_error_of_calibrated_probabilities_is_foreseen_and_its_interval_reaches_down_to_0() -> None:
    draw, found, low = np.random.default_rng(7), [], []
    probability = draw.random(1500) ** 0.3
    for _ in range(150):
        units = Units(probability, draw.random(1500) < probability, np.arange(1500), 1500)
        found.append(calibration_error(units))
        low.append(error_interval(units, 100, 0.95, 0).low)
    assert error_of_the_calibrated(units) == pytest.approx(np.mean(found), rel=0.05)
    assert np.mean(found) > 0.01, "far from the true error of 0"
    assert np.mean(np.array(low) == 0) >= 0.975 - 3 * math.sqrt(0.025 * 0.975 / 150)


def test_the_interval_of_an_error_holds_the_true_one() -> None:
    draw, held = np.random.default_rng(8), 0
    probability = draw.random(2000)
    true = probability**1.5
    expected = np.mean([np.abs((probability - true)[equal_mass(probability) == at].mean()) for at in range(15)])
    for _ in range(150):
        units = Units(probability, draw.random(2000) < true, np.arange(2000), 2000)
        interval = error_interval(units, 100, 0.95, 0)
        held += interval.low <= expected <= interval.high
    assert held / 150 > 0.95 - 3 * math.sqrt(0.05 * 0.95 / 150)


@pytest.mark.parametrize(("rows_tested", "true", "said"), [(50, 0.98, 0.999), (100, 0.995, 0.9999), (50, 0.98, 0.98)])
def test_the_interval_of_an_error_holds_the_true_one_where_hardly_a_mistake_is_seen(
    rows_tested: int, true: float, said: float
) -> None:
    """Of 50 rows that are right in 98 % of all cases 36 % of the tests see no mistake, and neither does a resample."""
    held = 0
    for seed in range(300):
        right = np.random.default_rng([13, seed]).random(rows_tested) < true
        units = Units(np.full(rows_tested, said), right, np.arange(rows_tested), rows_tested)
        interval = error_interval(units, 200, 0.95, 0)
        held += interval.low <= abs(said - true) <= interval.high
        if right.all():
            assert interval.high == pytest.approx(1 - said + 1 - 0.025 ** (1 / rows_tested))
    assert held / 300 >= 0.93


def in_groups(seed: int, share: float, groups: int, size: int, alike: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """[rows] whether each is a hit, and its group; rows of a group correlate by `alike`."""
    draw = np.random.default_rng([17, seed])
    chance = draw.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, size=groups)
    group = np.repeat(np.arange(groups), size)
    return draw.random(len(group)) < chance[group], group


def test_a_share_of_rows_in_groups_is_as_sure_as_the_groups_are() -> None:
    hits, group = in_groups(0, 0.9, 24, 20)
    assert share_of(hits, None, 0.95) == share_of(hits, np.arange(480), 0.95) == binomial(int(hits.sum()), 480, 0.95)
    one = share_of(hits, np.zeros(480, int), 0.95)
    assert one.value == hits.mean() and one.low < 0.05 and one.high > 0.99, "one group tells of no other"
    held = {"groups": 0, "rows": 0}
    for seed in range(400):
        hits, group = in_groups(seed, 0.9, 24, 20)
        for name, of in (("groups", group), ("rows", None)):
            found = share_of(hits, of, 0.95)
            held[name] += found.low <= 0.9 <= found.high
    assert held["groups"] / 400 >= 0.93 and held["rows"] / 400 < 0.75, held


def told_of(seed: int, grouped: bool) -> tuple[list[str], dict[str, Any]]:
    """Findings of validation and test rows of one kind, 24 groups of 20 rows each, and the report."""
    wrong, group = in_groups(seed, 0.15, 48, 20)
    draw = np.random.default_rng([18, seed])
    top = 0.75 + 0.2 * draw.random(len(wrong))
    truth = draw.integers(3, size=len(wrong))
    shares = np.repeat(((1 - top) / 2)[:, None], 3, axis=1)
    shares[np.arange(len(wrong)), (truth + wrong) % 3] = top
    held, tested = slice(0, 480), slice(480, 960)
    names, labels = LABELS.names, LABELS
    known = _certainty.calibrate_classes(predictions(shares[held]), [names[at] for at in truth[held]], labels, 0.95)
    metrics: Any = {"accuracy": accuracy}
    columns = {"truth": truth[tested], "predicted": shares[tested].argmax(1)}
    scores = Scores(columns, metrics, "accuracy", frozenset(metrics), groups=group[tested] if grouped else None)
    subject = SimpleNamespace(
        task=SimpleNamespace(certainty="classes"),
        labels=known,
        recipe=SimpleNamespace(seed=0, evaluation=SimpleNamespace(confidence=0.95, resamples=200, precision=None)),
        test=SimpleNamespace(
            predictions=predictions(shares[tested]), truth=[names[at] for at in truth[tested]], scores=scores
        ),
    )
    found = gather(cast("Subject", subject))
    assert found is not None
    return [item.kind for item in found.findings], dict(found.data)


def test_rows_in_groups_are_not_called_unlike_by_what_takes_them_as_drawn_alone() -> None:
    alone = [told_of(seed, grouped=False)[0] for seed in range(25)]
    assert sum(map(bool, alone)) > 2, "the control: too often for rows of one kind"
    both = [told_of(seed, grouped=True) for seed in range(25)]
    assert not any(kinds for kinds, _ in both)
    data, before = both[0][1], told_of(0, grouped=False)[1]
    assert data["grouped"] and not before["grouped"]
    for of in ("precision", "sets"):
        assert [row["wanted"] for row in data[of]] == [row["wanted"] for row in before[of]]
    assert all(row["expected"] is None for row in data["sets"]) and data["sets"]
    wide, narrow = (item["bins"][0]["right_high"] - item["bins"][0]["right_low"] for item in (data, before))
    assert wide > 1.3 * narrow
    assert data["calibrated_error"] > before["calibrated_error"]
    page = show(data, {"confidence": 0.95})
    assert "takes validation rows as drawn alone" in page and "expected is where" not in page
    assert "drawn alone" not in show(before, {"confidence": 0.95})


def test_risk_and_coverage_by_hand() -> None:
    draw = np.random.default_rng(1)
    probability = draw.random(400)
    right = draw.random(400) < probability
    for share, precision in risk_coverage(Units(probability, right, np.arange(400), 400)):
        surest = np.argsort(-probability)[: round(share * 400)]
        assert precision == pytest.approx(right[surest].mean())
    assert calibrating.POINTS >= len(risk_coverage(Units(probability, right, np.arange(400), 400))) > 100


def test_the_range_of_covered_test_rows_is_that_of_the_beta_binomial() -> None:
    low, high = covered_range(99, 500, 0.9, 0.95)
    draw = np.random.default_rng(3)
    held = [(draw.random(500) <= np.sort(draw.random(99))[89]).mean() for _ in range(4000)]
    assert np.mean((np.array(held) >= low) & (np.array(held) <= high)) == pytest.approx(0.95, abs=0.02)
    assert low == betabinom.ppf(0.025, 500, 90, 10) / 500


# What is stored


def test_what_is_stored_comes_back() -> None:
    known = Calibration(7, 1.5, "why", 0.9, (Step(0.5, 3, 2),), tuple(np.linspace(0, 1, 7)))
    assert Calibration.read(json.loads(json.dumps(known.to_plain()))) == known
    assert Calibration.read(None) is None
    with pytest.raises(ArtifactError, match="7 scores of 9 rows"):
        Calibration.read(known.to_plain() | {"rows": 9})


LABELS = Labels(("a", "b", "c"), (1, 1, 1))


def predictions(shares: np.ndarray) -> list[Prediction]:
    return Classification().predictions(shares, range(len(shares)), LABELS)


def test_tempered_predictions_are_those_of_divided_outputs() -> None:
    import torch

    draw = np.random.default_rng(0)
    logits = torch.from_numpy(4 * draw.normal(size=(600, 3))).float()
    truth = [LABELS.names[place] for place in (logits + 4 * torch.from_numpy(draw.normal(size=(600, 3)))).argmax(1)]
    task = Classification()
    plain = task.predict(logits, range(600), LABELS)
    labels, cooler = task.temper(plain, truth, LABELS, 0)
    assert labels.temperature > 1.2
    again = task.predict(logits, range(600), labels)
    assert [item.value for item in again] == [item.value for item in plain] == [item.value for item in cooler]
    assert np.array([item.evidence for item in again]) == pytest.approx(
        np.array([item.evidence for item in cooler]), abs=1e-6
    )
    assert task.temper(plain, truth, LABELS, 0) == (labels, cooler), "the same every time"


def test_a_fit_on_a_part_of_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    shares, truth = world(np.random.default_rng(0), 3000, 2.0)
    labels = Labels(tuple("abcde"), (1,) * 5)
    found = Classification().predictions(shares, range(3000), labels)
    named = [labels.names[place] for place in truth]
    monkeypatch.setattr(_certainty, "MOST", 5 * 1000)
    some, _ = Classification().temper(found, named, labels, 0)
    assert some.calibration is not None
    assert "on 1,000 validation rows" in some.calibration.why
    assert some.temperature == pytest.approx(2.0, rel=0.2)


def test_labels_are_tempered_before_their_thresholds_are_chosen() -> None:
    draw = np.random.default_rng(1)
    logits = 2 * draw.normal(size=(500, 3))
    truth = [
        tuple(name for name, yes in zip("abc", row, strict=True) if yes)
        for row in draw.random((500, 3)) < expit(logits)
    ]
    labels, task = replace(LABELS, thresholds=(0.5,) * 3), Multilabel()
    found = task.predictions(expit(3 * logits), range(500), labels)
    warm, cooler = task.temper(found, truth, labels, 0)
    assert warm.temperature == pytest.approx(3, rel=0.2)
    apart = [
        [item.value for item in task.restate(some, task.settle(some, truth, its))]
        for some, its in ((found, labels), (cooler, warm))
    ]
    assert apart[0] == apart[1], "what is said stays"


def test_ranges_of_numbers_hold_all_numbers_of_a_row() -> None:
    draw = np.random.default_rng(2)
    labels = Labels(("x", "y"), (9, 9), center=(10.0, -5.0), scale=(2.0, 0.5), standardised=True)
    evidence = draw.normal(size=(400, 2))
    wanted = (evidence + draw.normal(size=(400, 2))) * [2.0, 0.5] + [10.0, -5.0]
    task = Regression()
    found = task.predictions(evidence.tolist(), range(400), labels)
    known = task.calibrate(found[:200], wanted[:200].tolist(), labels, 0.95)
    from tunesmith.careful import set_columns, sets_of

    held = [
        all(low <= number <= high for (low, high), number in zip(ranges, row, strict=True))
        for ranges, row in zip(sets_of(task, known, found, 0.9), wanted, strict=True)
    ]
    assert np.mean(held[:200]) >= 0.9
    assert np.mean(held[200:]) == pytest.approx(0.9, abs=0.07)
    assert list(set_columns(task, known, found, 0.9)) == ["low x", "high x", "low y", "high y"]


# Runs


def forced(monkeypatch: pytest.MonkeyPatch, temperature: float) -> None:
    monkeypatch.setattr(_certainty, "fit_temperature", lambda *_: Tempered(temperature, "as the test says"))


@pytest.mark.parametrize("method", ["full", "head", "lora", "prompt", "bottleneck", "peft", "pissa"])
def test_every_form_of_a_model_holds_the_temperature(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivery itself compares model/ and adapter/ with what was trained, and refuses what differs."""
    from pyarrow import parquet

    plain, cooled = tmp_path / "plain", tmp_path / "cooled"
    recipe = recipe_for(model_folder("bert"), table_file, METHODS[method], {"evaluation.quick": True})
    list(start(recipe, plain).events())
    forced(monkeypatch, 4.0)
    list(start(recipe, cooled).events())
    texts = [text for text, _ in rows(30)]
    before, after = load(plain).predict_proba(texts), load(cooled).predict_proba(texts)
    assert after == pytest.approx(softmax(np.log(before) / 4, axis=1), abs=1e-5)
    assert np.abs(after - before).max() > 0.01, "control"
    assert load(plain).predict(texts) == load(cooled).predict(texts)
    card = Card.read(cooled / "model")
    assert card.labels.temperature == 1, "it is in the weights"
    assert card.labels.calibration is not None
    assert card.labels.calibration.temperature == 4
    stored = parquet.read_table(cooled / "predictions" / "test.parquet").to_pydict()
    assert [max(row) for row in load(cooled).predict_proba(stored["text"])] == pytest.approx(
        stored["probability"], abs=1e-6
    )
    if method in ("full", "lora"):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(cooled / "model")
        model = AutoModelForSequenceClassification.from_pretrained(cooled / "model").eval()
        shares = [model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1)[0].tolist() for text in texts[:8]]
        assert np.array(shares) == pytest.approx(after[:8], abs=1e-5)
        assert "temperature of 4" in (cooled / "model" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 rows, a tenth of which are labelled at random; 180 to validate on."""
    import csv

    folder, draw = tmp_path_factory.mktemp("sure"), random.Random(0)
    content = [(text, draw.choice(sorted(HINTS)) if draw.random() < 0.1 else label) for text, label in rows(600)]
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *content])
    given_ = {
        "data.validation": 0.3,
        "data.test": 0.3,
        "training.epochs": 4,
        "evaluation.precision": 0.8,
        "training.rate": 2e-3,
    }
    list(start(recipe_for(model_folder("bert"), folder / "rows.csv", "full", given_), folder / "run").events())
    return folder / "run"


def test_a_report_tells_how_sure_the_model_is(run: Path) -> None:
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    found = report["evidence"]["calibration"]
    known = Card.read(run / "model").labels.calibration
    assert known is not None
    assert (found["kind"], found["rows"], found["validation_rows"]) == ("classes", 180, known.rows)
    assert sum(item["units"] for item in found["bins"]) == 180
    assert [row["wanted"] for row in found["precision"]] == [0.8, 0.9, 0.95, 0.99]
    assert [row["asked"] for row in found["precision"]] == [True, False, False, False]
    for row in found["sets"]:
        assert row["coverage"]["value"] >= row["expected"][0], "the promise holds on the test rows"
    assert any("precision of 0.8" in line for line in report["beside"])
    page = render(report)
    assert 'id="calibration"' in page
    assert "Reliability diagram" in page
    assert "--sets 0.9" in page


def test_answers_held_back_and_sets(run: Path) -> None:
    model = load(run)
    texts = [text for text, _ in rows(200, seed=5)]
    said, shares = model.predict(texts), model.predict_proba(texts)
    step = model.threshold(0.6)
    held = model.predict(texts, precision=0.6)
    assert held == [value if top > step.above else None for value, top in zip(said, shares.max(axis=1), strict=True)]
    sets = model.predict_sets(texts, 0.9)
    assert all(each[0] == value for each, value in zip(sets, said, strict=True))
    wider = model.predict_sets(texts, 0.99)
    assert all(set(one) <= set(other) for one, other in zip(sets, wider, strict=True))
    columns = model.said(texts, precision=0.6, sets=0.9)
    assert list(columns)[:4] == ["label", "probability", "answered", "set"]
    assert columns["label"] == held
    assert columns["set"] == [list(each) for each in sets]
    for refused, words in (
        (lambda: model.predict(texts, precision=0.9999), "0.9999 is not proven"),
        (lambda: model.predict(texts, precision=1.0), "not between 0 and 1"),
        (lambda: model.predict_sets(texts, 0.9999), "promise a coverage of 0.9945 at most"),
    ):
        with pytest.raises(DataError, match=words):
            refused()


def test_the_command_holds_answers_back(run: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(text for text, _ in rows(50, seed=5)) + "\n", encoding="utf-8")
    model, stream = load(run), io.StringIO()
    precision = 0.6
    out = tmp_path / "out.jsonl"
    predict_with(lambda: model, str(texts), Asked(out, precision=precision, sets=0.9), io.StringIO(), stream)
    told = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    above = model.threshold(precision).above
    assert [row["answered"] for row in told] == [row["probability"] > above for row in told]
    assert all((row["label"] is None) != row["answered"] for row in told)
    assert all(isinstance(row["set"], list) for row in told)
    answered = sum(row["answered"] for row in told)
    assert f"{answered} of 50 rows answered, the label of the others left empty" in stream.getvalue()


def test_models_of_earlier_releases_still_load(run: Path, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(run / "model", folder)
    card = json.loads((folder / "tunesmith.json").read_text(encoding="utf-8"))
    del card["temperature"], card["calibration"]
    (folder / "tunesmith.json").write_text(json.dumps(card), encoding="utf-8")
    seal(folder)
    old, texts = load(folder), [text for text, _ in rows(20)]
    assert (old.predict_proba(texts) == load(run).predict_proba(texts)).all()
    with pytest.raises(DataError, match="by an earlier release"):
        old.predict(texts, precision=0.9)
    with pytest.raises(DataError, match="by an earlier release"):
        old.predict_sets(texts, 0.9)


def test_a_temperature_that_no_linear_map_holds_is_applied_when_predicting(run: Path) -> None:
    model, texts = load(run), [text for text, _ in rows(20)]
    before = model.predict_proba(texts)
    model.card = replace(model.card, labels=replace(model.card.labels, temperature=2.0))
    assert model.predict_proba(texts) == pytest.approx(softmax(np.log(before) / 2, axis=1), abs=1e-6)


@pytest.mark.parametrize("task", ["multilabel", "regression"])
def test_other_tasks_tell_what_has_a_meaning_for_them(task: str, model_folder: Folder, tmp_path: Path) -> None:
    content = rows(200)
    path = tmp_path / "rows.jsonl"
    label: dict[str, Callable[[str, str], Any]] = {
        "multilabel": lambda text, name: [name] if "e" in text[:9] else [name, "more"],
        "regression": lambda text, name: len(text) / 7,
    }
    lines = [json.dumps({"text": text, "label": label[task](text, name)}) for text, name in content]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    out = tmp_path / "run"
    recipe = recipe_for(model_folder("bert"), path, "head", {"task": task, "evaluation.precision": 0.9})
    events = list(start(recipe, out).events())
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    found, model = report["evidence"]["calibration"], load(out)
    assert 'id="calibration"' in render(report)
    with pytest.raises(DataError, match="models of one class a row"):
        model.predict([text for text, _ in content[:3]], precision=0.9)
    assert any("not used: evaluation.precision" in str(event.to_plain()) for event in events)
    if task == "multilabel":
        assert found["units"] == 40 * 4
        with pytest.raises(DataError, match="or of numbers"):
            model.predict_sets(["a text"], 0.9)
        return
    values, ranges = model.predict(["a text", "more"]), model.predict_sets(["a text", "more"], 0.9)
    assert [sum(each) / 2 for each in ranges] == pytest.approx(values)
    assert ranges[0][1] - values[0] == pytest.approx(found["sets"][1]["reach"][0], rel=1e-4)
    assert found["sets"][1]["coverage"]["value"] >= found["sets"][1]["expected"][0]


def test_a_wanted_precision_is_a_share() -> None:
    plain = {"model": "m", "data": "d.csv", "method": "head"}
    assert Recipe.parse({**plain, "evaluation": {"precision": 0.95}}).evaluation.precision == 0.95
    for wrong in (0, 1, 95):
        with pytest.raises(RecipeError, match=r"evaluation\.precision"):
            Recipe.parse({**plain, "evaluation": {"precision": wrong}})


def test_formulas_import_nothing_heavy() -> None:
    source = Path(calibration.__file__).read_text(encoding="utf-8")
    heads = [line for line in source.splitlines() if line.startswith(("import ", "from "))]
    assert not [line for line in heads if "numpy" in line or "scipy" in line]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Calibration(0).threshold(0.9) is None
        assert Calibration(0).quantile(0.9) is None
