"""Confident learning, what it stands on, and the figures of drift and leaks, against other people's code."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.auditing.confident import confident_classes, off_diagonal, thresholds
from tunesmith.auditing.drift import area_under
from tunesmith.auditing.folds import cross_validated, cross_validated_words, folds_of, tempered
from tunesmith.auditing.label_errors import search
from tunesmith.auditing.leak import leak_effect, leak_finding
from tunesmith.data.near import CROWDED


def said_and_labels(seed: int, rows: int, classes: int, noise: float, sure: float) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that a classifier may give, and labels of which some are others than it says."""
    draw = np.random.default_rng(seed)
    true = np.concatenate([np.arange(classes).repeat(3), draw.integers(classes, size=rows - 3 * classes)])
    logits = draw.normal(size=(rows, classes)) + sure * np.eye(classes)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(draw.random(rows) < noise, draw.integers(classes, size=rows), true)
    labels[: 3 * classes] = true[: 3 * classes]  # every class has rows
    return probabilities, labels


CASES = st.builds(
    said_and_labels,
    st.integers(0, 10_000),
    st.integers(60, 300),
    st.integers(2, 12),
    st.floats(0, 0.4),
    st.floats(0.5, 6),
)


def apart(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[rows] of bool: where cleanlab leaves the paper's equation 1.

    Of rows with several classes above their thresholds it takes the likeliest of all classes, be it above its own or not.
    """
    reached = probabilities >= thresholds(probabilities, labels) - 1e-6
    likeliest = reached[np.arange(len(labels)), probabilities.argmax(axis=1)]
    return (reached.sum(axis=1) > 1) & ~likeliest


@settings(deadline=None, max_examples=40)
@given(CASES)
def test_thresholds_and_flags_agree_with_cleanlab(case: tuple[np.ndarray, np.ndarray]) -> None:
    from cleanlab.count import compute_confident_joint, get_confident_thresholds
    from cleanlab.filter import find_label_issues

    probabilities, labels = case
    theirs = get_confident_thresholds(labels, probabilities)
    np.testing.assert_allclose(thresholds(probabilities, labels), theirs, atol=1e-5)
    alike = ~apart(probabilities, labels)
    _, places = compute_confident_joint(labels, probabilities, return_indices_of_off_diagonals=True)
    counted = np.isin(np.arange(len(labels)), places)
    ours = off_diagonal(probabilities, labels)
    np.testing.assert_array_equal(ours[alike], counted[alike])
    found = find_label_issues(labels, probabilities, filter_by="confident_learning", n_jobs=1)
    mistaken = probabilities.argmax(axis=1) != labels
    np.testing.assert_array_equal((ours & mistaken)[alike], found[alike])


def test_a_small_case_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.2, 0.8]])
    labels = np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(thresholds(probabilities, labels), [0.6, 0.75])
    assert confident_classes(probabilities, labels).tolist() == [0, 0, 1, -1, 1]
    assert off_diagonal(probabilities, labels).tolist() == [False, False, True, False, False]


def test_folds_are_stratified_and_a_function_of_the_seed() -> None:
    truth = np.random.default_rng(0).integers(7, size=403)
    folds = folds_of(truth, 5, 3)
    for one in range(7):
        sizes = np.bincount(folds[truth == one], minlength=5)
        assert sizes.max() - sizes.min() <= 1
    assert (folds == folds_of(truth, 5, 3)).all()
    assert (folds != folds_of(truth, 5, 4)).any()


def blobs(seed: int, rows: int, classes: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    truth = np.arange(rows) % classes
    return draw.normal(size=(classes, 20))[truth] + spread * draw.normal(size=(rows, 20)), truth


def test_cross_validated_says_what_scikit_learn_says() -> None:
    from sklearn.linear_model import LogisticRegression

    features, truth = blobs(0, 600, 5, 1.5)
    found = cross_validated(features, truth, 5, 0)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    centred = features - features.mean(axis=0)
    scaled = centred / np.linalg.norm(centred, axis=1).mean()
    theirs = np.zeros_like(found)
    folds = folds_of(truth, 5, 0)
    for fold in range(5):
        model = LogisticRegression(C=16.0, max_iter=2000).fit(scaled[folds != fold], truth[folds != fold])
        theirs[folds == fold] = model.decision_function(scaled[folds == fold])
    theirs = tempered(theirs, truth, np.ones(len(truth), dtype=bool))
    assert np.abs(found - theirs).mean() < 0.01
    assert (found.argmax(axis=1) == theirs.argmax(axis=1)).mean() > 0.98


def test_no_row_is_told_by_itself() -> None:
    """Of labels that features say nothing about, a classifier that saw them would tell more than chance."""
    draw = np.random.default_rng(0)
    features, truth = draw.normal(size=(400, 100)), draw.integers(4, size=400)
    accuracy = (cross_validated(features, truth, 5, 0).argmax(axis=1) == truth).mean()
    assert accuracy < 0.35
    with pytest.raises(ValueError, match="too few"):
        cross_validated(features[:8], truth[:8], 5, 0)


@pytest.mark.parametrize("seed", range(3))
def test_flipped_labels_are_found_and_few_others(seed: int) -> None:
    features, true = blobs(seed, 1_500, 6, 0.8)
    draw = np.random.default_rng(seed)
    flipped = draw.random(1_500) < 0.05
    labels = np.where(flipped, (true + draw.integers(1, 6, size=1_500)) % 6, true)
    found, _ = search(lambda trusted: cross_validated(features, labels, 5, seed, trusted), labels)
    assert flipped[found.raised].mean() > 0.8
    assert flipped[found.raised].sum() > 0.75 * flipped.sum()
    assert (found.suggested[found.raised] == true[found.raised]).mean() > 0.9
    assert (np.diff(found.own[found.raised]) >= 0).all()
    assert set(found.raised) <= set(found.doubted)


@pytest.mark.parametrize("classes", [2, 6])
def test_flips_are_found_where_all_rows_are_equally_easy(classes: int) -> None:
    """There a calibrated classifier expects as many mistakes as there are flips."""
    features, true = blobs(0, 1_000, classes, 0.1)
    draw = np.random.default_rng(0)
    flipped = draw.random(1_000) < 0.1
    labels = np.where(flipped, (true + draw.integers(1, classes, size=1_000)) % classes, true)
    found, accuracy = search(lambda trusted: cross_validated(features, labels, 5, 0, trusted), labels)
    assert accuracy == pytest.approx(0.9, abs=0.03)
    assert flipped[found.raised].mean() > 0.9
    assert flipped[found.raised].sum() > 0.5 * flipped.sum()


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0, 4.0, 50.0])
def test_a_hard_task_is_not_taken_for_wrong_labels(spread: float) -> None:
    """Rows that a classifier mistakes are doubted, and nothing is raised: ten clean draws of each difficulty."""
    doubted = 0
    for seed in range(10):
        features, truth = blobs(seed, 500, 4, spread)
        probabilities = cross_validated(features, truth, 5, seed)
        found, _ = search(lambda _, said=probabilities: said, truth)
        assert len(found.raised) == 0, "a false alarm"
        doubted += len(found.doubted)
    assert doubted > 0 or spread < 1.0


def test_words_tell_classes_from_the_other_rows_texts() -> None:
    texts = [f"{'good fine nice' if row % 2 else 'bad poor sad'} thing {row % 17}" for row in range(60)]
    truth = np.array([row % 2 for row in range(60)])
    assert (cross_validated_words(texts, truth, 5, 0).argmax(axis=1) == truth).all()
    pairs = [(text, "and more") for text in texts]
    assert (cross_validated_words(pairs, truth, 5, 0).argmax(axis=1) == truth).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(2, 60), st.booleans())
def test_the_area_is_scikit_learns(seed: int, many: int, few: int, ties: bool) -> None:
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(seed)
    one, other = draw.normal(size=many) + 0.5, draw.normal(size=few)
    if ties:
        one, other = np.round(one), np.round(other)
    area, low, high = area_under(one, other)
    truth = np.concatenate([np.ones(many), np.zeros(few)])
    assert area == pytest.approx(roc_auc_score(truth, np.concatenate([one, other])))
    assert 0 <= low <= area <= high <= 1


def test_the_areas_interval_holds_the_true_one_as_often_as_it_says() -> None:
    from scipy.stats import norm

    draw = np.random.default_rng(0)
    true = norm.cdf(1 / np.sqrt(2))
    inside = 0
    for _ in range(400):
        _, low, high = area_under(draw.normal(size=80) + 1, draw.normal(size=120))
        inside += low <= true <= high
    assert 0.92 <= inside / 400 <= 0.98


def test_a_leak_that_lifts_the_score_is_told_with_its_interval() -> None:
    near = [True] * 100 + [False] * 400
    hits = [1.0] * 100 + [1.0, 0.0, 1.0, 1.0] * 100
    effect = leak_effect(hits, near)
    assert effect is not None
    assert (effect.near, effect.rows) == (100, 500)
    assert effect.whole == pytest.approx(0.8)
    assert effect.unseen.value == pytest.approx(0.75)
    assert effect.gain.value == pytest.approx(0.05)
    assert effect.gain.low < 0.05 < effect.gain.high
    error = 0.2 * np.sqrt(0.75 * 0.25 / 400)  # of 0.2 times a mean of 400
    assert effect.gain.high - effect.gain.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    finding = leak_finding(effect, "accuracy", ["test.csv:2"])
    crowded = leak_finding(effect, "accuracy", ["test.csv:2"], crowded=True)
    assert finding is not None and crowded is not None and crowded.message.startswith(finding.message)
    assert CROWDED in crowded.message and CROWDED not in finding.message
    assert (finding.kind, finding.count, finding.places) == ("leak_effect", 100, ("test.csv:2",))
    assert "0.800 over all 500 and 0.750 [" in finding.message
    assert leak_effect(hits, near) == effect


def test_a_leak_without_effect_is_none() -> None:
    draw = np.random.default_rng(0)
    hits = (draw.random(500) < 0.8).astype(float)
    effect = leak_effect(hits.tolist(), [row < 100 for row in range(500)])
    assert effect is not None and not effect.material
    assert leak_finding(effect, "accuracy") is None
    assert leak_effect([1.0, 0.0], [False, False]) is None
    assert leak_effect([1.0, 0.0], [True, True]) is None
    assert leak_finding(None, "accuracy") is None
    with pytest.raises(ValueError, match="2 hits and 1 rows"):
        leak_effect([1.0, 0.0], [True])
