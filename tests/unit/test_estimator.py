"""The scikit-learn classifier: its contract by scikit-learn's own checks, its predictions by those of `finetune`."""

from __future__ import annotations

import copy
import csv
import gc
import os
import pickle
import pickletools
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, issparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks as checks

import tunesmith
from families import WORDS
from tunesmith._kept_model import KeptModel
from tunesmith._texts_and_labels import names_of
from tunesmith.estimator import TextClassifier

Quick = Callable[..., TextClassifier]
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
KINDS = ("good great film", "bad poor lost", "card bank money")
TEXTS = [f"{kind} {WORDS[7 * row]}" for row in range(5) for kind in KINDS]
LABELS = ["praise", "blame", "money"] * 5

NO_FEATURES = "a text has no number of features, so none is stored or compared"
EXPECTED = {
    "check_n_features_in_after_fitting": NO_FEATURES,
    "check_n_features_in": NO_FEATURES,
    "check_fit2d_predict1d": "a row of numbers is refused as no text, where the check wants advice on reshaping numbers",
    "check_classifiers_train": NO_FEATURES + "; all else of this check is made in test_learns",
    "check_estimators_empty_data_messages": "rows without features are empty texts, and are refused as such",
    "check_estimators_nan_inf": "infinity is no text; a missing text is refused in test_wrong_rows",
}
# Compared there to 1e-7, which is one rounding of float32; with a tolerance for it in test_same_as_finetune.
ROUNDED = ("check_methods_subset_invariance", "check_methods_sample_order_invariance")


def as_texts(rows: Any) -> Any:
    """Rows of numbers as texts of one word a number; what is no such rows stays, for the estimator to refuse."""
    if issparse(rows):
        return rows
    array = np.asarray(rows)
    if array.ndim != 2 or array.dtype.kind not in "fiuO":
        return rows
    bins = np.clip(np.nan_to_num(array.astype(np.float64).round()), -6, 5).astype(int) + 6
    return [" ".join(WORDS[(12 * place + value) % len(WORDS)] for place, value in enumerate(row)) for row in bins]


