"""Models that are trained beside the delivered one: what they cost is told whole, and their weights take no room."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from shortruns import bench, recipe_for, write_rows
from tunesmith import load
from tunesmith.beside import foreseen
from tunesmith.errors import ArtifactError
from tunesmith.evaluation.compare_page import render_comparison
from tunesmith.evaluation.cost import (
    Beside,
    Cost,
    Delivered,
    Evidence,
    beside_of,
    beside_said,
    cost_lines,
    delivered_of,
)
from tunesmith.evaluation.sections import cost_section
from tunesmith.forecast import Further, Known, foretell, size_of
from tunesmith.inner import let_go
from tunesmith.phases import AUDIT, CURVE, FOLDS, MEASURING, OTHER, READING, SCRATCH, SEEDS, STEPS, Time
from tunesmith.pipeline import start
from tunesmith.preparing import prepare
from tunesmith.training.events import Forecast, Note
from tunesmith.training.ledger import Ledger

Folder = Callable[[str], Path]
ALL = {
    "training.epochs": 1,
    "evaluation.seeds": 2,
    "evaluation.curve": "method",
    "evaluation.scratch": True,
    "data.folds": 2,
    "data.test": 0.1,
}
LEFT = {"tunesmith.json", "weights-deleted.txt"}


@pytest.fixture(scope="module")
def run(model_folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one of every kind of run beside it."""
    folder = tmp_path_factory.mktemp("beside")
    recipe = recipe_for(model_folder("sentence"), write_rows(folder / "rows.csv", 90), "lora", ALL)
    list(start(recipe, folder / "run").events())
    return folder / "run"


def report_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text())


def inside(run: Path) -> list[Path]:
    return [
        run / "scratch",
        *(run / "curve" / name for name in ("quarter", "half")),
        run / "folds" / "2",
        run / "seeds" / "1",
    ]


def test_what_was_spent_is_the_delivered_model_and_the_proof(run: Path) -> None:
    cost = report_of(run)["cost"]
    own, beside, proof = cost["delivered"], cost["beside"], cost["evidence"]
    assert beside["models"] == 5
    for key in ("seconds", "cpu_seconds"):
        assert own[key] + proof[key] == pytest.approx(cost[key])
        assert 0 < beside[key] < proof[key]
        of_phases = sum(phase[key] for phase in cost["phases"] if phase["name"] in (SCRATCH, CURVE, FOLDS, SEEDS))
        assert beside[key] == pytest.approx(of_phases)
    spent = [report_of(folder)["cost"]["seconds"] for folder in inside(run)]
    assert sum(spent) <= beside["seconds"], "each run's own account is within it"


def test_both_numbers_are_told(run: Path) -> None:
    report, page = report_of(run), (run / "report.html").read_text()
    said = report["verdict"]["paragraph"]
    assert " in all: " in said and beside_said(report["cost"]) in said
    assert "for the delivered model" in said and "for 5 further models trained to tell its worth" in said
    lines = [line for event in Ledger.open(run).events() if isinstance(event, Note) for line in event.lines]
    assert any(line.startswith("the delivered model alone: ") for line in lines)
    assert any(line.startswith("5 further models, trained to tell its worth: ") for line in lines)
    assert "The delivered model alone" in page and "5 further models, to tell its worth" in page


def test_without_runs_beside_it_the_delivered_model_is_told_and_nothing_else() -> None:
    times = {READING: Time(1.0, 2.0), STEPS: Time(10.0, 20.0), AUDIT: Time(3.0, 4.0), OTHER: Time(1.0, 1.0)}
    assert delivered_of(times) == Delivered(12.0, 23.0) and beside_of(times, 0) is None
    failed = beside_of(times | {SEEDS: Time(5.0, 6.0)}, 0)
    assert failed == Beside(0, 5.0, 6.0), "what came to nothing was spent all the same"
    plain = Cost(15.0, 27.0, 100.0, 1, 2, 3, delivered=delivered_of(times), evidence=Evidence(3.0, 4.0, 0.2, 0.0))
    assert beside_said(asdict(plain)) == ""
    assert "the delivered model alone: 23 CPU seconds, 12 seconds by the clock" in cost_lines(plain)
    assert "further model" not in cost_section({"cost": asdict(plain), "opens": ""})
    assert "The delivered model alone" in cost_section({"cost": asdict(plain), "opens": ""})


