"""How well each row was done: together these measures are the metrics, and they stand in predictions/ row by row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from sklearn.metrics import f1_score

from shortruns import METHODS, recipe_for
from tunesmith.data.answer_columns import Answer
from tunesmith.data.targets.tags import Entity
from tunesmith.pipeline import start
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.causal_lm import CausalLm
from tunesmith.tasks.classification import Classification
from tunesmith.tasks.embedding import Embedding
from tunesmith.tasks.instruction import Instruction
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.question_answering import QuestionAnswering, Reply
from tunesmith.tasks.regression import Regression
from tunesmith.tasks.token_classification import Span, TokenClassification


def test_of_classes() -> None:
    found = [Prediction(row, name, (0.6, 0.4)) for row, name in enumerate("aabb")]
    scores = Classification().score(found, ["a", "b", "b", "b"], Labels(("a", "b"), (2, 2)))
    assert scores.each["accuracy"].tolist() == [1, 0, 1, 1]
    assert scores.each["accuracy"].mean() == scores.value("accuracy")


def test_of_sets_of_labels() -> None:
    labels = Labels(("a", "b", "c"), (1, 1, 1), thresholds=(0.5, 0.5, 0.5))
    said, truth = [("a",), ("a", "b"), (), ("c",), ()], [("a",), ("b", "c"), (), (), ("a",)]
    scores = Multilabel().score([Prediction(row, value, (0.5,) * 3) for row, value in enumerate(said)], truth, labels)
    oracle = f1_score(scores.columns["truth"], scores.columns["predicted"], average="samples", zero_division=1)  # pyright: ignore[reportArgumentType]
    assert scores.each["exact_match"].tolist() == [1, 0, 1, 0, 0]
    assert scores.each["f1"].mean() == pytest.approx(oracle)


def test_of_numbers() -> None:
    labels = Labels(("up", "down"), (2, 2), center=(0.0, 0.0), scale=(1.0, 2.0), standardised=True)
    found = [Prediction(0, (1.0, 2.0), (1.0, 1.0)), Prediction(1, (3.0, 2.0), (3.0, 1.0))]
    scores = Regression().score(found, [(0.0, 2.0), (4.0, 5.0)], labels)
    assert {name: values.tolist() for name, values in scores.each.items()} == {
        "difference of up": [1, -1],
        "difference of down": [0, -3],
    }
    alone = Labels(("up",), (2,), center=(0.0,), scale=(1.0,), standardised=True)
    one = Regression().score([Prediction(0, 1.5, (1.5,)), Prediction(1, 2.0, (2.0,))], [(1.0,), (4.0,)], alone)
    assert np.sqrt((one.each["difference"] ** 2).mean()) == pytest.approx(one.value("rmse"))


def test_of_entities() -> None:
    labels = Labels(("O", "B-x", "I-x"), (9, 2, 1))
    found = [
        Prediction(0, (Span(0, 3, "x", 0.9, "Ann", (0, 1)), Span(4, 6, "x", 0.5, "is", (1, 2))), ()),
        Prediction(1, (), ()),
        Prediction(2, (), ()),
    ]
    scores = TokenClassification().score(found, [(Entity(0, 3, "x"),), (), (Entity(0, 2, "x"),)], labels)
    first, second, third = scores.each["entity_f1"]
    assert (first, second, third) == (pytest.approx(2 / 3), 1.0, 0.0), (
        "of the second nothing is to be said, and nothing is"
    )


def test_of_answers() -> None:
    found = [
        Prediction(row, Reply(text, 0, len(text), 0.9, text), (0.5, 0.5))
        for row, text in enumerate(["a cat", "", "on"])
    ]
    truth = [(Answer(0, 9, "black cat"),), (), (Answer(4, 6, "on"),)]
    scores = QuestionAnswering().score(found, truth, Labels(("start", "end"), (2, 1), (0.5,), longest=6))
    assert scores.each["exact_match"].tolist() == [0, 1, 1]
    assert scores.each["f1"].tolist() == pytest.approx([2 / 3, 1, 1])
    assert scores.each["f1"].mean() == scores.value("f1")


def test_of_tokens_and_of_what_was_written() -> None:
    labels = Labels((), ())
    found = [Prediction(0, None, (2.0,), counts=(10, 4)), Prediction(1, None, (0.0,), counts=(0, 0))]
    scores = CausalLm().score(found, ["ten tokens", "none"], labels)
    loss, accuracy = scores.each["loss"], scores.each["token_accuracy"]
    assert (loss[0], accuracy[0]) == (2.0, 0.4) and np.isnan(loss[1]) and np.isnan(accuracy[1])
    from tunesmith.data.conversation import Conversation, Turn

    truth = [Conversation((Turn("user", "and?"), Turn("assistant", said))) for said in ("yes", "no", "so")]
    counts = (2, 1, 0, 0)
    written = [
        Prediction(0, "yes", (1.0,), counts=counts),
        Prediction(1, "yes", (1.0,), counts=counts),
        Prediction(2, None, (1.0,), counts=counts[:2]),
    ]
    scores = Instruction(template="plain").score(written, truth, labels)
    exact = scores.each["exact_match"]
    assert exact[:2].tolist() == [1, 0] and np.isnan(exact[2]), "nothing was written for the third"
    assert np.nanmean(exact) == scores.value("exact_match")


def test_they_stand_in_the_predictions(model_folder: Callable[[str], Path], table_file: Path, tmp_path: Path) -> None:
    list(start(recipe_for(model_folder("bert"), table_file, METHODS["head"]), tmp_path / "run").events())
    for split in ("validation", "test"):
        rows = parquet.read_table(tmp_path / "run" / "predictions" / f"{split}.parquet").to_pylist()
        assert rows and all(row["metric:accuracy"] == (row["label"] == row["truth"]) for row in rows)
        assert {row["metric:accuracy"] for row in rows} == {0.0, 1.0}, "both kinds are among them"


def test_of_vectors() -> None:
    others = [[0.9, *[-2.0] * 9], [0.99] * 10, [0.1] * 10]
    found = [Prediction(row, 0.95, (0.95, *rivals)) for row, rivals in enumerate(others)]
    scores = Embedding().score(found, [None] * 3, Labels((), ()))
    assert scores.each["mrr_at_10"].tolist() == [1, 0, 1]
    assert scores.each["mrr_at_10"].mean() == scores.value("mrr_at_10")
    labels = Labels(("score",), (2,), center=(0.0,), scale=(5.0,))
    scored = [Prediction(0, 0.75, (0.75,)), Prediction(1, 0.5, (0.5,))]
    assert Embedding().score(scored, [(2.5,), (5.0,)], labels).each["difference"].tolist() == [0.25, -0.5]
