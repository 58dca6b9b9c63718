"""Method auto, which is what a recipe that names none gets, on every task: with few rows and with enough to choose by."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import pictures

from families import FAMILIES, STATIC, WORDS
from shortruns import HINTS, rows
from tunesmith import catalog, climbing, load
from tunesmith.pipeline import start
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.selection.ladder import Gain

QUICK = {"evaluation": {"quick": True, "baselines": False, "resamples": 100}, "retention": {"measure": False}}
TRAINING = {"epochs": 1, "batch_size": 16, "precision": "float32", "device": "cpu", "patience": 0}


def _csv(path: Path, heads: Sequence[str], table: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([heads, *table])
    return path


def _tags(path: Path, count: int) -> Path:
    lines = []
    for text, _ in rows(count):
        lines += [
            f"{word} {'B-hint' if any(word in hints for hints in HINTS.values()) else 'O'}" for word in text.split()
        ]
        lines.append("")
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _squad(path: Path, count: int) -> Path:
    draw, paragraphs = random.Random(0), []
    for place in range(count):
        words = draw.choices([word for word in WORDS if word != "find"], k=draw.randint(6, 20))
        words[-2] = "find"
        context = " ".join(words)
        answer = {"text": words[-1], "answer_start": len(context) - len(words[-1])}
        asked = {"question": "what can we find ?", "id": str(place), "answers": [answer]}
        paragraphs.append({"context": context, "qas": [asked]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "All", "paragraphs": paragraphs}]}))
    return path


def _texts(path: Path, count: int) -> Path:
    """More than 50 passages, of many, and fewer, of few."""
    path.write_text("\n\n".join(text for text, _ in rows(count**2 // 8)), encoding="utf-8")
    return path


def _pictures(path: Path, count: int) -> Path:
    for place, (picture, name) in enumerate(pictures(count)):
        from PIL import Image

        (path / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(picture.array)).save(path / name / f"{place}.png")
    return path


# task -> base, and what writes so many rows of it.
WRITTEN: dict[str, tuple[str, Callable[[Path, int], Path]]] = {
    "classification": ("bert", lambda path, count: _csv(path, ("text", "label"), rows(count))),
    "few_shot": ("bert", lambda path, count: _csv(path, ("text", "label"), rows(count))),
    "multilabel": (
        "bert",
        lambda path, count: _csv(
            path,
            ("text", "labels"),
            [(text, f"{label}|long" if len(text) > 50 else label) for text, label in rows(count)],
        ),
    ),
    "regression": (
        "bert",
        lambda path, count: _csv(path, ("text", "score"), [(text, len(text)) for text, _ in rows(count)]),
    ),
    "token_classification": ("bert", _tags),
    "question_answering": ("bert", _squad),
    "embedding": (
        "sentence",
        lambda path, count: _csv(
            path, ("anchor", "positive"), [(text, " ".join(text.split()[::-1])) for text, _ in rows(count)]
        ),
    ),
    "causal_lm": ("llama", _texts),
    "masked_lm": ("bert", _texts),
    "instruction": ("llama", lambda path, count: _csv(path, ("instruction", "output"), rows(count))),
    "seq2seq": ("t5", lambda path, count: _csv(path, ("source", "target"), rows(count))),
    "image_classification": ("mobilenet_v2", _pictures),
}
OPTIONS = {"instruction": {"template": "plain"}, "seq2seq": {"answer_tokens": 4}}
ENDINGS = {"token_classification": "conll", "question_answering": "json", "causal_lm": "txt", "masked_lm": "txt"}


def test_every_task_is_tried() -> None:
    assert set(WRITTEN) == set(catalog.names("tasks"))


def _asked(task: str, folder: Path, count: int) -> Recipe:
    family, write = WRITTEN[task]
    ending = ENDINGS.get(task, "csv")
    made = write(folder / ("rows" if task == "image_classification" else f"rows.{ending}"), count)
    from families import VISION_FAMILIES

    base = {**FAMILIES, **STATIC, **VISION_FAMILIES}[family](folder / "model")
    part = {"name": task, **OPTIONS.get(task, {})}
    training = {**TRAINING, "max_length": 16} if made.suffix == ".txt" else TRAINING
    return Recipe.parse({"model": str(base), "data": str(made), "task": part, "training": training, **QUICK})


@pytest.mark.parametrize("count", [36, 130])
@pytest.mark.parametrize("task", sorted(WRITTEN))
def test_a_recipe_that_names_no_method_trains(
    task: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gain, "beyond_noise", True)  # so that the whole ladder is climbed
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)
    asked = _asked(task, tmp_path, count)
    assert asked.method == "auto"
    events = list(start(asked, tmp_path / "run").events())
    told = json.loads((tmp_path / "run" / "report.json").read_text())["evidence"]["ladder"]
    assert told["failed"] == [], "no rung is tried that cannot be"
    climbed = [rung["trial"]["method"] for rung in told["rungs"]]
    if count == 36 and task in ("instruction", "seq2seq"):
        assert climbed == ["prompt", "lora"], "a few texts to write hold many tokens to choose by"
    else:
        assert bool(climbed) == (count == 130 and task != "few_shot")
    assert task != "few_shot" or told["chosen"] == "full", "which is about the whole base, however few the rows"
    assert told["chosen"] == Run(tmp_path / "run").report["method"] and events
    load(tmp_path / "run")
