"""README.md of a run: read back by the hub's own reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import metadata_load
from typer.testing import CliRunner

from tunesmith.catalog import find, names
from tunesmith.cli.main import build_app
from tunesmith.evaluation.card import render_card
from tunesmith.tasks.base import Task

# Of the hub's own list, as its pages name them.
HUB_TAGS = {
    "text-classification", "token-classification", "question-answering", "sentence-similarity", "text-generation",
    "fill-mask", "image-classification",
}  # fmt: skip


def report_of(**changed: Any) -> dict[str, Any]:
    figures = {"value": 0.93625, "low": 0.92, "high": 0.95}
    return {
        "tunesmith": "0.1.0",
        "name": "reviews | full",
        "task": "classification",
        "pipeline_tag": "text-classification",
        "model": "org/base",
        "method": "full",
        "seed": 0,
        "confidence": 0.95,
        "data": {"path": "/home/me/reviews.csv", "splits": [{"name": "train", "rows": 1200, "why": "given"}]},
        "metrics": {"accuracy": figures},
        "lower": [],
        "rows_tested": 100,
        "baselines": [{"name": "majority", "what": "always <the> most frequent", "metrics": {"accuracy": figures}}],
        "verdict": {"helped": True, "paragraph": "Fine-tuning helped: *very* much."},
        "beside": ["It does worse on long texts."],
        "beside_of": ["slices"],
        "advice": {"stop": False, "paragraph": "Add 400 rows.", "items": []},
        "opens": 'opens with SentenceTransformer("/home/me/runs/x/model")',
    } | changed


def test_the_hub_reads_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(render_card(report_of(), Path("/home/me/runs/x")), encoding="utf-8")
    found = metadata_load(path)
    assert found is not None
    assert (found["base_model"], found["pipeline_tag"]) == ("org/base", "text-classification")
    card = ModelCard.load(path)
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_name) == ("accuracy", 0.93625, "reviews.csv")
    assert result.dataset_split == "test"


def test_what_comes_from_outside_is_no_markup_and_no_place_of_this_machine() -> None:
    card = render_card(report_of(), Path("/home/me/runs/x"))
    assert "# reviews \\| full" in card
    assert "always \\<the\\> most frequent" in card
    assert "\\*very\\* much" in card
    assert "/home/me" not in card
    assert "| **this model (full)** | 0.936 [0.920, 0.950] |" in card
    assert "It does worse on long texts." in card and "What now: Add 400 rows." in card


def test_a_base_in_a_folder_is_called_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(render_card(report_of(model="/data/models/my-bert"), tmp_path), encoding="utf-8")
    found = metadata_load(path)
    assert found is not None and found["base_model"] == "my-bert"


def test_a_run_without_test_rows_has_a_card_without_results(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(render_card(report_of(metrics={}, data={"path": "a.csv"}), tmp_path), encoding="utf-8")
    found = metadata_load(path)
    assert found is not None and "model-index" not in found


@pytest.mark.parametrize("name", names("tasks"))
def test_every_task_has_a_name_on_the_hub(name: str) -> None:
    task = find("tasks", name)
    assert issubclass(task, Task)
    assert task.pipeline_tag in HUB_TAGS


def test_the_report_of_what_is_no_run_says_so(tmp_path: Path) -> None:
    found = CliRunner().invoke(build_app(), ["report", str(tmp_path / "none")])
    assert "there is no such run" in str(found.exception)
    found = CliRunner().invoke(build_app(), ["report", str(tmp_path)])
    assert "is not a run (it has no recipe.yaml)" in str(found.exception)
    (tmp_path / "recipe.yaml").touch()
    found = CliRunner().invoke(build_app(), ["report", str(tmp_path)])
    assert "has no report yet; finish it with: tunesmith resume" in str(found.exception)
    (tmp_path / "model").mkdir()
    found = CliRunner().invoke(build_app(), ["report", str(tmp_path / "model")])
    assert f"give {tmp_path}" in str(found.exception)
    found = CliRunner().invoke(build_app(), ["report", str(tmp_path / "recipe.yaml")])
    assert "is a file" in str(found.exception)
