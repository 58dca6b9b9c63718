"""What a run may take: it ends in time with its best state, or is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from families import FAMILIES
from shortruns import recipe_for, write_rows
from tunesmith import limits
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.pipeline import start
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.specs import LimitSpec
from tunesmith.training.events import Evaluated, Finished, StepDone, Warned


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90s", 90.0), ("10m", 600.0), ("1.5 h", 5400.0), (45, 45.0), ("2d", 172_800.0), (None, None)],
)
def test_times_have_units(given: object, seconds: float | None) -> None:
    assert LimitSpec(time=given).time == seconds  # type: ignore[arg-type]


def test_sizes_and_electricity_have_units() -> None:
    assert LimitSpec(memory="4GB").memory == 4e9  # type: ignore[arg-type]
    assert LimitSpec(memory="800 mb").memory == 8e8  # type: ignore[arg-type]
    assert LimitSpec(energy="500mWh").energy == 0.5  # type: ignore[arg-type]
    assert LimitSpec(energy="1kWh").energy == 1000  # type: ignore[arg-type]


def test_what_is_no_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_for(tmp_path, tmp_path, settings={"limits.time": "ten minutes", "limits.memory": 0, "limits.power": 3})
    said = "\n".join(caught.value.problems)
    assert "limits.time" in said
    assert "such as 10s" in said
    assert "limits.memory" in said
    assert "limits.power" in said


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("limits")
    model, data = FAMILIES["bert"](folder / "model"), write_rows(folder / "rows.csv", 300)
    return recipe_for(model, data, settings={"training.epochs": 40, "evaluation.quick": True})


def limited(recipe: Recipe, **given: object) -> Recipe:
    return recipe.model_copy(update={"limits": LimitSpec(**given)})  # type: ignore[arg-type]


def test_training_ends_when_the_rest_of_the_time_is_needed(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = limited(asked, time=1e9)
    taken: list[float] = []

    def later(self: limits.Limits) -> limits.Time:  # after the seventh step all is needed
        taken.append(0.0)
        return limits.Time(1e12 if len(taken) > 8 else 0.0, 0.0)

    monkeypatch.setattr(limits.Limits, "after", later)
    events = list(start(recipe, tmp_path / "run").events())
    steps = [event.step for event in events if isinstance(event, StepDone)]
    assert steps[-1] == 7, "asked once before training, and before each step"
    assert [event.step for event in events if isinstance(event, Evaluated)][-1] == 7, "its last state is measured"
    end = next(event for event in events if isinstance(event, Finished))
    assert "limits.time" in end.why
    assert Run(tmp_path / "run").load().predict(["some text"]), "and a model is delivered"
    assert Run(tmp_path / "run").report["verdict"]


def test_a_run_without_limits_or_with_wide_ones_does_all_its_steps(asked: Recipe, tmp_path: Path) -> None:
    short = asked.model_copy(update={"training": asked.training.model_copy(update={"epochs": 1})})
    wide = limited(short, time=1e9, memory=1e15, energy=1e9)
    for number, recipe in enumerate((short, wide)):
        events = list(start(recipe, tmp_path / str(number)).events())
        assert next(event for event in events if isinstance(event, Finished)).why == "all epochs done"


@pytest.mark.parametrize(
    ("given", "words"),
    [({"time": 1e-3}, "limits.time"), ({"memory": 1e6}, "limits.memory"), ({"energy": 1e-9}, "limits.energy")],
)
def test_a_run_is_refused_where_no_step_is_left(
    asked: Recipe, tmp_path: Path, given: dict[str, float], words: str
) -> None:
    with pytest.raises(TrainingError, match=words):
        list(start(limited(asked, **given), tmp_path / "run").events())


def test_what_was_taken_beyond_a_limit_is_told(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes after training is foretold, and may take longer."""
    monkeypatch.setattr(limits.Limits, "enough", lambda self: "")
    short = asked.model_copy(update={"training": asked.training.model_copy(update={"epochs": 1})})
    events = list(start(limited(short, time=1e-3, energy=1e9), tmp_path / "run").events())
    (told,) = (event.message for event in events if isinstance(event, Warned) and "limits." in event.message)
    assert told.startswith("limits.time: ") and told.endswith("seconds were taken, and 0.001 were allowed")
    monkeypatch.undo()
    wide = list(start(limited(short, time=1e9, energy=1e9, memory=1e15), tmp_path / "wide").events())
    assert not any(isinstance(event, Warned) and "limits." in event.message for event in wide)


def test_a_limit_of_memory_makes_batches_smaller(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.training import preflight

    given: list[float | None] = []

    def told(most: float | None = None) -> int:
        given.append(most)
        return 1 << 40

    monkeypatch.setattr(preflight, "free_memory", told)
    recipe = limited(
        asked.model_copy(update={"training": asked.training.model_copy(update={"epochs": 1})}), memory=1e13
    )
    list(start(recipe, tmp_path / "run").events())
    assert set(given) == {1e13}, "the preflight knows of it"
