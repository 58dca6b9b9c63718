"""L5: what is frozen stays bitwise, what is trainable moves, also when an evaluation came first.
L6: every attached module is the identity before the first step.

The contract suite holds both for every family and single steps; here for whole runs, in both number formats.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import METHODS, Bench, bench, recipe_for
from tunesmith.training.loop import train

Folder = Callable[[str], Path]


def _unmoved(made: Bench) -> set[str]:
    """Runs it, after an evaluation; the names of the parameters that are bitwise what they were."""
    import torch

    # In bfloat16 the masters are what moves: a step may be less than the last bit of the weights computed with.
    now = {**dict(made.run.network.named_parameters()), **made.run.masters.tensors}
    before = {name: value.detach().clone() for name, value in now.items()}
    assert made.run.evaluate is not None
    made.run.evaluate()
    for _ in train(made.run):
        pass
    return {name for name, value in now.items() if torch.equal(value, before[name])}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", list(METHODS))
def test_frozen_stays_and_trainable_moves(
    method: str, precision: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"training.precision": precision, "training.rate": 5e-3, "training.head_rate": 1e-2}
    made = bench(recipe_for(model_folder("bert"), table_file, METHODS[method], settings), tmp_path)
    assert _unmoved(made) == made.run.plan.frozen


def test_control_a_group_that_is_never_moved_is_noticed(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "full"), tmp_path)
    made.run.masters.optimizers.groups[0]["weight_decay"] = 0.0
    made.run.masters.optimizers.groups[0]["peak"] = 0.0
    assert _unmoved(made) == made.run.plan.frozen | set(made.run.plan.groups[0].parameters)


def test_control_weight_decay_on_what_is_frozen_is_noticed(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """An optimizer that was given a frozen parameter, too, decays it even without a gradient of its own."""
    import torch

    made = bench(recipe_for(model_folder("bert"), table_file, METHODS["layers"]), tmp_path)
    name = sorted(made.run.plan.frozen)[0]
    parameter = made.run.network.get_parameter(name)
    parameter.grad = torch.zeros_like(parameter)
    made.run.masters.optimizers.groups[0]["params"].append(parameter)
    assert _unmoved(made) == made.run.plan.frozen - {name}


@pytest.mark.parametrize("spoiled", [False, True], ids=["as attached", "control: up is not zero"])
def test_the_first_evaluation_is_that_of_the_untouched_base(
    spoiled: bool, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """The step-0 loss of LoRA equals that of the base with the same head."""
    settings = {"training.probe": False}
    made = {
        method: bench(recipe_for(model_folder("bert"), table_file, METHODS[method], settings), tmp_path / method)
        for method in ("full", "lora")
    }
    if spoiled:
        ups = [value for name, value in made["lora"].run.network.named_parameters() if name.endswith(".up")]
        ups[0].data.fill_(0.01)
    losses = []
    for item in made.values():
        assert item.run.evaluate is not None
        losses.append(item.run.evaluate().loss)
    assert (losses[0] == losses[1]) is not spoiled
