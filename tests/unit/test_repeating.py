"""The same recipe from several seeds: the same rows on each side, a run each, and the spread of what they measured."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import noted, recipe_for, stopped_when
from tunesmith import finetune
from tunesmith.pipeline import resume
from tunesmith.repeating import repeat_recipe

Folder = Callable[[str], Path]
SHORT = {"training.epochs": 1, "evaluation.resamples": 100, "evaluation.seeds": 3}


def read(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def test_each_seed_is_a_run_of_its_own_on_the_same_split(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    run = finetune(str(model_folder("sentence")), table_file, "full", settings=SHORT, out=tmp_path / "run")
    report, inner = read(run.path), {seed: read(run.path / "seeds" / f"{seed}") for seed in (1, 2)}
    found = report["evidence"]["seeds"]
    assert found["seeds"] == [0, 1, 2]
    values = [item["metrics"]["accuracy"]["value"] for item in (report, inner[1], inner[2])]
    assert found["metrics"]["accuracy"]["values"] == values
    assert found["metrics"]["accuracy"]["mean"] == pytest.approx(statistics.fmean(values))
    assert found["metrics"]["accuracy"]["deviation"] == pytest.approx(statistics.stdev(values))
    for seed, other in inner.items():
        assert other["seed"] == seed and other["baselines"] == []
        assert other["manifest"]["data"]["sha256"] == report["manifest"]["data"]["sha256"], "the same rows on each side"
    alone = finetune(
        str(model_folder("sentence")), table_file, "full",
        settings={"training.epochs": 1, "seed": 1, "data.seed": 0}, out=tmp_path / "alone",
    )  # fmt: skip
    assert read(alone.path)["metrics"]["accuracy"]["value"] == values[1], "as that seed alone gives"
    assert any("Over 3 seeds accuracy is" in line for line in report["beside"])
    assert "From other seeds" in (run.path / "report.html").read_text()


def test_stopped_in_a_repeat_it_goes_on_there(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**SHORT, "evaluation.seeds": 2})
    stopped_when(noted("seeds"), recipe, tmp_path / "run")
    list(resume(tmp_path / "run").events())
    assert read(tmp_path / "run")["evidence"]["seeds"]["seeds"] == [0, 1]


def test_its_recipe_keeps_the_split_and_measures_nothing_else() -> None:
    recipe = recipe_for(Path("m"), Path("d.csv"), "lora", {**SHORT, "seed": 5, "evaluation.scratch": True})
    found = repeat_recipe(recipe, 6)
    assert (found.seed, found.data.seed) == (6, 5)
    assert found.method == recipe.method and found.training == recipe.training
    assert found.evaluation.quick and not found.evaluation.scratch and found.evaluation.seeds == 1
    given = repeat_recipe(recipe.model_copy(update={"data": recipe.data.model_copy(update={"seed": 9})}), 6)
    assert given.data.seed == 9
