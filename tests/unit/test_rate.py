"""Finding a learning rate: from the documented one outwards, judged on validation rows, and nothing tried twice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from families import FAMILIES
from shortruns import recipe_for, write_rows
from tunesmith import rating as rating_module
from tunesmith.cli.main import run as cli
from tunesmith.errors import ArtifactError, RecipeError, TrainingError
from tunesmith.pipeline import start
from tunesmith.rating import FOUND, PAGE, TUNED, Chosen, Rating, Tried, rating
from tunesmith.recipe import Recipe, read_recipe_file
from tunesmith.runs import Run
from tunesmith.selection.rates import REACH, lost, next_step, shares, taken
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Event, Note, Stopped, Warned
from tunesmith.trying import Judged

BASE = {"training.rate": "auto", "data.validation": 0.2, "training.epochs": 2}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("rate")
    return recipe_for(FAMILIES["bert"](folder / "model"), write_rows(folder / "rows.csv", 120), "full", BASE)


def last(events: Iterator[Event]) -> Event:
    return list(events)[-2]  # before the command to go on with


def walk(value: dict[int, float]) -> list[int]:
    """Which steps are tried where quality is that."""
    ranks: dict[int, tuple[float, float]] = {}
    while (step := next_step(ranks)) is not None:
        ranks[step] = (value.get(step, -1.0), 0.0)
    return list(ranks)


def test_it_goes_outwards_until_quality_falls() -> None:
    assert walk({0: 0.9, -1: 0.8, 1: 0.8}) == [0, -1, 1]
    assert walk({0: 0.8, -1: 0.9, -2: 0.7, 1: 0.7}) == [0, -1, 1, -2]
    assert walk({0: 0.7, -1: 0.6, 1: 0.8, 2: 0.9, 3: 0.95}) == [0, -1, 1, 2, 3], "and no further"
    assert walk({0: 0.8, -1: 0.8, 1: 0.8}) == [0, -1, 1], "as good as the documented one is none better"
    nothing = dict.fromkeys(range(-REACH, 1), -math.inf)
    assert walk(nothing | {1: -math.inf}) == [0, -1, 1, -2, -3], "where all diverge, lower"


@given(st.integers(-REACH, REACH), st.floats(0.1, 2.0))
def test_of_quality_with_one_peak_the_peak_is_found(peak: int, steepness: float) -> None:
    value = {step: 1.0 - steepness * abs(step - peak) for step in range(-REACH, REACH + 1)}
    tried = walk(value)
    assert peak in tried and len(tried) == len(set(tried)) <= abs(peak) + 3


def test_few_rows_are_learned_from_whole_and_many_in_part() -> None:
    assert shares(2_000) == (1.0,)
    assert shares(10_000) == (0.1, 0.4)
    assert shares(3_000) == (1 / 3, 1.0)
    assert shares(3_000, 2_000) == (1.0,) and shares(100_000, 5_000) == (0.05, 0.1)


def test_only_what_is_plainly_behind_is_ended() -> None:
    assert lost(0.5, 0.02, 0.6, 0.02)
    assert not lost(0.0, 0.0, 1.0, 0.0), "of one row, nothing is plain"
    assert not lost(0.56, 0.02, 0.6, 0.02) and not lost(0.7, 0.02, 0.6, 0.02)


def scores(right: int) -> Scores:
    import numpy as np

    predicted = np.array([1] * right + [0] * (100 - right))
    metrics = {"accuracy": lambda found: float((found["truth"] == found["predicted"]).mean())}
    return Scores(
        {"truth": np.ones(100, np.int64), "predicted": predicted}, metrics, "accuracy", frozenset({"accuracy"})
    )


def test_another_rate_is_taken_only_where_rows_tell_it_from_the_documented_one() -> None:
    def at(**right: int) -> int:
        steps = {"low": -1, "own": 0, "high": 1}
        return taken(
            [steps[name] for name in right], [scores(count) for count in right.values()], [1.0] * 3, "accuracy", 0
        )

    assert at(low=70, own=80, high=75) == 0
    assert at(low=80, own=80, high=80) == 0
    assert at(low=90, own=80, high=80) == -1
    assert at(low=80, own=60, high=80) == -1, "the lower of two that are as near"


def test_what_is_found_is_kept_and_trains(asked: Recipe, tmp_path: Path) -> None:
    found = list(rating(asked, tmp_path / "rate").events())
    chosen = next(event for event in found if isinstance(event, Chosen))
    tried = [event for event in found if isinstance(event, Tried)]
    assert {one.step for one in tried} >= {-1, 0, 1} and all(one.done for one in tried)
    plain = json.loads((tmp_path / "rate" / FOUND).read_text())
    assert plain["chosen"]["rate"] == chosen.rate == pytest.approx(chosen.documented * 3.0**chosen.step)
    page = (tmp_path / "rate" / PAGE).read_text()
    assert f"{chosen.rate:.3g}" in page and all(f"{one.value:.4f}" in page for one in tried)
    tuned = Recipe.parse(read_recipe_file(tmp_path / "rate" / TUNED))
    assert tuned.training.rate == chosen.rate
    assert tuned.model_copy(update={"training": asked.training}) == asked, "and nothing else is changed"
    assert not list(tmp_path.rglob("weights.safetensors")) and not list(tmp_path.rglob("checkpoints"))
    for _ in start(tuned.model_copy(update={"evaluation": asked.evaluation}), tmp_path / "run").events():
        pass
    derived = {item["key"] for item in Run(tmp_path / "run").report["derived"]}
    assert "training.rate" not in derived, "it is what was asked for"


def test_nothing_is_tried_twice(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = list(rating(asked, tmp_path).events())
    monkeypatch.setattr(rating_module, "train_trial", None)  # would fail if it were asked
    again = list(rating(asked, tmp_path).events())
    chosen = [next(event for event in events if isinstance(event, Chosen)) for events in (first, again)]
    assert chosen[0] == chosen[1]


def test_stopped_in_a_trial_it_goes_on_and_comes_to_the_same(asked: Recipe, tmp_path: Path) -> None:
    whole = next(event for event in rating(asked, tmp_path / "whole").events() if isinstance(event, Chosen))
    asking = {"count": 0}

    def stop() -> bool:
        asking["count"] += 1
        return asking["count"] > 9

    events = list(rating(asked, tmp_path / "run", stop=stop, command="again").events())
    assert isinstance(events[-1], Stopped) and events[-1].resume == "again"
    on = list(rating(asked, tmp_path / "run").events())
    assert next(event for event in on if isinstance(event, Chosen)) == whole
    plain = [json.loads((tmp_path / name / FOUND).read_text())["tried"] for name in ("whole", "run")]
    assert [(one["step"], one["value"], one["loss"]) for one in plain[0]] == [
        (one["step"], one["value"], one["loss"]) for one in plain[1]
    ]


def test_another_rate_is_confirmed_on_more_rows(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rating_module, "taken", lambda steps, *_: 1 if 1 in steps else 0)
    found = list(rating(asked, tmp_path, rows=20).events())
    tried = [event for event in found if isinstance(event, Tried)]
    assert {one.rows for one in tried[:3]} == {20} and [one.step for one in tried[-2:]] == [1, 0]
    assert {one.rows for one in tried[-2:]} == {72}
    chosen = next(event for event in found if isinstance(event, Chosen))
    assert chosen.step == 1 and "on 20 rows" not in chosen.why


def test_where_more_rows_come_to_nothing_the_few_decide(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rating_module.train_trial

    def few(shared: object, recipe: Recipe, *further: object, **named: object) -> Iterator[Event]:
        if recipe.data.share == 1:
            raise MemoryError
        return (yield from whole(shared, recipe, *further, **named))

    monkeypatch.setattr(rating_module, "train_trial", few)
    monkeypatch.setattr(rating_module, "taken", lambda steps, *_: 1 if 1 in steps else 0)
    found = list(rating(asked, tmp_path, rows=20).events())
    failed = [event for event in found if isinstance(event, Tried) and event.share == 1]
    assert len(failed) == 2 and not any(one.done for one in failed)
    assert next(event for event in found if isinstance(event, Chosen)).step == 1
    lines = next(event.lines for event in found if isinstance(event, Note) and "taken" in "".join(event.lines))
    assert any("taken" in line and " 20 " in line for line in lines)


def test_the_documented_rate_needs_no_confirming(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rating_module, "taken", lambda steps, *_: 0)
    found = list(rating(asked, tmp_path, rows=20).events())
    assert {event.rows for event in found if isinstance(event, Tried)} == {20}


def test_a_trial_that_is_plainly_behind_is_ended(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rating_module, "lost", lambda *_: True)
    found = list(rating(asked, tmp_path).events())
    tried = {event.step: event for event in found if isinstance(event, Tried)}
    assert tried[0].done and not tried[-1].done and not tried[1].done, "there is none to be behind of at first"
    assert "ended after evaluation 1 of 2" in tried[1].why
    assert [len(tried[step].ranks) for step in (0, 1)] == [2, 1]
    assert next(event for event in found if isinstance(event, Chosen)).step == 0
    assert sum(isinstance(event, Judged) for event in found) == 4


def test_a_trial_taken_up_again_is_compared_evaluation_by_evaluation() -> None:
    seen = [Judged(evaluation, 5, "accuracy", 0.1 * evaluation, 0.1 * evaluation, 0.01) for evaluation in (3, 4)]
    ranks = rating_module._course(seen, [one.rank for one in seen])
    assert ranks == (None, None, pytest.approx(0.3), pytest.approx(0.4)), "what came before it was killed is not known"
    best = Tried(0, 1e-4, 100, 1.0, ranks=ranks, errors=(None, None, 0.01, 0.01))
    low = Judged(3, 5, "accuracy", 0.05, 0.05, 0.01)
    assert "far behind" in rating_module._behind(low, best)
    assert not rating_module._behind(Judged(4, 5, "accuracy", 0.39, 0.39, 0.01), best)
    assert not rating_module._behind(low, Tried(0, 1e-4, 100, 1.0)), "of one without a course nothing is known"


def test_a_trial_that_breaks_is_told_and_the_others_go_on(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rating_module.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> Iterator[Event]:
        if isinstance(recipe.training.rate, float) and recipe.training.rate > 1e-2:
            raise RuntimeError("no memory is left\nand more")
        return (yield from whole(shared, recipe, *further, **named))

    monkeypatch.setattr(rating_module, "train_trial", some)
    training = asked.training.model_copy(update={"rate": 5e-3})
    found = list(rating(asked.model_copy(update={"training": training}), tmp_path).events())
    tried = {event.step: event for event in found if isinstance(event, Tried)}
    assert tried[1].why == "RuntimeError: no memory is left" and tried[0].done
    assert any(isinstance(event, Chosen) for event in found)


def test_a_metric_that_cannot_be_told_is_no_value() -> None:
    result = rating_module.Result({"spearman": math.nan}, (), "spearman", 1.0, 0.0, 1.0, 1.0, 1)
    told = rating_module._judged(Tried(0, 1e-4, 100, 1.0), result, [], "auto")
    assert not told.done and told.value is None and "cannot be told" in told.why


def test_a_trial_that_ends_with_nothing_to_tell_keeps_what_it_had() -> None:
    course = [(1, 0.3), (2, math.nan)]
    seen = [Judged(evaluation, 3, "f1", value, value, value / 10) for evaluation, value in course]
    told = rating_module._judged(Tried(0, 1e-4, 100, 1.0, why="not finite"), None, seen, "auto")
    assert told.value == 0.3 and told.rank == 0.3, "which JSON and the page can hold"
    assert rating_module._course(seen, [one.rank for one in seen]) == (0.3, None)
    assert rating_module._judged(Tried(0, 1e-4, 100, 1.0, why="not finite"), None, seen[1:], "auto").value is None


def test_a_rate_that_the_recipe_names_is_not_called_the_documented_one(asked: Recipe, tmp_path: Path) -> None:
    training = asked.training.model_copy(update={"rate": 2e-4, "epochs": 1})
    events = list(rating(asked.model_copy(update={"training": training}), tmp_path).events())
    assert next(event.rate for event in events if isinstance(event, Tried)) == 2e-4
    said = "".join(line for event in events if isinstance(event, Note) for line in event.lines)
    assert "documented" not in f"{said}{(tmp_path / PAGE).read_text()}" and "recipe's own" in said


def test_limits_of_the_recipe_hold(asked: Recipe, tmp_path: Path) -> None:
    limits = asked.limits.model_copy(update={"time": 60.0})
    assert rating(asked.model_copy(update={"limits": limits}), tmp_path).most == 60
    assert rating(asked.model_copy(update={"limits": limits}), tmp_path, most=5).most == 5


def test_limits_that_are_not_looked_at_are_told(asked: Recipe, tmp_path: Path) -> None:
    limits = asked.limits.model_copy(update={"energy": 5.0})
    events = rating(asked.model_copy(update={"limits": limits}), tmp_path).events()
    told = next(event for event in events if event.kind in ("warned", "step"))
    assert isinstance(told, Warned) and told.message.startswith("limits.energy: is not looked at")


def test_a_head_alone_has_a_rate_of_its_own(asked: Recipe, tmp_path: Path) -> None:
    plain = {**asked.to_plain(), "method": "head"}
    found = list(rating(Recipe.parse(plain), tmp_path).events())
    chosen = next(event for event in found if isinstance(event, Chosen))
    assert chosen.key == "training.head_rate" and chosen.documented == 1e-3
    tuned = Recipe.parse(read_recipe_file(tmp_path / TUNED))
    assert tuned.training.head_rate == chosen.rate and tuned.training.rate == "auto"


def test_where_every_trial_diverges_the_reasons_are_told(asked: Recipe, tmp_path: Path) -> None:
    training = asked.training.model_copy(update={"rate": 1e30, "warmup": 0.0})
    with pytest.raises(TrainingError) as error:
        list(rating(asked.model_copy(update={"training": training}), tmp_path).events())
    assert "no rate could be trained with" in error.value.problems[0]
    assert len(error.value.problems) > 3 and "training.rate=1e+30" in "".join(error.value.problems)


def test_time_that_is_too_short_is_told(asked: Recipe, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--max-time: 1e-09 s passed before one rate was tried"):
        list(rating(asked, tmp_path, most=1e-9).events())


def test_when_time_is_over_the_best_so_far_is_taken(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rating, "_late", lambda self: len(self._tried) == 2)
    made = rating(asked, tmp_path, most=60)
    chosen = next(event for event in made.events() if isinstance(event, Chosen))
    assert chosen.why == "the best when 60 seconds were over"


def test_what_cannot_be_tried_is_refused(asked: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="method: auto chooses rates"):
        rating(asked.model_copy(update={"method": "auto"}), tmp_path)
    with pytest.raises(RecipeError, match=r"data\.folds"):
        rating(asked.model_copy(update={"data": asked.data.model_copy(update={"folds": 3})}), tmp_path)
    with pytest.raises(RecipeError, match=r"data\.validation"):
        list(
            rating(
                asked.model_copy(update={"data": asked.data.model_copy(update={"validation": 0.0})}), tmp_path / "none"
            ).events()
        )
    assert not (tmp_path / "none").exists(), "what cannot be begun leaves nothing behind"


def test_a_folder_of_something_else_is_left_alone(asked: Recipe, tmp_path: Path) -> None:
    list(rating(asked, tmp_path).events())
    before = (tmp_path / FOUND).read_text()
    with pytest.raises(ArtifactError, match="holds rates of other rows or settings"):
        list(rating(asked.model_copy(update={"seed": 7}), tmp_path).events())
    assert (tmp_path / FOUND).read_text() == before
    (tmp_path / FOUND).write_text("{")
    with pytest.raises(ArtifactError, match=r"rate\.json: cannot be read .* delete it"):
        list(rating(asked, tmp_path).events())


def test_a_trial_is_known_again_from_another_folder(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path names other rows there; what they are does not change."""
    data = Path(asked.data.path)
    monkeypatch.chdir(data.parent)
    near = asked.model_copy(update={"data": asked.data.model_copy(update={"path": data.name})})
    list(rating(near, tmp_path / "run").events())
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("result.json")}
    (tmp_path / "run" / FOUND).unlink()
    monkeypatch.chdir(tmp_path)
    list(rating(asked, tmp_path / "run").events())
    assert results and {path: path.stat().st_mtime_ns for path in results} == results


