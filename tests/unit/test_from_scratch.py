"""What did pretraining bring: a rival from random weights, whole, stopped and gone on with, or said why there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shortruns import recipe_for, stopped_when
from tunesmith import finetune
from tunesmith.errors import RecipeError
from tunesmith.from_scratch import scratch_recipe
from tunesmith.methods.base import Rates
from tunesmith.methods.scratch import Scratch
from tunesmith.pipeline import resume
from tunesmith.training.events import Evaluated, Event, Note

Folder = Callable[[str], Path]
# What a short timing would settle else, which comes out one way or the other on a machine with other work.
SETTLED = {"training.threads": 1, "training.precision": "float32", "evaluation.resamples": 100}
SHORT = {"training.epochs": 1, "evaluation.baselines": True, "evaluation.scratch": True, "evaluation.resamples": 100}


def test_the_rival_is_a_whole_run_of_its_own(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {**SHORT, **SETTLED}
    run = finetune(str(model_folder("sentence")), table_file, "full", settings=settings, out=tmp_path / "run")
    report = json.loads((run.path / "report.json").read_text())
    (rival,) = [item for item in report["baselines"] if item["name"] == "scratch"]
    assert rival["what"] == "the same architecture from random weights"
    inner = json.loads((run.path / "scratch" / "report.json").read_text())
    assert inner["method"] == "scratch" and inner["baselines"] == []
    assert rival["metrics"]["accuracy"]["value"] == inner["metrics"]["accuracy"]["value"], "measured as that run was"
    assert "gain" in rival or any("scratch" in str(item) for item in report["baselines"])
    alone = finetune(
        str(model_folder("sentence")),
        table_file,
        "scratch",
        settings=SETTLED,
        out=tmp_path / "alone",
    )
    one, other = (path / "predictions" / "test.safetensors" for path in (run.path / "scratch", alone.path))
    assert one.read_bytes() == other.read_bytes(), "as method scratch makes it"
    assert rival["seconds"] == inner["cost"]["seconds"]


def test_stopped_in_the_rival_it_goes_on_there(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {"training.epochs": 1, "evaluation.scratch": True})

    def in_it(events: list[Event]) -> bool:
        return any(isinstance(event, Note) and "from random weights, step" in event.lines[0] for event in events[8:])

    stopped_when(in_it, recipe, tmp_path / "run")
    begun = (tmp_path / "run" / "scratch" / "recipe.yaml").read_text()
    rest = list(resume(tmp_path / "run").events())
    assert (tmp_path / "run" / "report.json").exists()
    assert (tmp_path / "run" / "scratch" / "recipe.yaml").read_text() == begun
    assert not any(isinstance(event, Evaluated) for event in rest), "the run itself was at its end"
    names = [item["name"] for item in json.loads((tmp_path / "run" / "report.json").read_text())["baselines"]]
    assert names == ["scratch"]


def test_its_recipe_takes_rows_and_base_alone() -> None:
    recipe = recipe_for(Path("m"), Path("d.csv"), "lora", {"training.rate": 1.0, "retention.anchor": 2.0, **SHORT})
    found = scratch_recipe(recipe)
    assert found.method.part_name() == "scratch" and found.data == recipe.data and found.seed == recipe.seed
    assert (found.training.rate, found.training.epochs) == ("auto", "auto")
    assert found.retention.anchor == 0 and not found.evaluation.scratch


def test_a_base_that_cannot_start_anew_is_refused(model_folder: Folder, tmp_path: Path) -> None:
    for place, name in enumerate(("blue", "red")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for number in range(20):
            array = np.random.default_rng((place, number)).integers(0, 170, (40, 40, 3)).astype(np.uint8)
            array[..., 2 * place] += 80
            Image.fromarray(array).save(tmp_path / "pictures" / name / f"{number}.png")
    with pytest.raises(RecipeError, match=r"evaluation\.scratch: this base has batch norms"):
        finetune(str(model_folder("resnet")), tmp_path / "pictures", "head", settings=SHORT, out=tmp_path / "run")
    assert not (tmp_path / "run").exists(), "refused before anything is made"


def test_a_rival_that_fails_leaves_the_run_its_report(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scratch, "rates", lambda self, width, steps: Rates(1e30, 1e30, "absurd"))
    run = finetune(str(model_folder("sentence")), table_file, "full", settings=SHORT, out=tmp_path / "run")
    said = (run.path / "events.jsonl").read_text()
    assert "from random weights: came to nothing: step" in said and "is not finite" in said
    names = [item["name"] for item in json.loads((run.path / "report.json").read_text())["baselines"]]
    assert "probe" in names and "scratch" not in names


def test_without_test_rows_it_is_said_to_be_of_no_use(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {**SHORT, "data.test": 0.0}
    run = finetune(str(model_folder("sentence")), table_file, "head", settings=settings, out=tmp_path / "run")
    assert "not used: evaluation.scratch = True: there are no test rows" in (run.path / "events.jsonl").read_text()
    assert not (run.path / "scratch").exists()


def test_its_rates_are_adams() -> None:
    recipe = recipe_for(Path("m"), Path("d.csv"), "full", {"training.optimizer": "sgd", **SHORT})
    assert scratch_recipe(recipe).training.optimizer == "adamw"


def test_scratch_beside_scratch_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"evaluation\.scratch: method scratch is that already"):
        recipe_for(Path("m"), Path("d.csv"), "scratch", {"evaluation.scratch": True})
