"""Folds: every row tested once, pooled, beside rivals that were fitted on the same folds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from shortruns import noted, recipe_for, rows, stopped_when, write_rows
from tunesmith import finetune
from tunesmith.errors import DataError, RecipeError
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evidence.folds import over_folds
from tunesmith.folding import Fold, fold_recipe
from tunesmith.pipeline import resume, start
from tunesmith.repeating import repeat_recipe
from tunesmith.tasks._metrics import accuracy
from tunesmith.tasks.base import Scores

Folder = Callable[[str], Path]
SHORT = {"training.epochs": 1, "evaluation.resamples": 200, "data.folds": 3, "evaluation.quick": True}


def read(path: Path) -> dict:
    return json.loads((path / "report.json").read_text())


def test_every_row_is_tested_once_and_the_pooled_figures_are_those_of_all(model_folder: Folder, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.csv", 120)
    settings = {**SHORT, "evaluation.baselines": True}
    run = finetune(str(model_folder("sentence")), table, "full", settings=settings, out=tmp_path / "run").path
    parts = [run, run / "folds" / "2", run / "folds" / "3"]
    tables = [parquet.read_table(part / "predictions" / "test.parquet").to_pydict() for part in parts]
    lines = [line for part in tables for line in part["line"]]
    assert sorted(lines) == list(range(2, 122))
    found = read(run)["evidence"]["folds"]
    right = [a == b for part in tables for a, b in zip(part["truth"], part["label"], strict=True)]
    assert found["rows"] == 120 and found["metric"]["value"] == pytest.approx(np.mean(right))
    assert [fold["fold"] for fold in found["folds"]] == [1, 2, 3]
    assert sum(fold["rows"] for fold in found["folds"]) == 120
    of_rivals = [
        {item["name"]: item["metrics"]["accuracy"]["value"] for item in read(part)["baselines"]} for part in parts
    ]
    sizes = [fold["rows"] for fold in found["folds"]]
    for rival in found["rivals"]:
        values = [of[rival["name"]] for of in of_rivals]
        assert rival["metric"]["value"] == pytest.approx(np.average(values, weights=sizes))
        assert rival["gain"]["value"] == pytest.approx(found["metric"]["value"] - rival["metric"]["value"])
        assert rival["gain"]["low"] <= rival["gain"]["value"] <= rival["gain"]["high"] and 0 < rival["p"] <= 1
    assert {"majority", "tfidf"} <= {rival["name"] for rival in found["rivals"]}
    assert any(
        line.startswith("The verdict is over all 120 rows, each tested by one of 3 models")
        for line in read(run)["beside"]
    )
    assert "on 120 test rows" in read(run)["verdict"]["paragraph"]
    assert "On every row" in (run / "report.html").read_text()


def test_stopped_in_a_fold_it_goes_on_there(model_folder: Folder, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.csv", 90)
    recipe = recipe_for(model_folder("bert"), table, "full", {**SHORT, "data.folds": 2})
    stopped_when(noted("folds"), recipe, tmp_path / "run")
    list(resume(tmp_path / "run").events())
    assert read(tmp_path / "run")["evidence"]["folds"]["rows"] == 90


def test_inner_runs_keep_to_one_fold() -> None:
    recipe = recipe_for(Path("m"), Path("d.csv"), "lora", {**SHORT, "evaluation.seeds": 2})
    assert fold_recipe(recipe, 2).data.fold == 2 and fold_recipe(recipe, 2).evaluation.seeds == 1
    assert repeat_recipe(recipe, 1).data.fold == 0 and repeat_recipe(recipe, 1).data.folds == 3


def test_what_cannot_be_folded_is_said(model_folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for seed, name in enumerate(("train", "test")):
        with (tmp_path / "data" / f"{name}.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label"), *rows(60, seed)])
    with pytest.raises(DataError, match=r"data\.folds: test rows are given in a table of their own"):
        finetune(str(model_folder("bert")), tmp_path / "data", "head", settings=SHORT, out=tmp_path / "run")
    with pytest.raises(RecipeError, match=r"data.fold: 3 is none of 3 data.folds"):
        recipe_for(Path("m"), Path("d.csv"), "lora", {**SHORT, "data.fold": 3})
    with pytest.raises(RecipeError, match=r"data.fold: 0 is none of no data.folds"):
        recipe_for(Path("m"), Path("d.csv"), "lora", {"data.fold": 0})


def test_pooled_scores_count_the_rows_that_the_metric_counts() -> None:
    from tunesmith.evidence.folds import pooled

    def part(truth: list[int], said: list[int], counted: list[bool]) -> Scores:
        columns = {"truth": np.array(truth), "predicted": np.array(said)}
        rows = {"accuracy": np.array(counted)}
        return Scores(columns, {"accuracy": accuracy}, "accuracy", frozenset({"accuracy"}), rows_of=rows)

    whole = pooled([part([0, 1], [0, 0], [True, False]), part([1, 1, 0], [1, 0, 0], [True, True, True])])
    assert whole.value() == pytest.approx(3 / 4) and whole.shares == {"accuracy"}


def test_groups_stay_whole_over_folds_and_in_the_intervals(model_folder: Folder, tmp_path: Path) -> None:
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        made = [[text, label, f"a{place % 37}"] for place, (text, label) in enumerate(rows(200))]
        csv.writer(out).writerows([["text", "label", "author"], *made])
    recipe = recipe_for(
        model_folder("sentence"), tmp_path / "rows.csv", "head", {**SHORT, "data.folds": 2, "data.group": "author"}
    )
    list(start(recipe, tmp_path / "run").events())
    report = read(tmp_path / "run")
    assert report["evidence"]["folds"]["rows"] == 200 and report["groups_tested"] < 37
    assert "drawn in their 37 groups" in report["verdict"]["paragraph"], "those of all folds, none in two"


def test_rivals_that_a_fold_lacks_are_named(model_folder: Folder, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.csv", 90)
    settings = {**SHORT, "data.folds": 2, "evaluation.scratch": True, "evaluation.baselines": True}
    run = finetune(str(model_folder("bert")), table, "full", settings=settings, out=tmp_path / "run").path
    report = read(run)
    found = report["evidence"]["folds"]
    assert [item["name"] for item in found["left_out"]] == ["scratch"]
    assert "scratch" not in {item["name"] for item in found["rivals"]}
    (said,) = (line for line in report["beside"] if line.startswith("Not among the rivals of this verdict"))
    assert "from random weights, which is trained beside the delivered model alone" in said
    assert "Not in the table: the same architecture from random weights" in (run / "report.html").read_text()


def test_a_rival_of_some_folds_only_is_not_pooled_whichever_they_are() -> None:
    def part(right: list[int]) -> Scores:
        columns = {"truth": np.ones(len(right), int), "predicted": np.array(right)}
        return Scores(columns, {"accuracy": accuracy}, "accuracy", frozenset({"accuracy"}))

    recipe = recipe_for(Path("m"), Path("d.csv"), "lora", {**SHORT, "data.folds": 3})
    own = [Baseline("majority", "m", part([1, 0]), 1.0), Baseline("tfidf", "t", part([1, 1]), 1.0)]
    folds = [
        Fold(2, part([1, 1]), {"majority": part([0, 0])}),
        Fold(3, part([1, 0]), {"majority": part([0, 1]), "probe": part([1, 1])}),
    ]
    found = over_folds(recipe, part([1, 1]), own, folds)
    assert found is not None and list(found.comparison.baselines) == ["majority"]
    assert found.lacking == {"tfidf": [2, 3], "probe": [1, 2]}
    assert found.comparison.baselines["majority"]["accuracy"].value == pytest.approx(2 / 6)
