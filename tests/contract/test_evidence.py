"""Every task has its whole evidence examined, on every family that it is built on; a new task is asked for rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import SAMPLES, families_of, headless, pictures

from shortruns import HINTS, recipe_for, rows
from tunesmith import catalog
from tunesmith.pipeline import start

COUNT = 48
SETTINGS = {
    "training.epochs": 1, "evaluation.baselines": True, "retention.measure": False,
    "data.test": 0.25,
}  # fmt: skip
CASES = [(task, family) for task in catalog.names("tasks") for family in families_of(task)]


def _tagged(text: str) -> dict[str, Any]:
    words = text.split()
    return {"tokens": words, "tags": [next((f"B-{k}" for k, of in HINTS.items() if word in of), "O") for word in words]}


def _asked(text: str) -> dict[str, Any]:
    words = text.split()
    at = next((place for place, word in enumerate(words) if any(word in of for of in HINTS.values())), 0)
    answers = {"text": [words[at]], "answer_start": [len(" ".join(words[:at])) + (1 if at else 0)]}
    return {"question": "what was it like", "context": text, "answers": answers}


def _chat(text: str, label: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": label}]}


# A row of each task that reads text, from one of `rows`, its place and the text before it.
ROWS: dict[str, Callable[[str, str, int, str], dict[str, Any]]] = {
    "classification": lambda text, label, place, before: {"text": text, "label": label},
    "few_shot": lambda text, label, place, before: {"text": text, "label": label},
    "multilabel": lambda text, label, place, before: {"text": text, "label": [label, *(["odd"] if place % 2 else [])]},
    "regression": lambda text, label, place, before: {"text": text, "label": 0.5 * len(text)},
    "embedding": lambda text, label, place, before: {"anchor": text, "positive": before},
    "token_classification": lambda text, label, place, before: _tagged(text),
    "question_answering": lambda text, label, place, before: _asked(text),
    "instruction": lambda text, label, place, before: _chat(text, label),
    "causal_lm": lambda text, label, place, before: {"text": text},
    "masked_lm": lambda text, label, place, before: {"text": text},
    "seq2seq": lambda text, label, place, before: {"text": text, "target": label},
}


def _written(task: str, folder: Path) -> Path:
    if task not in ROWS:  # pictures
        from PIL import Image

        for place, (picture, label) in enumerate(pictures(COUNT)):
            (folder / "pictures" / label).mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture.array).save(folder / "pictures" / label / f"{place}.png")  # pyright: ignore
        return folder / "pictures"
    made, path = rows(COUNT), folder / "rows.jsonl"
    lines = [ROWS[task](text, label, place, made[place - 1][0]) for place, (text, label) in enumerate(made)]
    path.write_text("\n".join(map(json.dumps, lines)) + "\n", encoding="utf-8")
    return path


def test_every_task_has_rows_here() -> None:
    assert set(ROWS) | {"image_classification"} == set(catalog.names("tasks")) == set(SAMPLES)


@pytest.mark.parametrize(("task", "family"), CASES)
def test_no_examination_fails(task: str, family: str, model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    asked = {"name": task, "template": "plain"} if task == "instruction" else task
    target = {"data.text": "text", "data.label": "target"} if task == "seq2seq" else {}
    method = "head" if not headless(task, family) and family != families_of(task)[0] else "full"
    recipe = recipe_for(model_folder(family), _written(task, tmp_path), method, {**SETTINGS, **target, "task": asked})
    list(start(recipe, tmp_path / "run").events())
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [item["message"] for item in report["findings"] if item["kind"] == "unexamined"] == []
    assert "health" in report["evidence"]
    assert report["advice"]["items"] and "could not be told" not in report["advice"]["paragraph"]
    assert "could not be drawn" not in (tmp_path / "run" / "report.html").read_text()
