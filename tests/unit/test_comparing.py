"""Finished runs beside each other: the same figures as each had alone, paired differences, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

from shortruns import write_rows
from tunesmith import comparing, finetune
from tunesmith.catalog import build, names
from tunesmith.cli.main import build_app
from tunesmith.comparing import compare_runs
from tunesmith.errors import ArtifactError, DataError
from tunesmith.evaluation.compare_page import _reading, comparison_lines, render_comparison
from tunesmith.evaluation.intervals import Interval, bootstrap, paired_difference
from tunesmith.evaluation.kept_scores import read_scores, read_strata, write_scores
from tunesmith.predictor import Card
from tunesmith.tasks.base import Task

Folder = Callable[[str], Path]
SHORT = {"training.epochs": 2, "evaluation.resamples": 200, "evaluation.quick": True, "evaluation.baselines": False}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, model_folder: Folder) -> list[Path]:
    root = tmp_path_factory.mktemp("compared")
    table = write_rows(root / "rows.csv", 240)
    base = str(model_folder("sentence"))
    return [
        finetune(base, table, method, settings={**SHORT, "data.test": 0.3, **more}, out=root / name).path
        for name, method, more in (
            ("head", "head", {}),
            ("full", "full", {"training.rate": 3e-3}),
            ("lora", "lora", {"training.epochs": 1}),
        )
    ]


def test_kept_scores_measure_as_they_did(runs: list[Path], tmp_path: Path) -> None:
    card = Card.read(runs[0] / "model")
    path = runs[0] / "predictions" / "test.safetensors"
    found = read_scores(path, lambda columns: card.task.functions(columns, card.labels))
    report = json.loads((runs[0] / "report.json").read_text())
    assert {name: found.value(name) for name in found.metrics} == {
        name: item["value"] for name, item in report["metrics"].items()
    }
    write_scores(tmp_path / "again.safetensors", found, read_strata(path))
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    with pytest.raises(ArtifactError, match="holds accuracy, macro_f1, which"):
        read_scores(path, lambda columns: {})
    (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_scores(tmp_path / "torn.safetensors", lambda columns: {})


@pytest.mark.parametrize("name", names("tasks"))
def test_every_task_names_the_metrics_of_its_kept_columns(name: str) -> None:
    task = build("tasks", name)
    assert isinstance(task, Task)
    assert type(task).functions is not Task.functions


def test_differences_are_those_of_the_figures_and_p_is_mcnemars(runs: list[Path]) -> None:
    found = compare_runs(runs)
    assert found["rows"] == 72 and [run["name"] for run in found["runs"]] == ["head", "full", "lora"]
    values = {run["name"]: run["metrics"]["accuracy"]["value"] for run in found["runs"]}
    assert [(pair["from"], pair["to"]) for pair in found["pairs"]] == [
        ("head", "full"), ("head", "lora"), ("full", "lora"),
    ]  # fmt: skip
    right = {run.name: _right(run) for run in runs}
    for pair in found["pairs"]:
        a, b = pair["from"], pair["to"]
        gain = pair["differences"]["accuracy"]
        assert gain["value"] == pytest.approx(values[b] - values[a])
        assert gain["low"] <= gain["value"] <= gain["high"]
        won, lost = int((right[b] & ~right[a]).sum()), int((right[a] & ~right[b]).sum())
        expected = binomtest(won, won + lost).pvalue if won + lost else 1.0
        assert pair["p"] == pytest.approx(expected)
        assert pair["p"] <= pair["adjusted"] <= 1
    assert found["disagreements"]["count"] == sum(len(set(said)) > 1 for said in zip(*map(_said, runs), strict=True))
    differing = {item["key"] for item in found["settings"]}
    assert {"training.rate", "training.epochs"} <= differing and "data.path" not in differing


def _rows(run: Path) -> dict[str, list]:
    from pyarrow import parquet

    return parquet.read_table(run / "predictions" / "test.parquet").to_pydict()


def _right(run: Path) -> np.ndarray:
    rows = _rows(run)
    return np.array([a == b for a, b in zip(rows["truth"], rows["label"], strict=True)])


def _said(run: Path) -> list[str]:
    return _rows(run)["label"]


def test_the_page_says_it_all_and_escapes_what_comes_from_outside(runs: list[Path]) -> None:
    found = compare_runs(runs)
    found["disagreements"]["examples"].append(
        {"text": "<script>x</script>", "truth": "a", "said": dict.fromkeys(["head", "full", "lora"], "<b>")}
    )
    page = render_comparison(found)
    for title in ("Differences", "Cost against quality", "How they learned", "Where they disagree", "What differs"):
        assert title in page
    assert "<script>x" not in page and "<b>" not in page.partition("Where they disagree")[2]
    best = max(found["runs"], key=lambda run: run["metrics"]["accuracy"]["value"])
    assert best["name"] in comparison_lines(found)[0] and " the best accuracy: " in comparison_lines(found)[0]
    assert len(comparison_lines(found)) == 5, "and that 72 rows are few, and what is corrected for how many pairs"
    assert "hold at once with 95 % (Bonferroni: each has 98.33 %)" in comparison_lines(found)[-1]


def test_intervals_of_pairs_hold_together_and_know_how_the_rows_were_drawn(runs: list[Path]) -> None:
    found = compare_runs(runs)
    assert found["level"] == pytest.approx(1 - 0.05 / 3) and found["stratified"]
    sides = {side.name: side for side in comparing._read(runs)}
    strata = sides["head"].strata
    assert strata is not None and strata.tolist() == [
        sorted(set(sides["head"].truth)).index(name) for name in sides["head"].truth
    ]
    for pair in found["pairs"]:
        own, other = sides[pair["to"]].scores, sides[pair["from"]].scores
        for name, alone in pair["differences"].items():
            together = pair["together"][name]
            assert together["low"] <= alone["low"] <= alone["value"] == together["value"]
            assert alone["high"] <= together["high"]
            assert together["high"] - together["low"] > alone["high"] - alone["low"]
            assert asdict(paired_difference(own, other, name, 3000, 0.95, 0, strata)) == alone
            assert asdict(paired_difference(own, other, name, 3000, 1 - 0.05 / 3, 0, strata)) == together
    for run in found["runs"]:
        scores = sides[run["name"]].scores
        assert run["metrics"]["accuracy"] == asdict(bootstrap(scores, "accuracy", 3000, 0.95, 0, strata))


def test_two_runs_have_the_same_intervals_alone_and_together(runs: list[Path]) -> None:
    found = compare_runs(runs[:2])
    assert found["level"] == pytest.approx(0.95)
    assert found["pairs"][0]["differences"] == found["pairs"][0]["together"]
    assert "Bonferroni" not in " ".join(comparison_lines(found))


def test_rows_that_only_some_runs_have_do_not_count(runs: list[Path], model_folder: Folder, tmp_path: Path) -> None:
    table = runs[0].parent / "rows.csv"
    other = finetune(
        str(model_folder("sentence")),
        table,
        "head",
        settings={**SHORT, "data.test": 0.3, "seed": 4},
        out=tmp_path / "x",
    )
    found = compare_runs([runs[0], other.path])
    assert 0 < found["rows"] < 72 and not found["stratified"]
    assert "Only the rows that all have count" in render_comparison(found)


def test_what_cannot_be_compared_is_said(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give two runs or more"):
        compare_runs(runs[:1])
    with pytest.raises(DataError, match="is named twice"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(ArtifactError) as error:
        compare_runs([tmp_path / "none", tmp_path])
    assert len(error.value.problems) == 2


def test_other_labels_or_metrics_are_refused(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    sides = comparing._read(runs[:2])
    with pytest.raises(DataError, match="knows other labels"):
        comparing._check([sides[0], replace(sides[1], labels=("a", "b"))])
    with pytest.raises(DataError, match="is judged by macro_f1"):
        comparing._check([sides[0], replace(sides[1], scores=replace(sides[1].scores, primary="macro_f1"))])
    with pytest.raises(DataError, match="no test row in common"):
        comparing._on_common_rows([sides[0], replace(sides[1], keys=["x"] * 72)])


def test_runs_that_say_the_same_are_called_the_same(runs: list[Path], tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(runs[0], copied)
    found = compare_runs([runs[0], copied])
    assert found["pairs"][0]["differing"] == 0
    assert comparison_lines(found)[-1].endswith("the same on every row; nothing tells them apart.")
    others = compare_runs(runs)
    assert [pair["differing"] > 0 for pair in others["pairs"]].count(True) >= 2
    assert sum("nothing tells them apart" in line for line in comparison_lines(others)) <= 1


def test_the_command_writes_a_page_and_never_over_another(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("compare.html", "compare-2.html"):
        found = CliRunner().invoke(build_app(), ["compare", *map(str, runs)])
        assert found.exit_code == 0 and f"page: {name}" in found.stdout
        assert (tmp_path / name).is_file()
    found = CliRunner().invoke(build_app(), ["compare", *map(str, runs), "--out", "compare.html"])
    assert "is there already" in str(found.exception)
    found = CliRunner().invoke(build_app(), ["compare", *map(str, runs), "--out", "none/page.md"])
    assert "end its name with .html" in str(found.exception) and "there is no folder none" in str(found.exception)
    found = CliRunner().invoke(build_app(), ["compare", *map(str, runs), "--out", str(tmp_path)])
    assert "is a folder" in str(found.exception)
    found = CliRunner().invoke(build_app(), ["compare", *map(str, runs), "--json"])
    assert json.loads(found.stdout)["primary"] == "accuracy"


def _in_groups(run: Path, folder: Path, groups: list[int]) -> Path:
    """The run again, with groups of its test rows."""
    copied = folder / f"{run.name}-grouped"
    shutil.copytree(run, copied)
    path = copied / "predictions" / "test.safetensors"
    card = Card.read(copied / "model")
    scores = read_scores(path, lambda columns: card.task.functions(columns, card.labels))
    write_scores(path, replace(scores, groups=np.array(groups)), None)
    return copied


def test_groups_told_are_those_of_the_rows_compared(runs: list[Path], tmp_path: Path) -> None:
    grouped = _in_groups(runs[1], tmp_path, [row // 6 for row in range(72)])
    for folders in ([runs[0], grouped], [grouped, runs[0]]):
        found = compare_runs(folders)
        assert found["groups"] == 12 and not found["stratified"], "whichever of them kept the groups"
        assert "drawn in their 12 groups" in render_comparison(found)
    some = tmp_path / "some"
    shutil.copytree(runs[0], some)
    _keep_rows(some, range(36))
    found = compare_runs([grouped, some])
    assert (found["rows"], found["groups"]) == (36, 6)
    assert "of only 6 groups" in " ".join(comparison_lines(found))


def _keep_rows(run: Path, rows: range) -> None:
    """Of the test rows of a run, in its files."""
    from pyarrow import parquet

    path = run / "predictions" / "test.safetensors"
    card = Card.read(run / "model")
    scores = read_scores(path, lambda columns: card.task.functions(columns, card.labels))
    write_scores(path, scores.take(np.array(rows)), None)
    table = parquet.read_table(path.with_suffix(".parquet"))
    parquet.write_table(table.take(list(rows)), path.with_suffix(".parquet"))


def test_permutations_are_enough_for_as_many_pairs(runs: list[Path], tmp_path: Path) -> None:
    """Of 200 asked for no p of three pairs could be below 3 / 201."""
    groups = [*range(71), 70]
    folders = [_in_groups(run, tmp_path, groups) for run in runs]
    for folder, side in zip(
        folders, comparing._read(folders), strict=True
    ):  # one right everywhere, one half, one never
        share = {"head": 2, "full": 1, "lora": 0}[folder.name.split("-")[0]]
        right = np.arange(72) % 2 < share
        truth = np.asarray(side.scores.columns["truth"])
        said = np.where(right, truth, (truth + 1) % 3)
        columns = {**side.scores.columns, "predicted": said}
        each = {name: right.astype(np.float64) for name in side.scores.each}
        write_scores(
            folder / "predictions" / "test.safetensors", replace(side.scores, columns=columns, each=each), None
        )
    found = compare_runs(folders)
    assert found["groups"] == 71 and max(pair["adjusted"] for pair in found["pairs"]) < 0.002


def test_runs_with_folds_are_compared_on_the_rows_of_all_folds(model_folder: Folder, tmp_path: Path) -> None:
    table = write_rows(tmp_path / "rows.csv", 120)
    a, b = (
        finetune(
            str(model_folder("sentence")), table, method, settings={**SHORT, "data.folds": 3}, out=tmp_path / method
        ).path
        for method in ("head", "lora")
    )
    found = compare_runs([a, b])
    assert found["rows"] == 120 and found["folds"] == {"head": [3, 3], "lora": [3, 3]} and not found["stratified"]
    right = {
        run.name: np.concatenate([_right(run), *(_right(run / "folds" / fold) for fold in "23")]) for run in (a, b)
    }
    values = {run["name"]: run["metrics"]["accuracy"]["value"] for run in found["runs"]}
    assert values == {name: pytest.approx(hits.mean()) for name, hits in right.items()}
    whole = json.loads((a / "report.json").read_text())["evidence"]["folds"]["metric"]
    assert found["runs"][0]["metrics"]["accuracy"]["value"] == pytest.approx(whole["value"])
    (line,) = (line for line in comparison_lines(found) if "of its 3 folds" in line)
    assert line.startswith("Each row is compared as the model of its fold says it") and "not there" not in line
    assert "head (3 of its 3 folds)" in render_comparison(found).replace("\N{NO-BREAK SPACE}", " ")
    shutil.rmtree(b / "folds" / "3")
    fewer = compare_runs([a, b])
    left = 120 - len(_right(a / "folds" / "3"))
    assert fewer["rows"] == left and fewer["rows_of"] == {"head": 120, "lora": left}
    assert "lora (2 of its 3 folds: the folders of the others are not there)" in " ".join(comparison_lines(fewer))


def test_where_interval_and_test_do_not_agree_it_is_said_which_holds_back() -> None:
    apart, around = Interval(0.02, 0.01, 0.03), Interval(0.02, -0.01, 0.05)
    assert _reading(apart, 0.01, 0.95) == "more than luck explains"
    assert _reading(around, 0.04, 0.95) == "that can be luck, for the interval of the difference holds 0"
    assert _reading(apart, 0.06, 0.95) == "that can be luck, for p is not below 0.05"
    assert _reading(around, 0.6, 0.95) == "that can be luck"