def test_rates_of_rows_that_changed_since_are_not_gone_on_with(asked: Recipe, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_bytes(Path(asked.data.path).read_bytes())
    own = asked.model_copy(update={"data": asked.data.model_copy(update={"path": str(data)})})
    events = rating(own, tmp_path / "rate").events()
    assert next(event for event in events if event.kind == "step"), "killed in its first trial"
    events.close()
    write_rows(data, 180)
    with pytest.raises(ArtifactError, match="holds rates of other rows or settings"):
        list(rating(own, tmp_path / "rate").events())


def test_gone_on_with_it_takes_the_commit_of_the_hub_that_it_began_with(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import resolve

    asked_for = list[str | None]()

    def newest(name: str, revision: str | None = None) -> tuple[Path, str]:
        asked_for.append(revision)
        return Path(asked.model), revision or "first"

    monkeypatch.setattr(resolve, "fetch", newest)
    monkeypatch.setattr(resolve, "_found_here", lambda name: None)
    own = asked.model_copy(update={"model": "someone/bert"})
    for _ in range(2):
        events = rating(own, tmp_path / "rate").events()
        next(event for event in events if event.kind == "step")
    assert asked_for[0] is None and set(asked_for[1:]) == {"first"}


def test_the_command(asked: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "rate",
        asked.data.path,
        "--model",
        asked.model,
        "--set",
        "training.epochs=2",
        "--out",
        str(tmp_path / "out"),
    ]
    with pytest.raises(SystemExit) as end:
        cli(words)
    said = capsys.readouterr().out
    assert end.value.code == 0 and said.count("\ntried ") >= 3 and "taken" in said
    assert said.rstrip().endswith(f"tunesmith train --recipe {tmp_path}/out/tuned.yaml")
    with pytest.raises(SystemExit) as end:
        cli([*words, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (
        end.value.code == 0
        and "chosen" in {line["kind"] for line in lines}
        and "step" not in {x["kind"] for x in lines}
    )
    for wrong, told in (
        (["--max-time", "soon"], "--max-time: give a number with a unit"),
        (["--max-time", "0s"], "--max-time: more than 0"),
        (["--rows", "0"], "--rows: at least 1"),
        (["--out", asked.data.path], "is a file"),
        (["--out", asked.model], "holds other files"),
    ):
        with pytest.raises(SystemExit) as end:
            cli([*words, *wrong])
        assert end.value.code == 2 and told in capsys.readouterr().err.replace("\n  ", " ")
