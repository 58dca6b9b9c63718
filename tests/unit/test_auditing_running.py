"""The audit within a run: told before training, kept in the report, left out of a quick one."""

from __future__ import annotations

import csv
import html
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shortruns import recipe_for, rows
from tunesmith import finetune
from tunesmith.auditing import running
from tunesmith.auditing.running import leaked
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.kept_scores import read_scores
from tunesmith.pipeline import start
from tunesmith.predictor import Card
from tunesmith.preparing import prepare
from tunesmith.tasks._metrics import accuracy
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Note, StepDone

Folder = Callable[[str], Path]


def given_away(folder: Path) -> Path:
    """A table with a column that says the label, and one that is always the same."""
    path = folder / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        table = [(text, label, f"code-{label}", "x") for text, label in rows(160)]
        csv.writer(out).writerows([("text", "label", "code", "origin"), *table])
    return path


def test_it_is_told_before_the_first_step_and_stands_in_the_report(model_folder: Folder, tmp_path: Path) -> None:
    settings = {"training.epochs": 1, "evaluation.resamples": 100}
    recipe = recipe_for(model_folder("sentence"), given_away(tmp_path), "full", settings)
    events = list(start(recipe, tmp_path / "run").events())
    topics = [
        event.topic if isinstance(event, Note) else "step" for event in events if isinstance(event, Note | StepDone)
    ]
    assert topics.index("audit") < topics.index("step")
    (told,) = [event for event in events if isinstance(event, Note) and event.topic == "audit"]
    assert any('"code"' in line for line in told.lines)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert told.lines[-1].startswith("not examined: ") and "languages (tunesmith audit tells them)" in told.lines[-1]
    assert report["data"]["unexamined"] == [told.lines[-1]]
    assert "Not examined: " in (tmp_path / "run" / "report.html").read_text()
    kinds = [item["kind"] for item in report["findings"]]
    assert any("give" in kind for kind in kinds) and any("constant" in kind for kind in kinds), kinds
    found = next(item for item in report["findings"] if "give" in item["kind"])
    assert found["advice"] and len(found["examples"]) <= 3
    page = html.unescape((tmp_path / "run" / "report.html").read_text())
    assert found["advice"][1:] in page  # which begins it with a capital


def test_a_quick_run_has_none(model_folder: Folder, tmp_path: Path) -> None:
    settings = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.quick": True}
    run = finetune(str(model_folder("sentence")), given_away(tmp_path), "full", settings=settings, out=tmp_path / "run")
    kinds = [item["kind"] for item in run.report["findings"]]
    assert not any("give" in kind for kind in kinds)
    assert run.report["evidence"] == {}
    assert "nothing was examined, as evaluation.quick asks" in run.report["data"]["unexamined"][0]


def test_labels_of_too_many_rows_are_said_to_be_left_out(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "MOST_ROWS", 100)
    settings = {"training.epochs": 1, "evaluation.resamples": 100}
    recipe = recipe_for(model_folder("sentence"), given_away(tmp_path), "head", settings)
    list(start(recipe, tmp_path / "run").events())
    (said,) = json.loads((tmp_path / "run" / "report.json").read_text())["data"]["unexamined"]
    assert "label errors (more than " in said


def test_copies_of_training_rows_that_lift_the_score_are_told(model_folder: Folder, tmp_path: Path) -> None:
    long = [
        (f"{text} and the {place} card of the bank was lost again today", label)
        for place, (text, label) in enumerate(rows(200))
    ]
    copied = [(f"{text} now", label) for text, label in long[:40]]
    fresh = [
        (f"quite another {place} thing that nobody {text} said before", label)
        for place, (text, label) in enumerate(rows(60, 9))
    ]
    for name, part in (("train", long), ("test", [*copied, *fresh])):
        (tmp_path / "data").mkdir(exist_ok=True)
        with (tmp_path / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label"), *part])
    recipe = recipe_for(model_folder("sentence"), tmp_path / "data", "full", {})
    prepared = prepare(recipe)
    tested = len(prepared.splits.test)
    right = np.array([text.endswith(" now") or row % 3 == 0 for row, text in enumerate(prepared.texts("test"))])
    scores = scores_of(right)
    near, far = (replace(scores, each={"accuracy": right}) for right in (right, ~right))
    rivals = [Baseline("a", "what copies", near, 0.0), Baseline("b", "what does not", far, 0.0)]
    (found,) = leaked(recipe, prepared, scores, rivals)
    assert found.kind == "leak_effect" and 30 <= found.count <= 40  # of 40 copies, each a word longer
    # The rival that is wrong where the model is right: of the copies none, of the others two of three.
    others = [alike not in found.places for alike in map(prepared.splits.test.place, range(tested))]
    assert f"the best rival without them is what does not, with {(~right)[others].mean():.3f}" in found.message
    assert leaked(recipe, prepared, scores_of(np.arange(tested) % 2 == 0), []) == []
    other = replace(scores, each={"accuracy": np.zeros(tested)})
    assert leaked(recipe, prepared, other, []) == [], "not of a metric that is another mean"


def scores_of(right: np.ndarray) -> Scores:
    columns = {"truth": np.zeros(len(right), dtype=np.int64), "predicted": (~right).astype(np.int64)}
    return Scores(columns, {"accuracy": accuracy}, "accuracy", each={"accuracy": right.astype(float)})


def test_the_scores_of_rivals_are_kept(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.baselines": True}
    run = finetune(str(model_folder("sentence")), table_file, "full", settings=settings, out=tmp_path / "run")
    card = Card.read(run.path / "model")
    for rival in run.report["baselines"]:
        path = run.path / "predictions" / "rivals" / f"{rival['name']}.safetensors"
        found = read_scores(path, lambda columns: card.task.functions(columns, card.labels))
        assert found.value("accuracy") == rival["metrics"]["accuracy"]["value"]