def test_the_words_of_the_parts_sum_to_the_whole() -> None:
    times = {STEPS: Time(30.0, 60.0), SEEDS: Time(40.0, 80.0), MEASURING: Time(5.0, 10.0)}
    cost = Cost(
        75.0, 150.0, 100.0, 1, 2, 3, delivered=delivered_of(times), beside=beside_of(times, 1),
        evidence=Evidence(45.0, 90.0, 1.5, 0.0),
    )  # fmt: skip
    assert beside_said(asdict(cost)) == (
        "60 CPU seconds for the delivered model, 80 CPU seconds for 1 further model trained to tell its worth, and "
        "10 CPU seconds for the rest of the proof"
    )


def test_a_forecast_counts_the_runs_to_come(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """Where a token takes a millisecond: each further run its beginning, its share of all steps, and what follows them."""
    made = bench(recipe_for(model_folder("bert"), table_file), tmp_path / "run").run
    times = [Time(size_of(made.source, at) / 1e3, size_of(made.source, at) / 500) for at in range(made.steps)]
    slow = [(0, Time(99.0, 99.0)), *((at, times[at]) for at in range(1, 3))]
    known = Known(Time(200.0, 300.0), slow, 72, Time(5.0, 6.0), 10, Time(7.0, 8.0), 40, Time(11.0, 12.0))
    alone, none = foretell(known, made)
    whole, further = foretell(replace(known, further=Further((1.0, 0.25))), made)
    steps = sum(time.seconds for time in times)
    each = 11.0 + 3 * 5.0 + 2 * 7.0 + 0.5 * 40  # its beginning, three evaluations, the base twice more, rows measured
    assert none == Time(0.0, 0.0)
    assert further.seconds == pytest.approx(2 * each + 1.25 * steps)
    assert whole.seconds == pytest.approx(alone.seconds + further.seconds)
    assert whole.cpu_seconds == pytest.approx(alone.cpu_seconds + further.cpu_seconds)


@pytest.mark.parametrize(
    ("settings", "shares", "unknown"),
    [
        ({}, (), False),
        ({"evaluation.seeds": 3}, (1.0, 1.0), False),
        ({"evaluation.seeds": 3, "data.test": 0.0}, (), False),
        ({"data.folds": 4}, (1.0, 1.0, 1.0), False),
        ({"data.folds": 4, "data.fold": 1}, (), False),
        ({"evaluation.curve": "method"}, (0.25, 0.5), False),
        ({"evaluation.curve": "method", "evaluation.quick": True}, (), False),
        ({"evaluation.scratch": True}, (), True),
        ({"data.folds": 2, "evaluation.seeds": 2, "evaluation.curve": "method"}, (0.25, 0.5, 1.0, 1.0), False),
    ],
)
def test_the_runs_that_are_foreseen(
    settings: dict[str, Any], shares: tuple[float, ...], unknown: bool, model_folder: Folder, table_file: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", settings)
    assert foreseen(recipe, prepare(recipe)) == Further(shares, unknown)


def test_those_foreseen_are_those_done(run: Path) -> None:
    made = [path for path in inside(run) if (path / "report.json").exists()]
    assert len(made) == 5
    recipe = Ledger.open(run).recipe()
    found = foreseen(recipe, prepare(recipe))
    assert len(found.shares) + found.unknown == report_of(run)["cost"]["beside"]["models"]


def test_a_run_tells_its_forecast_in_parts(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.epochs": 6, "evaluation.seeds": 2, "evaluation.quick": True}
    list(start(recipe_for(model_folder("bert"), table_file, "full", settings), tmp_path / "run").events())
    (told,) = [event for event in Ledger.open(tmp_path / "run").events() if isinstance(event, Forecast)]
    assert told.further == 1 and 0 < told.further_seconds < told.seconds
    kept = report_of(tmp_path / "run")["cost"]["forecast"]
    assert (kept["further_seconds"], kept["seconds"]) == (told.further_seconds, told.seconds)


def test_weights_of_runs_inside_are_let_go_and_what_they_measured_is_kept(run: Path) -> None:
    assert list((run / "model").glob("*.safetensors")) and list((run / "checkpoints").iterdir()), "its own are kept"
    for folder in inside(run):
        assert {path.name for path in (folder / "model").rglob("*")} == LEFT
        assert not (folder / "checkpoints").exists() and not (folder / "adapter").exists()
        for kept in ("report.json", "report.html", "recipe.yaml", "events.jsonl", "predictions/test.parquet"):
            assert (folder / kept).is_file(), kept
        with pytest.raises(ArtifactError, match=r"weights of this model were deleted.*tunesmith train --recipe"):
            load(folder)
    assert load(run).predict(["good bank"])


def test_letting_go_can_be_done_again_from_anywhere(tmp_path: Path) -> None:
    gone = ["checkpoints/b", "adapter/a", "model/model.safetensors", "model/1_Pooling/config.json"]
    for begun in range(5):
        folder = tmp_path / f"{begun}"
        for name in (*gone, "model/tunesmith.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("x")
        for name in gone[:begun]:  # as a kill on the way leaves it
            (folder / name).unlink()
        let_go(folder)
        let_go(folder)
        assert {path.name for path in folder.rglob("*") if path.is_file()} == LEFT
    let_go(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_runs_are_compared_by_what_was_spent_and_by_what_the_model_took() -> None:
    """b is a little better, and cheaper alone; with its seeds it is the dearer one."""

    def side(name: str, value: float, cost: dict[str, Any]) -> dict[str, Any]:
        curves = {"losses": [], "evaluations": [], "best_step": None}
        metric = {"value": value, "low": value - 0.02, "high": value + 0.02}
        return {"name": name, "method": "full", "metrics": {"accuracy": metric}, "curves": curves,
                "cost": {"peak_memory_mb": 100.0, **cost}}  # fmt: skip

    apart = {"accuracy": {"value": 0.01, "low": -0.02, "high": 0.03}}
    pair = {"from": "a", "to": "b", "p": 0.5, "adjusted": 0.5, "differing": 20, "differences": apart, "together": apart}
    found = {"primary": "accuracy", "lower": [], "confidence": 0.95, "rows": 500, "rows_of": {"a": 500, "b": 500},
             "left_out": [], "folds": {}, "pairs": [pair], "settings": [], "disagreements": {"count": 0, "examples": []},
             "groups": None, "level": 0.95, "stratified": False,
             "runs": [side("a", 0.90, {"cpu_seconds": 100.0, "delivered": {"cpu_seconds": 90.0}}),
                      side("b", 0.91, {"cpu_seconds": 300.0, "delivered": {"cpu_seconds": 60.0}})]}  # fmt: skip
    page = render_comparison(found)
    assert "Nothing here is both cheaper and better than: a, b, by all that was spent" in page
    assert "By what the delivered models took alone, at the left ends of the lines, it is another answer: b." in page
    assert "Spent in all" in page and "On this model alone" in page
    assert "300 CPU seconds in all, 60 for the delivered model" in page
    found["runs"][1]["cost"]["delivered"] = None  # as in a report of an earlier version: then it is all that is known
    assert (
        "By what the delivered models took alone, at the left ends of the lines, it is the same."
        in render_comparison(found)
    )
