"""L2: observing changes nothing. Evaluations, the ledger and the preflight do not move one bit of training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shortruns import METHODS, Bench, bench, differences, recipe_for
from tunesmith.training.events import StepDone
from tunesmith.training.ledger import Ledger
from tunesmith.training.loop import train
from tunesmith.training.preflight import fitting_micro_batch

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]


def _losses(made: Bench, watch: Callable[[Bench], None]) -> list[float]:
    """The loss of every step, with `watch` called before the first and after each event."""
    watch(made)
    losses = []
    for event in train(made.run):
        losses += [event.loss] if isinstance(event, StepDone) else []
        watch(made)
    return losses


def _unwatched(made: Bench) -> tuple[list[float], dict[str, Tensor]]:
    made.run.evaluate = None
    return _losses(made, lambda run: None), made.tensors()


def _watch(made: Bench) -> None:
    """Everything that looks: an evaluation, a preflight, a line in the ledger, and a guest who draws random numbers."""
    import torch

    run, training = made.run, made.recipe.training
    assert run.evaluate is not None
    run.evaluate()
    sizes = [training.batch_size]
    fitting_micro_batch(run.network, run.task, run.plan, run.trunk, lambda size: run.source, sizes, training)
    Ledger(made.run.checkpoints.folder.parent).append(StepDone(0, 1, 0.0, 1.0, 1.0, 1.0, 1, 1, 1.0))
    torch.rand(3)


@pytest.mark.parametrize("method", list(METHODS))
def test_a_watched_run_equals_one_that_nobody_watched(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, METHODS[method], {"training.evaluations": 3})
    alone, tensors = _unwatched(bench(recipe, tmp_path / "alone"))
    (tmp_path / "watched").mkdir()
    watched = bench(recipe, tmp_path / "watched")
    assert _losses(watched, _watch) == alone
    assert differences(tensors, watched.tensors()) == []


def test_control_an_evaluation_on_the_same_generator_is_noticed(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout drawn from the process's generator, as most trainers do, whoever else draws changes the run."""
    import torch

    monkeypatch.setattr("tunesmith.training.step.torch_seed", lambda *parts: nullcontext())
    recipe = recipe_for(model_folder("bert"), table_file, "full")
    torch.manual_seed(1)
    alone, _ = _unwatched(bench(recipe, tmp_path / "alone"))
    (tmp_path / "watched").mkdir()
    watched = bench(recipe, tmp_path / "watched")
    torch.manual_seed(1)
    assert _losses(watched, _watch) != alone


def test_control_an_evaluation_that_leaves_the_network_in_its_mode_is_noticed(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.training.loop.set_mode", lambda network, plan: None)
    recipe = recipe_for(model_folder("bert"), table_file, "full")
    alone = bench(recipe, tmp_path / "alone")
    alone.run.network.train()
    expected, _ = _unwatched(alone)
    (tmp_path / "watched").mkdir()
    watched = bench(recipe, tmp_path / "watched")
    watched.run.network.train()
    assert _losses(watched, lambda made: made.run.evaluate() and None) != expected
