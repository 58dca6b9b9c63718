"""L1, beyond the last step: a run that was killed between training and its report has the report of an unbroken one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ended import POINTS

from shortruns import recipe_for, same_model
from tunesmith.pipeline import resume, start
from tunesmith.predictor import CARD, DELETED
from tunesmith.recipe import Recipe
from tunesmith.training.ledger import Ledger

HERE = Path(__file__).parent
# What the clock and the machine say, and the folder's own name.
CLOCK = ("cost", "seconds", "name", "opens", "manifest", "path")
ALL = {"evaluation.baselines": True, "evaluation.seeds": 2, "retention.measure": False, "training.rate": 1e-3}


def told(plain: Any) -> Any:
    """A report without what the clock says."""
    if isinstance(plain, dict):
        return {key: told(value) for key, value in plain.items() if key not in CLOCK}
    if isinstance(plain, list):
        return [told(value) for value in plain]
    return plain


def report_of(run: Path) -> dict[str, Any]:
    report = told(json.loads((run / "report.json").read_text()))
    verdict = report["verdict"].pop("paragraph")
    first, _, rest = verdict.partition("It cost ")
    # A resumed run says of a value that it is the one it began with.
    report["derived"] = {item["key"]: item["value"] for item in report["derived"]}
    return {**report, "said": (first, rest.rpartition(" rows.")[2])}


def recipe_of(model: Path, data: Path) -> Recipe:
    return recipe_for(model, data, "full", ALL)


@pytest.fixture(scope="module")
def killed(model_folder: Callable[[str], Path], table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of POINTS, as the killed run left it."""
    top = tmp_path_factory.mktemp("ended")
    recipe = recipe_of(model_folder("sentence"), table_file).to_plain()
    jobs = [{"recipe": recipe, "folder": str(top / f"{at}"), "point": point} for at, point in enumerate(POINTS)]
    (top / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    paths = [str(HERE.parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    command = [sys.executable, str(HERE / "ended.py"), str(top / "jobs.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return top


@pytest.fixture(scope="module")
def unbroken(model_folder: Callable[[str], Path], table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("unbroken") / "run"
    list(start(recipe_of(model_folder("sentence"), table_file), run).events())
    return run


@pytest.mark.parametrize("point", POINTS)
def test_the_report_of_a_killed_run_is_that_of_an_unbroken_one(point: str, killed: Path, unbroken: Path) -> None:
    run = killed / f"{POINTS.index(point)}"
    assert not (run / "report.json").exists(), "the control: it had none yet"
    list(resume(run).events())
    here, there = report_of(run), report_of(unbroken)
    assert {key for key in here if here[key] != there[key]} == set()
    assert {"seeds", "health", "calibration", "learning_curve"} <= here["evidence"].keys()
    assert same_model(run / "model", unbroken / "model")
    for name in ("test.parquet", "test.safetensors", "validation.safetensors"):
        assert (run / "predictions" / name).read_bytes() == (unbroken / "predictions" / name).read_bytes()
    inside = Path("seeds") / "1"
    assert report_of(run / inside)["metrics"] == report_of(unbroken / inside)["metrics"]
    assert sorted(path.name for path in (run / inside / "model").iterdir()) == [CARD, DELETED]


def test_control_a_ledger_that_lost_steps_is_noticed(
    killed: Path, unbroken: Path, model_folder: Callable[[str], Path], table_file: Path, tmp_path: Path
) -> None:
    """The course of training is read from the ledger alone: with a step missing there the reports differ."""
    run, asked = tmp_path / "run", iter([False] * 4 + [True] * 100)
    list(start(recipe_of(model_folder("sentence"), table_file), run, stop=lambda: next(asked)).events())
    lines = Ledger.open(run).folder / "events.jsonl"
    kept = [line for line in lines.read_text().splitlines() if not ('"kind": "step"' in line and '"step": 1,' in line)]
    lines.write_text("\n".join(kept) + "\n")
    list(resume(run).events())
    assert report_of(run)["curves"] != report_of(unbroken)["curves"]
