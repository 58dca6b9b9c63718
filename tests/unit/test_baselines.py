"""Baselines, and predictions on disk."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from tunesmith.data.table import Table
from tunesmith.evaluation.baselines import majority, tfidf_logistic
from tunesmith.evaluation.predictions import write_predictions
from tunesmith.tasks._metrics import accuracy, macro_f1
from tunesmith.tasks.base import Prediction

LABELS = ("bad", "good")
METRICS = {"accuracy": accuracy, "macro_f1": partial(macro_f1, classes=2)}
TEXTS = ["a fine day", "I love it", "what a mess", "this is awful", "love love", "awful mess"]
TRUTH = [1, 1, 0, 0, 1, 0]


def test_majority_gives_the_most_frequent_training_class_to_all() -> None:
    found = majority([0, 1, 1], [1, 0, 1, 1], LABELS, METRICS, "accuracy")
    assert found.name == "majority"
    assert found.scores.columns["predicted"].tolist() == [1, 1, 1, 1]
    assert found.scores.columns["probability"].tolist() == pytest.approx([2 / 3] * 4)
    assert found.scores.value() == 0.75
    assert majority([0, 1], [1], LABELS, METRICS, "accuracy").scores.value() == 0.0  # the first of equals


def test_tfidf_logistic_equals_scikit_learn_put_together_by_hand() -> None:
    new = ["I love a fine mess", "awful day", "so it is"]
    found = tfidf_logistic(TEXTS, TRUTH, new, [1, 0, 1], LABELS, METRICS, "accuracy", seed=0)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    model = LogisticRegression(C=10.0, max_iter=1000).fit(vectorizer.fit_transform(TEXTS), TRUTH)
    shares = model.predict_proba(vectorizer.transform(new))
    assert found.scores.columns["predicted"].tolist() == shares.argmax(1).tolist()
    assert found.scores.columns["probability"] == pytest.approx(shares.max(1))
    assert found.what == "TF-IDF with logistic regression"


@pytest.mark.parametrize(
    "texts",
    [
        ["!!!", "???", "!!", "??"],
        ["好极了真的非常好用我喜欢这个", "太差了我要退货不会再买这个", "好用", "退货"],
        ["!", "?", " !", " ?"],
    ],
)
def test_texts_without_words_are_read_by_characters(texts: list[str]) -> None:
    found = tfidf_logistic(texts, [1, 0, 1, 0], texts, [1, 0, 1, 0], LABELS, METRICS, "accuracy", seed=0)
    assert found.what.startswith("TF-IDF of characters")
    assert found.scores.value() == 1.0


def test_stop_words_are_words() -> None:
    texts = ["the of", "and to", "the the", "to to"]
    found = tfidf_logistic(texts, [1, 0, 1, 0], ["of the", "and"], [1, 0], LABELS, METRICS, "accuracy", seed=0)
    assert found.scores.value() == 1.0


def test_tiny_data_and_classes_without_training_rows() -> None:
    three = ("a", "b", "c")
    metrics = {"accuracy": accuracy}
    found = tfidf_logistic(["x y", "z"], [0, 2], ["x", "z", "nothing seen"], [0, 2, 1], three, metrics, "accuracy", 0)
    assert found.scores.columns["predicted"].tolist()[:2] == [0, 2]
    one = tfidf_logistic(["x", "z"], [2, 2], ["x"], [2], three, metrics, "accuracy", 0)
    assert one.scores.columns["predicted"].tolist() == [2]


def predictions(labels: int) -> list[Prediction]:
    first = np.full(labels, 0.1 / (labels - 1))
    first[1] = 0.9
    return [Prediction(1, "l1", tuple(first)), Prediction(0, "l0", (1.0,) + (0.0,) * (labels - 1))]


def test_predictions_are_written_in_row_order_with_their_lines(tmp_path: Path) -> None:
    table = Table("t.csv", {"text": ["one", "half \ud83d emoji"]}, (2, 5))
    path = tmp_path / "predictions" / "test.parquet"
    write_predictions(path, table, "text", ["l0", "l1"], predictions(2), ("l0", "l1"))
    rows = parquet.read_table(path).to_pylist()
    assert [row["row"] for row in rows] == [0, 1]
    assert [row["line"] for row in rows] == [2, 5]
    assert [row["text"] for row in rows] == ["one", "half ? emoji"]
    assert [row["truth"] for row in rows] == ["l1", "l0"]
    assert [row["label"] for row in rows] == ["l0", "l1"]
    assert rows[1]["probability"] == pytest.approx(0.9)
    assert (rows[1]["p:l0"], rows[1]["p:l1"]) == pytest.approx((0.1, 0.9))
    assert [item.name for item in path.parent.iterdir()] == ["test.parquet"]


def test_many_labels_share_one_column_and_truth_may_be_unknown(tmp_path: Path) -> None:
    labels = tuple(f"l{place}" for place in range(77))
    table = Table("t.csv", {"text": ["one", "two"]}, (2, 3))
    path = tmp_path / "p.parquet"
    write_predictions(path, table, "text", None, predictions(77), labels)
    written = parquet.read_table(path)
    assert written.column_names == ["row", "line", "text", "truth", "label", "probability", "probabilities"]
    assert written["truth"].to_pylist() == [None, None]
    assert written["probabilities"][1].as_py()[1] == pytest.approx(0.9)
    assert json.loads((written.schema.metadata or {})[b"tunesmith.labels"]) == list(labels)


def test_truth_of_another_length_is_refused(tmp_path: Path) -> None:
    table = Table("t.csv", {"text": ["one", "two"]}, (2, 3))
    with pytest.raises(ValueError, match="1 true labels for 2"):
        write_predictions(tmp_path / "p.parquet", table, "text", ["l0"], predictions(2), ("l0", "l1"))
