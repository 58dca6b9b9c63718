"""Runs without test rows: the health of training is told all the same, and settings that do nothing are named."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import recipe_for, rows
from tunesmith.evidence import health
from tunesmith.pipeline import start
from tunesmith.training.events import Note, Warned

Folder = Callable[[str], Path]
NONE = {"data.test": 0.0, "retention.measure": False}


def table_with_shops(folder: Path) -> Path:
    with (folder / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        lines = [(text, label, "one" if place % 2 else "two") for place, (text, label) in enumerate(rows(90))]
        csv.writer(out).writerows([("text", "label", "shop"), *lines])
    return folder / "rows.csv"


def run_of(
    model: Path, data: Path, out: Path, settings: dict[str, Any]
) -> tuple[dict[str, Any], str, list[str], list[str]]:
    """Report, page, what is said with the verdict, and warnings."""
    events = list(start(recipe_for(model, data, "full", {**NONE, **settings}), out).events())
    (said,) = [event.lines for event in events if isinstance(event, Note) and event.topic == "verdict"]
    warned = [event.message for event in events if isinstance(event, Warned)]
    return json.loads((out / "report.json").read_text()), (out / "report.html").read_text(), list(said), warned


def test_health_is_told_without_test_rows(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.rate": 1e-9, "training.head_rate": 1e-9, "training.probe": False}
    report, page, said, _ = run_of(model_folder("bert"), table_file, tmp_path / "run", settings)
    checks = {item["rule"]: item for item in report["evidence"]["health"]["checks"]}
    assert checks["collapsed class"]["looked"] == "what is said of the validation rows"
    broken = [item["message"] for item in report["findings"] if item["kind"] == "health"]
    assert broken and any(line.startswith("Health: ") for line in said)
    assert (
        report["metrics"] == {} and report["verdict"]["helped"] is None and said[0].startswith("No test rows were held")
    )
    for heading in ("Health of the training", "How it learned", "How to make it again", "The delivered model alone"):
        assert heading in page, heading
    assert [item["rows"] for item in report["data"]["splits"]][2] == 0 and report["curves"]["losses"]


def test_without_any_held_out_rows_the_course_alone_is_looked_at(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    report, page, _, _ = run_of(model_folder("bert"), table_file, tmp_path / "run", {"data.validation": 0.0})
    rules = [item["rule"] for item in report["evidence"]["health"]["checks"]]
    assert "gradients" in " ".join(rules) and "collapsed class" not in rules
    assert "Health of the training" in page and not (tmp_path / "run" / "predictions").exists()


def test_a_quick_report_has_none_and_a_broken_one_is_told(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, _, _, _ = run_of(model_folder("bert"), table_file, tmp_path / "quick", {"evaluation.quick": True})
    assert report["evidence"] == {}

    def broken(*_: object) -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(health, "examined", broken)
    report, _, _, _ = run_of(model_folder("bert"), table_file, tmp_path / "run", {})
    assert [item["kind"] for item in report["findings"]] == ["unexamined"]


def test_settings_that_need_test_rows_are_said_to_do_nothing(model_folder: Folder, tmp_path: Path) -> None:
    asked = {
        "evaluation.seeds": 3, "evaluation.curve": "method", "evaluation.scratch": True, "evaluation.precision": 0.9,
        "evaluation.confidence": 0.9, "data.slices": "shop",
    }  # fmt: skip
    _, _, _, warned = run_of(model_folder("bert"), table_with_shops(tmp_path), tmp_path / "run", asked)
    for key, value in asked.items():
        assert any(line.startswith(f"not used: {key} = {value}: there are no test rows") for line in warned), key
    assert not (tmp_path / "run" / "seeds").exists() and not (tmp_path / "run" / "curve").exists()


@pytest.mark.parametrize("quick", [True, False])
def test_slices_with_the_quick_report_are_said_to_do_nothing(quick: bool, model_folder: Folder, tmp_path: Path) -> None:
    settings = {
        "evaluation.quick": quick, "data.slices": "shop", "data.folds": 2, "data.test": 0.1, "evaluation.seeds": 2,
        "retention.measure": False, "training.epochs": 1,
    }  # fmt: skip
    recipe = recipe_for(model_folder("bert"), table_with_shops(tmp_path), "full", settings)
    warned = [event.message for event in start(recipe, tmp_path / "run").events() if isinstance(event, Warned)]
    said = [line for line in warned if "data.slices" in line]
    assert said == (["not used: data.slices = shop: evaluation.quick leaves the further evidence out"] if quick else [])
    assert not any("seed 1: not used" in line or "fold 2 of 2: not used" in line for line in warned), (
        "nor of runs inside"
    )