class RowsAsTexts(TextClassifier):
    """scikit-learn's checks are made of rows of numbers; everything but the way from numbers to texts is the original."""

    counts_features = True

    def fit(self, X: Any, y: Any) -> RowsAsTexts:
        super().fit(as_texts(X), y)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        return super().predict_proba(as_texts(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.no_validation = not self.counts_features
        tags.input_tags.string, tags.input_tags.one_d_array, tags.input_tags.two_d_array = False, False, True
        return tags


class UncheckedRows(RowsAsTexts):
    counts_features = False


@pytest.fixture
def quick(model_folder: Callable[[str], Path]) -> Quick:
    """The cheapest estimator that is whole: the head alone, by its probe."""

    def made(**changed: Any) -> TextClassifier:
        usual = {"method": "head", "epochs": 0, "validation": 0, "precision": "float32", "device": "cpu"}
        return TextClassifier(str(model_folder("sentence")), **{**usual, **changed})

    return made


def test_import_is_light() -> None:
    code = "import sys, tunesmith.estimator as e; e.TextClassifier(); assert not {'torch', 'transformers'} & {*sys.modules}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


DIRECT = (
    "estimator_cloneable", "estimator_tags_renamed", "valid_tag_types", "estimator_repr", "no_attributes_set_in_init",
    "do_not_raise_errors_in_init_or_set_params", "parameters_default_constructible", "mixin_order",
    "get_params_invariance", "set_params", "estimators_unfitted", "estimator_sparse_tag", "estimator_sparse_matrix",
    "complex_data", "fit1d", "requires_y_none", "supervised_y_no_nan", "classifiers_regression_target",
)  # fmt: skip


@pytest.mark.parametrize("name", DIRECT)
def test_checks_that_fit_no_numbers(quick: Quick, name: str) -> None:
    getattr(checks, f"check_{name}")("TextClassifier", quick())
    with pytest.warns(SkipTestWarning, match="requires input"):
        checks.check_estimator(quick())  # what is left of it for an estimator of texts passes as it is


@pytest.mark.filterwarnings("ignore")
def test_checks_with_numbers_as_texts(quick: Quick) -> None:
    """Every check of scikit-learn: those of EXPECTED fail, and only those."""
    estimator = RowsAsTexts(**quick().get_params())
    results = checks.check_estimator(estimator, expected_failed_checks=EXPECTED, on_fail=None, on_skip=None)
    status = {item["check_name"]: item["status"] for item in results}
    failed = {item["check_name"]: item["exception"] for item in results if item["status"] == "failed"}
    assert {name: error for name, error in failed.items() if name not in ROUNDED} == {}
    assert {name for name in status if status[name] == "xfail"} == EXPECTED.keys() & status.keys()
    assert sum(item["status"] == "passed" for item in results) >= 40


@pytest.mark.filterwarnings("ignore")
def test_learns(quick: Quick) -> None:
    """scikit-learn's own check of training: accuracy, shapes, probabilities that sum to 1, lists as well as arrays."""
    estimator = quick(method="full", epochs=4, rate=2e-3)
    checks.check_classifiers_train("UncheckedRows", UncheckedRows(**estimator.get_params()))


def test_same_as_finetune(quick: Quick, tmp_path: Path) -> None:
    further = {"training": {"dropout": 0.3}, "task.label_smoothing": 0.1}
    estimator = quick(method="full", epochs=1, rate=1e-3, batch_size=5, random_state=7, settings=further)
    found = estimator.fit(TEXTS, np.array(LABELS)).predict_proba(TEXTS)
    settings = {
        "data.test": 0, "data.validation": 0, "training.epochs": 1, "training.rate": 1e-3, "training.batch_size": 5,
        "training.precision": "float32", "training.device": "cpu", "training.dropout": 0.3,
        "task": {"name": "classification", "label_smoothing": 0.1},
    }  # fmt: skip
    rows = {"text": TEXTS, "label": LABELS}
    run = tunesmith.finetune(estimator.model, rows, "full", settings=settings, seed=7, out=tmp_path / "run")
    np.testing.assert_allclose(found, run.load().predict_proba(TEXTS), rtol=0, atol=1e-6)
    alone = [estimator.predict_proba([text])[0] for text in reversed(TEXTS)]
    np.testing.assert_allclose(found[::-1], alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-15)
    assert estimator.classes_.tolist() == ["blame", "money", "praise"]
    assert estimator.predict(TEXTS).tolist() == estimator.classes_[found.argmax(axis=1)].tolist()
    assert estimator.predictor_.predict(TEXTS) == estimator.predict(TEXTS).tolist()


CLASSES = (
    np.array(["z", "a"]), np.array([-1, 10, 9]), np.array([True, False]), np.array([2.0, 10.0]),
    np.array([" a", "a", "\ud800"], dtype=object), np.array([7, 300], dtype=np.uint16),
)  # fmt: skip


@pytest.mark.parametrize("classes", CLASSES, ids=lambda classes: str(classes.tolist()))
def test_classes_come_back_as_they_went_in(quick: Quick, classes: np.ndarray) -> None:
    picks = np.arange(len(TEXTS)) % 3 % len(classes)
    estimator = quick().fit(np.array(TEXTS), classes[picks])
    assert estimator.classes_.tolist() == sorted(classes.tolist())
    found = estimator.predict(KINDS)
    assert estimator.classes_.dtype == found.dtype == classes.dtype
    if len(classes) == 3:
        assert found.tolist() == classes.tolist()


@given(st.one_of(st.sets(st.text(max_size=4), min_size=2), st.sets(st.integers(-99, 99), min_size=2),
                 st.sets(st.integers(-9, 9).map(float), min_size=2)))  # fmt: skip
def test_names_tell_classes_apart(values: set[Any]) -> None:
    from tunesmith.data.targets.one_class import label_of

    names = names_of(np.unique(np.array(sorted(values), dtype=object)))
    assert len({label_of(name) for name in names}) == len(values)
    assert [label_of(name) for name in names] == names


WRONG_TEXTS = [
    ("one text", "not str; put the texts in a list"), ({"a": "b"}, "not dict"), (csr_matrix((3, 3)), "sparse"),
    (np.array([["a"], ["b"]]), r"shape \(2, 1\); give one column"), (pd.DataFrame({"t": ["a", "b"]}), "give one column"),
    ([], "0 samples"), (["a", None, 3], r"X\[1\] is missing, X\[2\] is a int; drop"),
    (pd.Series(["a", np.nan]), r"X\[1\] is missing"), (["a", "\ud800"], r"surrogate \(X\[1\]\)"),
    ([["a", "b"]], r"X\[0\] is a list"),
]  # fmt: skip
WRONG_LABELS = [
    (["only"] * 15, r"one class only \('only', 15 rows\)"), ([0, 1], "inconsistent numbers of samples"),
    (["a", None] * 7 + ["b"], r"7 of 15 labels are missing \(y\[1\], y\[3\]"), ([1, "1", 2] * 5, "5 of 15 labels are str"),
    (["a", float("nan")] * 7 + ["b"], "7 of 15 labels are missing"), ([0.5, 1.5, 2.5] * 5, "continuous"),
    (np.zeros((15, 2)), "1d array"),
]  # fmt: skip


WRONG_ROWS = [(X, [0, 1], said) for X, said in WRONG_TEXTS] + [(TEXTS, y, said) for y, said in WRONG_LABELS]
MUTE = ([" ", "a", "b", "c"], ["x", "y", "z", "y"], "every text of class 'x' is empty")


@pytest.mark.parametrize(("X", "y", "said"), [*WRONG_ROWS, MUTE])
def test_wrong_rows(quick: Quick, X: Any, y: Any, said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        quick().fit(X, y)


WRONG_PARAMETERS = [
    ({"rate": -1.0}, "training.rate"), ({"method": "lorra"}, '"lorra"; did you mean "lora"'), ({"model": None}, "not None"),
    ({"model": "/no/such/model"}, "no such folder"), ({"random_state": -1}, "seed"), ({"folder": __file__}, "cannot be made"),
    ({"settings": {"training.epochs": 3, "seed": 1}}, "by the parameter epochs; give it there\n.*random_state"),
    ({"settings": {"data.test": 0.1}}, "no test rows"), ({"settings": {"trainig.clip": 1}}, 'did you mean "training"'),
    ({"settings": {"training.klip": 1}}, 'did you mean "clip"'), ({"settings": ["clip"]}, "expected a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("changed", "said"), WRONG_PARAMETERS)
def test_wrong_parameters(quick: Quick, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        quick().set_params(**changed).fit(TEXTS, LABELS)


def test_says_what_was_found(quick: Quick) -> None:
    with pytest.warns(UserWarning) as caught:
        quick(validation="auto", max_length=4).fit(["", *TEXTS], ["money", *LABELS])
    said = "\n".join(str(item.message) for item in caught)
    assert "1 row: " in said and "is empty; dropped" in said
    assert "15 of 15 rows are longer than 4 tokens" in said
    assert "16 rows are too few to hold some out" in said


def test_validation_is_held_out_where_there_is_enough(quick: Quick, tmp_path: Path) -> None:
    texts = [f"{kind} {word} {other}" for word in WORDS[:9] for other in WORDS[:8] for kind in KINDS]  # 216
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        estimator = quick(validation="auto", folder=tmp_path).fit(texts, LABELS[:3] * 72)
    recipe = (Path(str(estimator.run_folder_)) / "recipe.yaml").read_text(encoding="utf-8")
    assert "validation: 0.1\n" in recipe and "test: 0.0\n" in recipe


def test_pickle_copy_clone(quick: Quick, tmp_path: Path) -> None:
    unfitted = pickle.loads(pickle.dumps(quick(random_state=3)))
    assert unfitted.get_params() == quick(random_state=3).get_params()
    estimator = quick(folder=tmp_path / "runs").fit(pd.Series(TEXTS), pd.Series(LABELS))
    expected = estimator.predict_proba(TEXTS)
    stored, twin = pickle.dumps(estimator), copy.deepcopy(estimator)
    words = {argument for _, argument, _ in pickletools.genops(stored) if isinstance(argument, str)}
    assert "config.json" in words and not any(word.startswith(("torch", "transformers")) for word in words)
    (tmp_path / "runs").rename(tmp_path / "gone")
    for copied in (pickle.loads(stored), pickle.loads(pickle.dumps(pickle.loads(stored))), twin):
        assert copied.classes_.tolist() == estimator.classes_.tolist()
        np.testing.assert_array_equal(copied.predict_proba(TEXTS), expected)
    for use in (clone(estimator).predict, unfitted.predict_proba, lambda _: unfitted.predictor_):
        with pytest.raises(NotFittedError):
            use(TEXTS)


def test_leaves_nothing_behind(quick: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    estimator = quick().fit(TEXTS, LABELS)
    assert estimator.run_folder_ is None
    assert [path.name for home in tmp_path.iterdir() for path in home.iterdir()] == ["model"]
    other = pickle.loads(pickle.dumps(estimator))
    other.predict(TEXTS)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="at once"):
        estimator.set_params(settings={"training.micro_batch": 99}).fit(TEXTS, LABELS)
    assert estimator.predict(TEXTS[:1]).tolist() == LABELS[:1]  # the fit before it still holds
    del estimator, other
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_each_fit_keeps_its_own_run(quick: Quick, tmp_path: Path) -> None:
    estimator = quick(folder=tmp_path / "runs")
    folders = [Path(str(estimator.fit(TEXTS, LABELS).run_folder_)) for _ in range(2)]
    assert folders == [tmp_path / "runs" / "fit-1", tmp_path / "runs" / "fit-2"]
    first = tunesmith.load(folders[0])
    np.testing.assert_allclose(first.predict_proba(TEXTS), estimator.predict_proba(TEXTS), atol=1e-7)
    with pytest.raises(ValueError, match="at once"):
        clone(estimator).set_params(settings={"training.micro_batch": 99}).fit(TEXTS, LABELS)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["fit-1", "fit-2"]


def test_random_state(quick: Quick) -> None:
    def fitted(state: Any) -> np.ndarray:
        estimator = quick(method="full", epochs=1, rate=1e-3, batch_size=5, random_state=state)
        return estimator.fit(TEXTS, LABELS).predict_proba(TEXTS)

    first, before = fitted(1), np.random.get_state()[1].copy()
    np.testing.assert_array_equal(fitted(np.int64(1)), first)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    assert np.abs(fitted(2) - first).max() > 1e-6
    np.testing.assert_array_equal(fitted(np.random.RandomState(5)), fitted(np.random.RandomState(5)))


def test_pipeline_grid_search_cross_validation(quick: Quick) -> None:
    pipeline = make_pipeline(FunctionTransformer(lambda texts: [text.lower() for text in texts]), quick())
    upper = np.array([text.upper() for text in TEXTS])
    scores = cross_val_score(pipeline, upper, LABELS, cv=3, error_score="raise")
    assert scores.mean() >= 0.8
    grid = {"textclassifier__method": ["head", {"name": "lora", "rank": 2}], "textclassifier__epochs": [1]}
    search = GridSearchCV(pipeline, grid, cv=2, error_score="raise", scoring="neg_log_loss").fit(upper, LABELS)
    assert search.cv_results_["mean_test_score"].shape == (2,)
    assert search.best_params_["textclassifier__method"] in grid["textclassifier__method"]
    assert search.best_estimator_.predict(upper).tolist() == LABELS
    assert pipeline[-1].method == "head" and grid["textclassifier__method"][1] == {"name": "lora", "rank": 2}


@pytest.mark.real
def test_real_model_tells_intents_apart() -> None:
    path = SHARED / "banking77" / "train.csv"
    if not path.exists():
        if os.environ.get("CI"):
            pytest.fail(f"{path} is absent, and CI must have it")
        pytest.skip(f"{path} is absent")
    with path.open(encoding="utf-8", newline="") as rows:
        found = [(row["text"], row["category"]) for row in csv.DictReader(rows)]
    wanted = ("card_arrival", "exchange_rate", "atm_support", "age_limit", "lost_or_stolen_card")
    texts, labels = zip(*[row for label in wanted for row in found if row[1] == label][::4], strict=True)
    scores = cross_val_score(TextClassifier(method="head", epochs=1), texts, labels, cv=3, error_score="raise")
    assert scores.mean() >= 0.95


def test_predicts_on_the_device_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("tunesmith.predictor.load", lambda folder, device="auto": asked.append(device))
    kept = KeptModel(tmp_path, "cpu")
    kept.predictor()
    pickle.loads(pickle.dumps(kept)).predictor()
    assert asked == ["cpu", "cpu"]
