"""Soups: the average of a run's states, or of those that bring something; delivered, and the same after a stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from shortruns import METHODS, bench, facts, recipe_for, stopped_and_taken_up
from tunesmith import finetune
from tunesmith.assembly import best_parameters
from tunesmith.errors import RecipeError
from tunesmith.finishing import finished
from tunesmith.training.loop import Measured, train
from tunesmith.training.soup import Ingredients, average, greedy, uniform

Folder = Callable[[str], Path]


def _kept(folder: Path, points: Mapping[int, tuple[float, float]]) -> Ingredients:
    kept = Ingredients(folder / "soup")
    for step, values in points.items():
        kept.add(step, {"w": torch.tensor(values)})
    return kept


def _near(goal: tuple[float, float]) -> Callable[[Mapping[str, Tensor]], Measured]:
    """The nearer to a point, the better."""

    def measure(tensors: Mapping[str, Tensor]) -> Measured:
        far = float((tensors["w"] - torch.tensor(goal)).norm())
        return Measured("nearness", -far, -far, 0.1, far)

    return measure


def test_all_states_count_alike(tmp_path: Path) -> None:
    found, said = uniform(_kept(tmp_path, {10: (0.0, 3.0), 20: (3.0, 0.0), 30: (6.0, 3.0)}))
    assert torch.equal(found["w"], torch.tensor([3.0, 2.0]))
    assert said == "the average of the states after 10, 20 and 30 steps"


def test_greedy_takes_what_makes_it_better(tmp_path: Path) -> None:
    """By hand: the best alone lies at distance 1; with the second the mean is the goal; the far one spoils it."""
    kept = _kept(tmp_path, {10: (-1.0, 0.0), 20: (1.1, 0.0), 30: (0.0, 9.0)})
    found, what, said = greedy(kept, _near((0.0, 0.0)))
    assert torch.allclose(found["w"], torch.tensor([0.05, 0.0]))
    assert what == "the average of the states after 10 and 20 steps" and said.startswith(f"{what}: nearness -0.0500")
    assert said.endswith("; the best of the 3 states alone, after 10 steps: -1.0000 and 1.0000")
    alone, _, said = greedy(kept, _near((-1.0, 0.0)))
    assert torch.equal(alone["w"], torch.tensor([-1.0, 0.0]))
    assert said.startswith("the state after 10 steps alone: ") and said.endswith(
        "; no average of the 3 states is better"
    )


def test_an_average_is_of_each_tensor() -> None:
    states = [{"a": torch.full((2,), float(value)), "b": torch.tensor([[2.0 * value]])} for value in (1, 2, 6)]
    found = average(states)
    assert torch.equal(found["a"], torch.full((2,), 3.0)) and torch.equal(found["b"], torch.tensor([[6.0]]))
    assert torch.equal(states[0]["a"], torch.ones(2)), "nothing is changed in place"


@pytest.mark.parametrize("kind", ["uniform", "greedy"])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_delivers_the_average(
    kind: str, ema: float, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"training.soup": kind, "training.evaluations": 2, "training.ema": ema}
    recipe = recipe_for(model_folder("bert"), table_file, METHODS["full"], settings)
    made = bench(recipe, tmp_path)
    states: dict[int, dict[str, Tensor]] = {}
    evaluate = made.run.evaluate
    assert evaluate is not None

    def watched() -> Measured:
        states[made.run.state.step] = {k: v.detach().clone() for k, v in made.run.masters.tensors.items()}
        return evaluate()

    made.run.evaluate = watched
    list(train(made.run))
    made.run.evaluate = evaluate
    del states[0]
    assert made.run.soup is not None and made.run.soup.steps() == sorted(states) and len(states) == 4
    made.run.state.carry = type(made.run.state.carry)(**{**vars(made.run.state.carry), "best_step": max(states)})
    found, notes = finished(recipe, made.prepared, made.encoded, made.built, made.run, best_parameters(made.run))
    (said,) = notes[0].lines
    assert "state" in said
    if kind == "uniform":
        expected = average(list(states.values()))
        assert all(torch.allclose(found[name], value, atol=1e-7) for name, value in expected.items())
    else:
        chosen = [
            int(step) for step in said.partition("after ")[2].partition(" steps")[0].replace(" and ", ", ").split(", ")
        ]
        assert said.startswith("the average of") == (len(chosen) > 1)
        expected = average([states[step] for step in chosen])
        assert all(torch.allclose(found[name], value, atol=1e-6) for name, value in expected.items())


def test_a_resumed_run_has_the_same_states(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, METHODS["lora"], {"training.soup": "uniform"})
    whole = bench(recipe, tmp_path / "whole")
    expected = facts(train(whole.run))
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert facts(train(again.run))[-1] == expected[-1]
    assert whole.run.soup is not None and again.run.soup is not None
    one, other = uniform(whole.run.soup)[0], uniform(again.run.soup)[0]
    assert all(torch.equal(one[name], other[name]) for name in one) and one.keys() == other.keys()


def test_from_the_command_line_on(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.soup": "greedy", "training.epochs": 3, "evaluation.baselines": False}
    run = finetune(str(model_folder("sentence")), table_file, "full", settings=settings, out=tmp_path / "run")
    said = (run.path / "events.jsonl").read_text()
    assert "average of the states after" in said or "is better" in said
    end = json.loads(said.strip().split("\n")[-1])
    assert end["kind"] == "finished" and end["delivered"].startswith(("the average of the states", "the state after"))
    assert json.loads((run.path / "report.json").read_text())["curves"]["best_step"] is None
    assert not (run.path / "checkpoints" / "soup").exists(), "what was kept for it is gone"


def test_greedy_needs_validation_rows(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {"training.soup": "greedy", "data.validation": 0.0})
    with pytest.raises(RecipeError, match=r"training.soup: greedy chooses on validation rows, and there are none"):
        bench(recipe, tmp_path)
