"""A moving average of the trained weights: what is measured and delivered, while training goes on as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shortruns import METHODS, bench, differences, facts, recipe_for, stopped_and_taken_up
from tunesmith.assembly import best_parameters
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
FAST = {"training.rate": 5e-3, "training.epochs": 3}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_average_is_that_of_every_step(method: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, METHODS[method], {**FAST, "training.ema": 0.6})
    made = bench(recipe, tmp_path / "run")
    masters = made.run.masters
    wanted = {name: value.detach().clone() for name, value in masters.tensors.items()}
    steps = 0
    for event in train(made.run):
        if event.kind == "step":
            decay = min(0.6, (1 + steps) / (10 + steps))
            wanted = {
                name: decay * value + (1 - decay) * masters.tensors[name].detach() for name, value in wanted.items()
            }
            steps += 1
    assert steps > 5
    for name, value in masters.averages.items():
        assert torch.allclose(value, wanted[name], atol=1e-6), name
    assert differences(masters.averages, {name: value.detach() for name, value in masters.tensors.items()}) != []


def test_it_is_measured_and_delivered_and_moves_no_training(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = bench(recipe_for(model_folder("bert"), table_file, "full", FAST), tmp_path / "plain")
    made = bench(recipe_for(model_folder("bert"), table_file, "full", {**FAST, "training.ema": 0.9}), tmp_path / "made")
    without, found = facts(train(plain.run)), facts(train(made.run))
    losses = [[fact["loss"] for fact in one if fact["kind"] == "step"] for one in (without, found)]
    assert losses[0] == losses[1]
    last = [[fact for fact in one if fact["kind"] == "evaluated"][-1] for one in (without, found)]
    assert last[0]["loss"] != last[1]["loss"], "the control: the average is another network"
    assert made.run.evaluate is not None
    with made.run.masters.averaged():
        assert made.run.evaluate().loss == last[1]["loss"]
    assert differences(plain.tensors(), {k: v for k, v in made.tensors().items() if not k.startswith("average/")}) == []
    if made.run.state.carry.best_step == made.run.state.step:
        assert differences(best_parameters(made.run), dict(made.run.masters.averages)) == []
    made.run.state.carry = made.run.state.carry.__class__(best_step=made.run.checkpoints.steps()[-2])
    earlier = made.run.checkpoints.load_step(made.run.checkpoints.steps()[-2]).tensors
    averages = {key.removeprefix("average/"): value for key, value in earlier.items() if key.startswith("average/")}
    assert differences(best_parameters(made.run), averages) == []


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_goes_on_with_its_average(
    precision: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        model_folder("bert"), table_file, "full", {**FAST, "training.ema": 0.9, "training.precision": precision}
    )
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert expected[-1] == facts(train(again.run))[-1]
    assert differences(whole.tensors(), again.tensors()) == []
