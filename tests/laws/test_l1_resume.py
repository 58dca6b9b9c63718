"""L1: a resumed run equals an uninterrupted one, bitwise on the CPU, from every step."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, Bench, bench, differences, facts, recipe_for, same_model
from tunesmith.pipeline import resume, start
from tunesmith.recipe import Recipe
from tunesmith.training.events import Finished, Stopped
from tunesmith.training.loop import train

Folder = Callable[[str], Path]
CASES = [
    *((method, precision, "adamw") for method in METHODS for precision in ("float32", "bfloat16")),
    ("full", "float32", "sgd"),
]
BY_TOKENS: dict[str, Any] = {"training.batch_size": None, "training.batch_tokens": 200}


def _recipe(
    model: Path, data: Path, method: str, precision: str, optimizer: str, more: dict[str, Any] | None = None
) -> Recipe:
    settings = {
        **(more or {}),
        "training.precision": precision,
        "training.optimizer": optimizer,
        "training.evaluations": 2,
        "training.rate": 1e-3,
        "training.head_rate": 1e-2,
        "training.probe": precision == "float32",
    }
    return recipe_for(model, data, METHODS[method], settings)


def _stopped_at_every_step(recipe: Recipe, folder: Path) -> tuple[list[list[dict[str, Any]]], list[Path]]:
    """One process that is stopped before each step: for each, the facts so far and a copy of what is on the disk."""
    made = bench(recipe, folder / "run")
    so_far: list[dict[str, Any]] = []
    known, copies = [], []
    for step in range(made.run.steps):
        made.run.stop = lambda step=step: made.run.state.step >= step
        events = list(train(made.run))
        assert isinstance(events[-1], Stopped)
        so_far = [*so_far, *facts(events)]
        copies.append(Path(shutil.copytree(folder / "run", folder / f"at-{step}")))
        known.append(so_far)
    return known, copies


def _resumed(
    recipe: Recipe, folder: Path, spoil: Callable[[Any], None] = lambda state: None
) -> tuple[Bench, list[Any]]:
    """Another process, that goes on from what is on the disk: what it made, and the facts it gave."""
    made = bench(recipe, folder)
    state, damaged = made.run.checkpoints.load()
    assert damaged == []
    spoil(state)
    made.run.masters.restore(state.tensors)
    made.run.state = state
    return made, facts(train(made.run))


def _equal_from_every_step(recipe: Recipe, tmp_path: Path) -> None:
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    assert whole.run.steps >= 6
    for step, (known, copy) in enumerate(zip(*_stopped_at_every_step(recipe, tmp_path), strict=True)):
        resumed, found = _resumed(recipe, copy)
        assert [*known, *found] == expected, f"events after stopping at step {step}"
        assert differences(whole.tensors(), resumed.tensors()) == [], f"after stopping at step {step}"
        assert resumed.run.state.carry == whole.run.state.carry


@pytest.mark.parametrize(("method", "precision", "optimizer"), CASES)
def test_resumed_equals_uninterrupted_from_every_step(
    method: str, precision: str, optimizer: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    _equal_from_every_step(_recipe(model_folder("bert"), table_file, method, precision, optimizer), tmp_path)


@pytest.mark.parametrize("batches", ["similar", "random"])
@pytest.mark.parametrize("method", ["full", "layers"])
def test_steps_of_so_many_tokens_are_resumed_too(
    method: str, batches: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """Of other batches in every epoch, and not as many."""
    more = {**BY_TOKENS, "training.batches": batches}
    _equal_from_every_step(_recipe(model_folder("bert"), table_file, method, "float32", "adamw", more), tmp_path)


@pytest.mark.parametrize("method", list(METHODS))
def test_control_a_state_without_its_optimizer_is_noticed(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = _recipe(model_folder("bert"), table_file, method, "float32", "adamw")
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))

    def forget(state: Any) -> None:
        state.tensors = {name: value for name, value in state.tensors.items() if not name.startswith("optimizer/")}

    known, copies = _stopped_at_every_step(recipe, tmp_path)
    resumed, found = _resumed(recipe, copies[2], forget)
    assert [*known[2], *found] != expected
    assert differences(whole.tensors(), resumed.tensors()) != []


def test_control_a_wrong_memory_of_the_best_is_noticed(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = _recipe(model_folder("bert"), table_file, "full", "float32", "adamw")
    whole = bench(recipe, tmp_path / "whole")
    for _ in train(whole.run):
        pass

    def misremember(state: Any) -> None:
        state.carry = replace(state.carry, best_value=2.0)

    _, copies = _stopped_at_every_step(recipe, tmp_path)
    resumed, _ = _resumed(recipe, copies[5], misremember)
    assert resumed.run.state.carry != whole.run.state.carry


@pytest.mark.parametrize("method", list(METHODS))
def test_a_whole_run_stopped_and_resumed_leaves_the_same_model(
    method: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = _recipe(model_folder("sentence"), table_file, method, "float32", "adamw")
    assert isinstance(list(start(recipe, tmp_path / "whole").events())[-1], Finished)
    asked = iter([False, False, False, True])
    assert isinstance(list(start(recipe, tmp_path / "cut", stop=lambda: next(asked)).events())[-1], Stopped)
    assert isinstance(list(resume(tmp_path / "cut").events())[-1], Finished)
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
