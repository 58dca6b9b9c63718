"""Baselines, and predictions on disk."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from tunesmith.data.table import Table
from tunesmith.evaluation.baselines import base, tfidf
from tunesmith.evaluation.baselines.base import Baseline, Part, measure_baseline
from tunesmith.evaluation.predictions import write_predictions
from tunesmith.tasks.base import Labels, Prediction, Task
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.regression import Regression

TASK = Classification()
NOTHING = Part([], [])
LABELS = Labels(("bad", "good"), (3, 3))
TEXTS = ["a fine day", "I love it", "what a mess", "this is awful", "love love", "awful mess"]
TRUTH = ["good", "good", "bad", "bad", "good", "bad"]


def measured(name: str, train: Part, test: Part, labels: Labels = LABELS, task: Task = TASK) -> Baseline:
    return measure_baseline(name, task, train, NOTHING, test, labels, 0)


def test_majority_gives_the_most_frequent_training_class_to_all() -> None:
    found = measured(
        "majority", Part(["", "", ""], ["bad", "good", "good"]), Part([""] * 4, ["good", "bad", "good", "good"])
    )
    assert found.name == "majority"
    assert found.scores.columns["predicted"].tolist() == [1, 1, 1, 1]
    assert found.scores.columns["probability"].tolist() == pytest.approx([2 / 3] * 4)
    assert found.scores.value() == 0.75
    tied = measured("majority", Part(["", ""], ["bad", "good"]), Part([""], ["good"]))
    assert tied.scores.value() == 0.0  # the first of equals


def test_tfidf_equals_scikit_learn_put_together_by_hand() -> None:
    new = ["I love a fine mess", "awful day", "so it is"]
    found = measured("tfidf", Part(TEXTS, TRUTH), Part(new, ["good", "bad", "good"]))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    # By another solver, to the same optimum.
    model = LogisticRegression(C=10.0, max_iter=1000, tol=1e-8).fit(vectorizer.fit_transform(TEXTS), TRUTH)
    shares = model.predict_proba(vectorizer.transform(new))
    assert found.scores.columns["predicted"].tolist() == shares.argmax(1).tolist()
    assert found.scores.columns["probability"] == pytest.approx(shares.max(1), abs=1e-3)
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
    rows = Part(texts, ["good", "bad", "good", "bad"])
    found = measured("tfidf", rows, rows)
    assert found.what.startswith("TF-IDF of characters")
    assert found.scores.value() == 1.0


def test_stop_words_are_words() -> None:
    train = Part(["the of", "and to", "the the", "to to"], ["good", "bad", "good", "bad"])
    assert measured("tfidf", train, Part(["of the", "and"], ["good", "bad"])).scores.value() == 1.0


def test_tiny_data_and_classes_without_training_rows() -> None:
    three = Labels(("a", "b", "c"), (1, 0, 1))
    found = measured("tfidf", Part(["x y", "z"], ["a", "c"]), Part(["x", "z", "nothing seen"], ["a", "c", "b"]), three)
    assert found.scores.columns["predicted"].tolist()[:2] == [0, 2]
    one = measured("tfidf", Part(["x", "z"], ["c", "c"]), Part(["x"], ["c"]), three)
    assert one.scores.columns["predicted"].tolist() == [2]


def test_of_pairs_it_reads_what_they_share() -> None:
    pairs = [(f"the {word} sat", f"a {other} sat") for word, other in itertools.product("abcdef", repeat=2)]
    same = ["good" if one[4] == two[2] else "bad" for one, two in pairs]
    found = measured("tfidf", Part(pairs, same), Part(pairs, same))
    assert found.scores.value() == 1.0


def test_labels_on_their_own_equal_scikit_learn_and_thresholds_are_settled() -> None:
    labels = Labels(("bad", "glad"), (3, 2), thresholds=(0.5, 0.5))
    truth = [("glad",), ("glad",), ("bad",), ("bad",), (), ("bad",)]
    train = Part(TEXTS, truth)
    new = ["I love a fine mess", "awful day"]
    test = Part(new, [("glad",), ("bad",)])
    found = measure_baseline("tfidf_labels", Multilabel(), train, train, test, labels, 0)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b").fit(TEXTS)
    model = LogisticRegression(C=10.0, solver="liblinear", random_state=0)
    bad = model.fit(words.transform(TEXTS), ["bad" in said for said in truth]).predict_proba(words.transform(new))[:, 1]
    assert found.scores.columns["probability"][:, 0] == pytest.approx(bad)
    assert found.scores.value("macro_f1") == 1.0
    frequent = measure_baseline("frequent_labels", Multilabel(), train, train, test, labels, 0)
    assert frequent.scores.columns["probability"].tolist() == [[0.5, pytest.approx(1 / 3)]] * 2
    assert frequent.scores.columns["predicted"].tolist() == [[True, True]] * 2, "saying all labels has the best F1"


def test_numbers_median_and_ridge() -> None:
    truth = [(float(len(text)),) for text in TEXTS]
    values = np.array(truth)
    labels = Labels(("n",), (6,), center=(float(values.mean()),), scale=(float(values.std()),), standardised=True)
    train = Part(TEXTS, truth)
    median = measured("median", train, train, labels, Regression())
    assert median.scores.columns["predicted"][:, 0] == pytest.approx([float(np.median(values))] * 6)
    assert median.scores.value() == 0.0, "a constant ranks nothing"
    ridge = measured("tfidf_ridge", train, train, labels, Regression())
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    features = words.fit_transform(TEXTS).toarray()
    oracle = Ridge(alpha=1.0).fit(features, values[:, 0]).predict(features)
    assert ridge.scores.columns["predicted"][:, 0] == pytest.approx(oracle, abs=0.02)


def predictions(labels: int) -> list[Prediction]:
    first = np.full(labels, 0.1 / (labels - 1))
    first[1] = 0.9
    return [Prediction(1, "l1", tuple(first)), Prediction(0, "l0", (1.0,) + (0.0,) * (labels - 1))]


def test_predictions_are_written_in_row_order_with_their_lines(tmp_path: Path) -> None:
    table = Table("t.csv", {"text": ["one", "half \ud83d emoji"]}, (2, 5))
    path = tmp_path / "predictions" / "test.parquet"
    found = predictions(2)
    said = TASK.columns(found, Labels(("l0", "l1"), (1, 1)))
    write_predictions(path, table, ["text"], ["l0", "l1"], found, said)
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
    labels = Labels(tuple(f"l{place}" for place in range(77)), (1,) * 77)
    table = Table("t.csv", {"text": ["one", "two"], "pair": ["1", "2"]}, (2, 3))
    path = tmp_path / "p.parquet"
    found = predictions(77)
    write_predictions(path, table, ["text", "pair"], None, found, TASK.columns(found, labels))
    written = parquet.read_table(path)
    assert written.column_names == ["row", "line", "text", "pair", "truth", "label", "probability", "p:"]
    assert written["truth"].to_pylist() == [None, None]
    assert written["p:"][1].as_py()[1] == pytest.approx(0.9)


def test_truth_of_another_length_is_refused(tmp_path: Path) -> None:
    table = Table("t.csv", {"text": ["one", "two"]}, (2, 3))
    with pytest.raises(ValueError, match="1 true labels for 2"):
        write_predictions(tmp_path / "p.parquet", table, ["text"], ["l0"], predictions(2), {})


def test_of_very_many_rows_a_baseline_learns_from_some_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"good thing {place}" if place % 2 else f"bad thing {place}" for place in range(40)]
    truth = ["l1" if place % 2 else "l0" for place in range(40)]
    labels = Labels(("l0", "l1"), (20, 20))
    whole, test = Part(texts, truth), Part(["a good one", "a bad one"], ["l1", "l0"])
    all_rows = measure_baseline("tfidf", TASK, whole, Part([], []), test, labels, 0)
    monkeypatch.setattr(base, "MOST_ROWS", 10)
    some = measure_baseline("tfidf", TASK, whole, Part([], []), test, labels, 0)
    again = measure_baseline("tfidf", TASK, whole, Part([], []), test, labels, 0)
    assert some.what == f"{all_rows.what}, on 10 of the 40 training rows"
    assert some.scores.value() == all_rows.scores.value() == 1.0
    assert np.array_equal(some.scores.columns["probability"], again.scores.columns["probability"])
    assert not np.array_equal(some.scores.columns["probability"], all_rows.scores.columns["probability"])


def test_tfidf_of_many_classes_keeps_to_its_most_frequent_features(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"good thing {place}" if place % 2 else f"bad thing {place}" for place in range(40)]
    train = Part(texts, ["l1" if place % 2 else "l0" for place in range(40)])
    test, labels = Part(["a good one", "a bad one"], ["l1", "l0"]), Labels(("l0", "l1"), (20, 20))
    whole = measure_baseline("tfidf", TASK, train, Part([], []), test, labels, 0)
    monkeypatch.setattr(tfidf, "MOST_WEIGHTS", 10)
    found = measure_baseline("tfidf", TASK, train, Part([], []), test, labels, 0)
    assert found.what == f"{whole.what} of its 5 most frequent features"
    assert found.scores.value() == 1.0
