"""What is trained and measured is to have its report, whatever an examination or a drawing of it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import recipe_for, rows
from tunesmith import finetune
from tunesmith.evaluation.page import render
from tunesmith.evidence import health
from tunesmith.pipeline import start
from tunesmith.training.events import Finished

Folder = Callable[[str], Path]


def broken(*_: object) -> str:
    raise KeyError("no such thing")


def test_an_examination_that_fails_is_told_and_the_others_stand(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "gather", broken)
    recipe = recipe_for(model_folder("sentence"), table_file, "full", {"training.epochs": 1})
    assert isinstance(list(start(recipe, tmp_path / "run").events())[-1], Finished)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    (found,) = [item for item in report["findings"] if item["kind"] == "unexamined"]
    assert found["message"].startswith("health: could not be examined (KeyError")
    assert report["evidence"]["calibration"], "what does not fail is there"
    page = (tmp_path / "run" / "report.html").read_text()
    assert "could not be examined" in page and "Health of the training" not in page


def test_no_examination_of_a_plain_run_fails(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    run = finetune(
        str(model_folder("sentence")), table_file, "full", settings={"training.epochs": 1}, out=tmp_path / "run"
    )
    assert not [item for item in run.report["findings"] if item["kind"] == "unexamined"]


def test_a_section_that_cannot_be_drawn_leaves_the_page(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = finetune(
        str(model_folder("sentence")), table_file, "full", settings={"training.epochs": 1}, out=tmp_path / "run"
    )
    from tunesmith.evaluation.panels import health as panel

    monkeypatch.setattr(panel, "show", broken)
    page = render(run.report)
    assert "It could not be drawn (KeyError)" in page and "What the run took" in page


def test_a_class_of_one_row_trains_in_every_fold(model_folder: Folder, tmp_path: Path) -> None:
    import csv

    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows(60), ("quite another thing alone", "rare")])
    settings = {"training.epochs": 1, "data.folds": 3, "evaluation.quick": True, "evaluation.baselines": False}
    run = finetune(
        str(model_folder("sentence")), tmp_path / "rows.csv", "full", settings=settings, out=tmp_path / "run"
    )
    assert run.report["evidence"]["folds"]["rows"] == 60
    assert "are never tested" in run.report["data"]["splits"][0]["why"]
