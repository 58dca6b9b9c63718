"""A setting that a run has no use for is said in one line, and a setting that is used is not."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, Bench, bench, recipe_for, write_rows
from tunesmith.pipeline import start
from tunesmith.training.events import Warned
from tunesmith.unused import unused_cache, unused_settings

Folder = Callable[[str], Path]


def _lines(made: Bench) -> list[str]:
    return [*unused_settings(made.recipe, made.prepared, made.built), *unused_cache(made.recipe, made.trunk)]


@pytest.mark.parametrize(
    ("method", "settings", "key"),
    [
        ("head", {"training.rate": 1e-3}, "training.rate = 0.001"),
        ("full", {"training.cache": "memory"}, "training.cache = memory"),
        ("full", {"data.validation": 0, "training.patience": 7}, "training.patience = 7"),
        ("prompt", {"retention.keep": 0.5}, "retention.keep = 0.5"),
        ("prefix", {"retention.budget": "5%"}, "retention.budget = 0.05"),
        ("p_tuning", {"retention.anchor": 1.5}, "retention.anchor = 1.5"),
        ("peft", {"retention.anchor": 2.0}, "retention.anchor = 2.0"),
        ("full", {"data.validation": 0, "evaluation.metric": "macro_f1"}, "evaluation.metric = macro_f1"),
    ],
)
def test_said_where_it_does_nothing(
    method: str, settings: dict[str, Any], key: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        model_folder("bert"), table_file, METHODS[method], {"training.patience": 3, "training.epochs": 1, **settings}
    )
    (line,) = _lines(bench(recipe, tmp_path))
    assert line.startswith(f"not used: {key}: ") and len(line) > len(f"not used: {key}: ") + 10


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("head", {"training.head_rate": 1e-3, "training.cache": "memory"}),
        ("layers", {"training.rate": 1e-3, "training.cache": "memory"}),
        ("lora", {"training.rate": 1e-3}),
        ("full", {"evaluation.metric": "macro_f1", "training.patience": 7, "data.validation": 0.25, "data.test": 0.25}),
        ("full", {"data.validation": 0, "training.patience": 3}),
    ],
)
def test_control_what_is_used_or_is_the_default_is_not_said(
    method: str, settings: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        model_folder("bert"), table_file, METHODS[method], {"training.patience": 3, "training.epochs": 1, **settings}
    )
    assert _lines(bench(recipe, tmp_path)) == []


def test_shares_beside_given_files_are_said_in_the_run(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(table_file, data / "train.csv")
    write_rows(data / "test.csv", 9)
    settings = {"data.test": 0.3, "data.validation": 0.2, "data.leaks": "keep", "training.epochs": 1}
    events = list(start(recipe_for(model_folder("bert"), data, "full", settings), tmp_path / "run").events())
    said = [event.message for event in events if isinstance(event, Warned) and event.message.startswith("not used")]
    assert said == ["not used: data.test = 0.3: test rows are given: test.csv"]
