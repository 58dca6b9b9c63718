"""R-Drop: every task has a measure of two passes over its rows, or refuses it; and what it does to a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import SAMPLES, Case, families_of, set_up
from torch import Tensor

from shortruns import bench, differences, facts, recipe_for, stopped_and_taken_up
from tunesmith.data.encode import IGNORED
from tunesmith.errors import RecipeError
from tunesmith.models.backbone import load_backbone
from tunesmith.models.resolve import resolve
from tunesmith.tasks.base import Task
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
WITHOUT = ("embedding", "question_answering")
BY_TOKEN = ("token_classification", "instruction", "causal_lm", "masked_lm", "seq2seq")


@pytest.mark.parametrize("task", sorted(SAMPLES))
def test_two_outputs_of_a_batch(task: str, model_folder: Folder) -> None:
    family = families_of(task)[0]
    options = (("template", "plain"),) if task == "instruction" else ()
    made = set_up(Case(task, "full", family, options, ()), load_backbone(resolve(str(model_folder(family)))))
    assert (type(made.task).disagreement is Task.disagreement) == (task in WITHOUT)
    if task in WITHOUT or made.task.joint:
        return
    batch = made.batch
    if task == "masked_lm":
        batch = made.task.varied(batch, 0, 0, made.network.processor)
    made.network.train()
    torch.manual_seed(0)
    first = made.network(batch.inputs)
    second = (first + torch.randn_like(first)).detach()
    apart = _apart(made.task, first, second, batch)
    apart.backward()
    assert float(apart.detach()) > 0.1
    assert any(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in made.network.parameters())
    assert float(_apart(made.task, second, second, batch)) == pytest.approx(0.0, abs=1e-5)
    assert float(_apart(made.task, second, first, batch).detach()) == pytest.approx(float(apart.detach()), rel=1e-5)
    if task in BY_TOKEN:
        assert batch.target is not None
        target = batch.target[:, : first.shape[1]]
        behind = target if task in ("token_classification", "masked_lm", "seq2seq") else target.roll(-1, 1)
        if behind is not target:
            behind[:, -1] = IGNORED
        elsewhere = second + (behind == IGNORED)[..., None] * torch.randn_like(second)
        assert not torch.equal(elsewhere, second)
        same = float(_apart(made.task, first, elsewhere, batch).detach())
        assert same == pytest.approx(float(apart.detach()), rel=1e-5), "what is not learned is not compared"


def _apart(task: Task, first: Tensor, second: Tensor, batch: Any) -> Tensor:
    found = task.disagreement(first, second, batch)
    assert found is not None
    return found


def test_a_run_learns_from_both_passes_and_goes_on_alike(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {"training.r_drop": 2.0})
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert facts(train(again.run))[-1] == expected[-1]
    assert differences(whole.tensors(), again.tensors()) == []
    one = bench(recipe_for(model_folder("bert"), table_file, "full"), tmp_path / "one")
    assert facts(train(one.run)) != expected


@pytest.mark.parametrize(
    ("family", "settings", "said"),
    [
        ("llama", {}, "training.r_drop: with method full training drops nothing of this base out"),
        ("gpt2", {"method": "head"}, "training.r_drop: with method head training drops nothing of this base out"),
        ("sentence", {"task": {"name": "few_shot"}}, "training.r_drop: task few_shot has no measure of two passes"),
        (
            "bert",
            {"training.dropout": 0.0},
            "training.r_drop: with method full training drops nothing of this base out",
        ),
    ],
)
def test_what_it_brings_nothing_to_is_refused(
    family: str, settings: dict[str, Any], said: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(
        model_folder(family), table_file, settings.get("method", "full"), {**settings, "training.r_drop": 1.0}
    )
    with pytest.raises(RecipeError) as caught:
        bench(recipe, tmp_path)
    assert caught.value.problems[0].startswith(said)


def test_a_base_that_drops_out_by_functions_is_taken(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    made = bench(recipe_for(model_folder("bart"), table_file, "full", {"training.r_drop": 1.0}), tmp_path)
    assert made.run.training.r_drop == 1.0
