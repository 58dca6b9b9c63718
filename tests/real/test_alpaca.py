"""Instruction tuning of a real small language model on a share of Alpaca-style rows, and tool calls in several turns."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
MODEL = SHARED / "weights" / "stories260K" / "hf"
TASK = {"name": "instruction", "template": "plain", "sample": 8, "answer_tokens": 32}

pytestmark = pytest.mark.real


def few(path: Path, rows: int, tmp_path: Path) -> Path:
    for needed in (path, MODEL):
        if not needed.exists():
            said = f"{needed} is absent"
            pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    kept = tmp_path / path.name
    kept.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))[:rows]), encoding="utf-8")
    return kept


def test_the_loss_of_answers_falls(tmp_path: Path) -> None:
    import tunesmith

    data = few(SHARED / "data" / "alpaca_en_demo" / "alpaca_en_demo.json", 250, tmp_path)
    settings = {"training.epochs": 2, "training.rate": 1e-3, "evaluation.resamples": 200}
    run = tunesmith.finetune(MODEL, data, task=TASK, settings=settings, out=tmp_path / "run")
    losses = [
        event["loss"] for event in map(json.loads, (run.path / "events.jsonl").open()) if event["kind"] == "evaluated"
    ]
    assert losses[-1] < losses[0] - 0.3
    base = next(item for item in run.report["baselines"] if item["name"] == "base")["metrics"]["loss"]["value"]
    floor = next(item for item in run.report["baselines"] if item["name"] == "frequent_answer")["metrics"]["loss"][
        "value"
    ]
    assert run.metrics["loss"]["value"] < base - 0.3 and base < floor
    (answer,) = tunesmith.load(run.path).predict(["What is a cat?"])
    assert answer.strip()


def test_tool_calls_load_preview_and_train(tmp_path: Path) -> None:
    import tunesmith
    from tunesmith.previewing import preview
    from tunesmith.recipe import Recipe

    data = few(SHARED / "data" / "glaive_toolcall_demo" / "glaive_toolcall_en_demo.json", 60, tmp_path)
    task = {**TASK, "template": "chatml", "unfit": "drop"}
    found = preview(Recipe.parse({"model": str(MODEL), "data": str(data), "task": task}), 20)
    assert all(any(row.trained) and not all(row.trained) for row in found.rows)
    settings = {"training.epochs": 1, "training.rate": 1e-3, "evaluation.resamples": 200, "data.test": 0.2}
    run = tunesmith.finetune(MODEL, data, task=task, settings=settings, out=tmp_path / "run")
    base = next(item for item in run.report["baselines"] if item["name"] == "base")["metrics"]["loss"]["value"]
    assert run.metrics["loss"]["value"] < base
