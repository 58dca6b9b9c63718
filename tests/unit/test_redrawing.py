"""The top blocks drawn anew: those alone, alike at every start, and nothing holds them to what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shortruns import METHODS, bench, differences, facts, recipe_for, stopped_and_taken_up
from tunesmith import finetune, load
from tunesmith.errors import RecipeError
from tunesmith.training.loop import train

Folder = Callable[[str], Path]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_the_top_blocks_alone_begin_anew(
    family: str, precision: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"training.precision": precision, "training.probe": False}
    plain = bench(recipe_for(model_folder(family), table_file, "full", settings), tmp_path / "plain")
    recipe = recipe_for(model_folder(family), table_file, "full", {**settings, "training.redraw": 1})
    made, again = (bench(recipe, tmp_path / name) for name in ("made", "again"))
    assert differences(made.tensors(), again.tensors()) == []
    before, after = plain.tensors(), made.tensors()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    top = made.run.network.layout.blocks[-1]
    assert changed and all(name.startswith(f"parameter/{top}.") for name in changed)
    assert made.built.redrawn >= {name.removeprefix("parameter/") for name in changed}
    weights = [after[name] for name in changed if after[name].ndim == 2]
    assert all(float(weight.std()) == pytest.approx(0.02, rel=0.2) for weight in weights), (
        "as the family begins a model"
    )


def test_a_resumed_run_goes_on(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.redraw": 2, "retention.anchor": 2.0}
    recipe = recipe_for(model_folder("bert"), table_file, {"name": "layers", "layers": 2}, settings)
    whole = bench(recipe, tmp_path / "whole")
    assert whole.built.start and not whole.built.start.keys() & whole.built.redrawn, "nothing pulls them back"
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert facts(train(again.run))[-1] == expected[-1]
    assert differences(whole.tensors(), again.tensors()) == []


def test_what_is_delivered_was_drawn_and_trained(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    run = finetune(
        str(model_folder("sentence")),
        table_file,
        "full",
        settings={"training.redraw": 1, "training.epochs": 1, "evaluation.baselines": False},
        out=tmp_path / "run",
    )
    assert "the top 1 of" in (run.path / "events.jsonl").read_text()
    body = load(run.path).network.get_submodule("body")
    untouched = load_body(model_folder("sentence"))
    top = untouched.encoder.layer[-1].state_dict()
    found: Any = body.encoder.layer[-1]
    matrices = [(name, value) for name, value in found.state_dict().items() if value.ndim == 2]
    assert matrices and not any(torch.allclose(top[name], value.float(), atol=1e-2) for name, value in matrices)


def load_body(folder: Path) -> Any:
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import resolve

    return load_backbone(resolve(str(folder))).module


@pytest.mark.parametrize(
    "settings", [{"retention.budget": 0.1}, {"retention.keep": "auto"}, {"retention.keep": 0.5}, {"retention.ewc": 1.0},
                 {"retention.distill": 1.0}],
)  # fmt: skip
def test_what_goes_back_to_the_base_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_for(Path("m"), Path("d.csv"), "full", {**settings, "training.redraw": 1})
    (problem,) = caught.value.problems
    assert problem.startswith(f"{next(iter(settings))}: goes back to the base")


@pytest.mark.parametrize(
    ("family", "method", "count", "said"),
    [
        ("bert", "lora", 1, "does not train with method lora, and would stay random; use full"),
        ("bert", "layers", 2, "does not train with method layers"),
        ("bert", "full", 9, "this base has 3 blocks, and 9 are asked for"),
        ("glove", "full", 1, "this base has no list of blocks"),
        ("bert", "scratch", 1, "method scratch draws every block"),
        ("sentence", "few_shot", 1, "would be an average with the base's own (0.5)"),
    ],
)
def test_what_it_does_not_fit_is_refused(
    family: str, method: str, count: int, said: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    task = {"task": {"name": method}} if method == "few_shot" else {}
    asked = METHODS.get(method, "full" if task else method)
    recipe = recipe_for(model_folder(family), table_file, asked, {"training.redraw": count, **task})
    with pytest.raises(RecipeError, match=r"training\.redraw: ") as caught:
        bench(recipe, tmp_path)
    assert said in str(caught.value)
