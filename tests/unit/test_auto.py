"""Method auto: the ladder is climbed by measurement, and what it delivers is what naming the method delivers."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from families import FAMILIES
from shortruns import recipe_for, same_model, write_rows
from tunesmith import climbing, load
from tunesmith.climbing import Climb
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.pipeline import Session, resume, start
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.selection import ladder
from tunesmith.selection.ladder import SHORT_ROWS, Gain, Trial, few, floors, gain_over, picked, short
from tunesmith.tasks._certainty import SURPRISE
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Note, Stopped

Folder = Callable[[str], Path]
QUICK = {"evaluation.quick": True, "training.rate": "auto", "data.validation": 0.2}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    folder = tmp_path_factory.mktemp("auto")
    model, data = FAMILIES["bert"](folder / "model"), write_rows(folder / "rows.csv", 240)
    return recipe_for(model, data, "auto", QUICK)


@pytest.fixture
def climbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rung is a gain, so that all are climbed."""
    monkeypatch.setattr(Gain, "beyond_noise", True)
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)


def made(session: Session) -> Run:
    for _ in session.events():
        pass
    return Run(session.run)


def decided(run: Run) -> dict:
    return json.loads((run.path / "ladder.json").read_text())


def hits(right: list[int], surprise: list[float] | None = None) -> Scores:
    truth = np.ones(len(right), np.int64)
    columns = {"truth": truth, "predicted": np.array(right, np.int64)}
    each = {} if surprise is None else {SURPRISE: np.array(surprise)}
    shares = frozenset({"accuracy"})
    metrics = {"accuracy": lambda found: float((found["truth"] == found["predicted"]).mean())}
    return Scores(columns, metrics, "accuracy", shares, each=each)


def test_a_gain_is_one_where_the_rows_can_tell_it() -> None:
    low, high = hits([1] * 50 + [0] * 50), hits([1] * 70 + [0] * 30)
    found = gain_over(high, low, "accuracy", 0)
    assert found.value == pytest.approx(0.2) and found.beyond_noise and not found.loses
    back = gain_over(low, high, "accuracy", 0)
    assert back.loses and not back.beyond_noise and not back.likely
    none = gain_over(low, low, "accuracy", 0)
    assert not none.beyond_noise and not none.likely


def test_surprise_tells_what_hits_do_not() -> None:
    before = hits([1] * 50 + [0] * 50, [1.0, 1.2] * 50)
    nearer = hits([1] * 50 + [0] * 50, [0.5, 0.6] * 50)
    assert gain_over(nearer, before, "accuracy", 0).beyond_noise
    assert not gain_over(before, nearer, "accuracy", 0).beyond_noise
    assert not gain_over(hits([1] * 50 + [0] * 50), hits([1] * 50 + [0] * 50), "accuracy", 0).beyond_noise


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the plain metric of these tests, of no rows
def test_one_row_does_not_tell_by_surprise() -> None:
    assert not gain_over(hits([1], [0.1]), hits([1], [0.5]), "accuracy", 0).beyond_noise


def test_rows_in_groups_tell_as_much_as_there_are_groups() -> None:
    right, before = [1] * 50 + [0] * 50, [1.0] * 100
    after = [0.5] * 75 + [1.9] * 25  # three of four groups are nearer by half a nat, one is further off
    alone = gain_over(hits(right, after), hits(right, before), "accuracy", 0)
    assert alone.beyond_noise and alone.surprise_error == pytest.approx(0.0609, abs=1e-4)
    groups = np.repeat([7, 3, 5, 9], 25)
    grouped = [replace(hits(right, nats), groups=groups) for nats in (after, before)]
    found = gain_over(*grouped, "accuracy", 0)
    assert found.surprise == alone.surprise and not found.beyond_noise
    assert found.surprise_error == pytest.approx(np.std([0.5, 0.5, 0.5, -0.9], ddof=1) / 2)
    one = [replace(scores, groups=np.zeros(100, np.int64)) for scores in grouped]
    assert gain_over(*one, "accuracy", 0).surprise is None


def test_validation_rows_of_one_group_are_judged_as_such(asked: Recipe, tmp_path: Path) -> None:
    lines = Path(asked.data.path).read_text().splitlines()
    data = tmp_path / "rows.csv"
    data.write_text("\n".join([f"{lines[0]},author", *(f"{line},a{at % 40}" for at, line in enumerate(lines[1:]))]))
    asked = asked.model_copy(update={"data": asked.data.model_copy(update={"path": str(data), "group": "author"})})
    made(start(asked, tmp_path / "run"))
    with safe_open(tmp_path / "run" / "ladder" / "head-1" / "validation.safetensors", "numpy") as file:
        groups = file.get_tensor("groups").tolist()
    assert 1 < len(set(groups)) < len(groups)


def test_few_rows_cannot_tell_a_point_so_a_likely_gain_is_taken() -> None:
    assert Gain("accuracy", 0.02, -0.01, 0.05).likely
    assert not Gain("accuracy", -0.01, -0.04, 0.02).likely, "no sign of a gain"
    assert not Gain("accuracy", 0.004, -0.001, 0.009).likely, "rows that could tell a point told of none"
    assert not Gain("perplexity", 0.02, -0.01, 0.05, bounded=False).likely


def test_rows_that_say_nothing_do_not_keep_from_what_is_usual() -> None:
    assert Gain("accuracy", -0.02, -0.09, 0.05).taken, "the noise is wider than what is at stake"
    assert not Gain("accuracy", -0.02, -0.05, 0.01).taken, "enough rows, and no sign of a gain"
    assert Gain("accuracy", 0.0, 0.0, 0.0, rows=10).taken, "ten rows that all fell alike"
    assert not Gain("accuracy", 0.0, 0.0, 0.0, rows=100).taken
    assert Gain("accuracy", -0.1, -0.2, -0.01, rows=10).taken, "one error below is no proof on so few rows"
    assert not Gain("accuracy", -0.4, -0.6, -0.25, rows=10).taken, "two are"
    assert not Gain("perplexity", -0.02, -0.9, 0.5, bounded=False, rows=10).taken
    assert gain_over(hits([1] * 10), hits([1] * 10), "accuracy", 0).rows == 10
    nothing = float("nan")
    assert not Gain("spearman", nothing, nothing, nothing, rows=10).taken, "what cannot be told is not taken"


def test_ten_rows_without_a_mistake_are_not_perfect() -> None:
    assert not ladder.perfect(hits([1] * 10), "accuracy")
    assert ladder.perfect(hits([1] * 100), "accuracy") and not ladder.perfect(hits([1] * 90 + [0] * 10), "accuracy")


def test_short_trials_are_short() -> None:
    assert short(8 * SHORT_ROWS) == 1 / 8
    assert short(8 * SHORT_ROWS - 1) is None
    assert short(100) is None


def test_too_few_rows_to_choose_by() -> None:
    assert few(49, None) and not few(50, None)
    assert few(770, 77) and not few(1_500, 77)


def test_word_vectors_and_language_models_have_ladders_of_their_own() -> None:
    assert [floor.methods for floor in floors(False, True)] == [("head",), ("full",)]
    assert [floor.methods for floor in floors(True, False)] == [("lora",), ("full",)]
    assert [floor.methods for floor in floors(True, False, rows=49)] == [("prompt",), ("lora",)]
    assert [floor.methods for floor in floors(False, False)] == [("head",), ("layers",), ("lora", "full")]


def test_a_short_trial_speaks_against_what_is_documented_only_when_it_is_sure() -> None:
    def trial(method: str, times: float, right: int) -> Trial:
        return Trial(method, times, 1e-4, 0.1, 5, "accuracy", right / 100, loss=1.0)

    def told(*counts: int) -> dict[int, Scores]:
        return {place: hits([1] * count + [0] * (100 - count)) for place, count in enumerate(counts)}

    rates = [trial("layers", times, right) for times, right in ((1.0, 80), (1 / 3, 81), (3.0, 79))]
    assert picked(rates, told(80, 81, 79), 0) == 0
    assert picked([trial("layers", 1.0, 60), trial("layers", 3.0, 80)], told(60, 80), 0) == 1
    assert picked([trial("lora", 1.0, 80), trial("full", 1.0, 80)], told(80, 80), 0) == 1, "full, where both are alike"
    assert picked([trial("lora", 1.0, 90), trial("full", 1.0, 60)], told(90, 60), 0) == 0


@pytest.mark.usefixtures("climbs")
def test_what_is_delivered_is_what_naming_the_method_delivers(asked: Recipe, tmp_path: Path) -> None:
    run = made(start(asked, tmp_path / "auto"))
    assert decided(run)["chosen"] == "full" and run.report["method"] == "full"
    plain = recipe_for(Path(asked.model), Path(asked.data.path), "full", QUICK)
    named = made(start(plain, tmp_path / "named"))
    assert same_model(run.path / "model", named.path / "model")
    assert run.report["metrics"] == named.report["metrics"]
    assert [point["step"] for point in run.report["curves"]["losses"]] == [
        point["step"] for point in named.report["curves"]["losses"]
    ]
    assert not list((run.path / "ladder").rglob("*.safetensors")) or all(
        path.name == "validation.safetensors" for path in (run.path / "ladder").rglob("*.safetensors")
    )
    assert (run.path / "recipe.yaml").read_text().count("method: auto") == 1, "the recipe is as it was asked"
    assert "How the method was chosen" in (run.path / "report.html").read_text()
    assert load(run.path).predict(["some text"])


def test_it_ends_where_nothing_is_gained(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gain, "beyond_noise", False)
    monkeypatch.setattr(Gain, "likely", False)
    monkeypatch.setattr(Gain, "blind", False)
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)
    run = made(start(asked, tmp_path / "run"))
    told = decided(run)
    assert [rung["trial"]["method"] for rung in told["rungs"]] == ["head", "layers"]
    assert told["chosen"] == run.report["method"] == "head"
    assert "within the noise" in told["why"]


@pytest.mark.usefixtures("climbs")
def test_stopped_on_a_rung_it_goes_on_and_comes_to_the_same(asked: Recipe, tmp_path: Path) -> None:
    whole = made(start(asked, tmp_path / "whole"))
    asking = {"count": 0}

    def stop() -> bool:
        asking["count"] += 1
        return asking["count"] > 25

    events = list(start(asked, tmp_path / "run", stop=stop).events())
    assert isinstance(events[-1], Stopped) and "resume" in events[-1].resume
    again = made(resume(tmp_path / "run"))
    assert same_model(whole.path / "model", again.path / "model")
    assert [rung["trial"]["method"] for rung in decided(again)["rungs"]] == ["head", "layers", "full"]


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("relative", [False, True])
def test_killed_after_the_choice_it_trains_nothing_again(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, relative: bool
) -> None:
    if relative:
        data = Path(asked.data.path)
        monkeypatch.chdir(data.parent)
        asked = asked.model_copy(update={"data": asked.data.model_copy(update={"path": data.name}), "model": "model"})
    session = start(asked, tmp_path / "run")
    for event in session.events():
        if isinstance(event, Note) and event.topic == "derived":
            break  # as kill -9 would: the choice is made, nothing is delivered
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "ladder").rglob("result.json")}
    assert len(results) == 3
    whole = made(start(asked, tmp_path / "whole"))
    again = made(resume(tmp_path / "run"))
    assert {path: path.stat().st_mtime_ns for path in results} == results
    assert same_model(whole.path / "model", again.path / "model")


@pytest.mark.usefixtures("climbs")
@pytest.mark.parametrize("over_at_first", [False, True])
def test_killed_after_the_choice_limits_do_not_make_another(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_at_first: bool
) -> None:
    """Time runs on while a run is down, and memory is held by one session alone."""
    session, over = start(asked, tmp_path / "run"), "limits: it is over"
    monkeypatch.setattr(Climb, "_beyond_means", lambda self, best: over if over_at_first and best else "")
    for event in session.events():
        if isinstance(event, Note) and event.topic == "derived":
            break
    before = decided(Run(tmp_path / "run"))
    assert before["chosen"] == ("head" if over_at_first else "full")
    monkeypatch.setattr(Climb, "_beyond_means", lambda self, best: over if not over_at_first and best else "")
    run = made(resume(tmp_path / "run"))
    assert decided(run) == before and run.report["method"] == before["chosen"]


@pytest.mark.usefixtures("climbs")
def test_with_many_rows_short_trials_choose_rate_and_method(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    run = made(start(asked, tmp_path / "run", explain=True))
    rungs = decided(run)["rungs"]
    tried = {(trial["method"], round(trial["times"], 2)) for trial in rungs[1]["short"]}
    assert tried >= {("layers", 1.0), ("layers", 0.33), ("layers", 3.0), ("full", 1.0), ("lora", 1.0)}
    assert len(rungs) == 2 and rungs[1]["trial"]["method"] in ("full", "lora"), "layers would be climbed over"
    assert "short trial of layers" in (run.path / "events.jsonl").read_text()
    page = (run.path / "report.html").read_text()
    assert "How quality depends on the rate" in page and page.count("layers, rate ") >= 3
    assert "Layers is not trained whole: in as short a trial" in page
    shutil.rmtree(tmp_path / "run")


@pytest.mark.usefixtures("climbs")
def test_many_rows_killed_after_the_choice_train_nothing_again(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    for event in start(asked, tmp_path / "run").events():
        if isinstance(event, Note) and event.topic == "derived":
            break
    before = decided(Run(tmp_path / "run"))
    results = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("result.json")}
    monkeypatch.setattr(Climb, "_too_long", lambda self, trial: "limits.time: it is over")
    run = made(resume(tmp_path / "run"))
    assert decided(run) == before and before["passed"]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("result.json")} == results


def test_what_is_plainly_worse_in_a_short_trial_does_not_take_the_place(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    monkeypatch.setattr(Gain, "loses", True)
    monkeypatch.setattr(Gain, "taken", True)
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)
    told = decided(made(start(asked, tmp_path / "run")))
    assert [rung["trial"]["method"] for rung in told["rungs"]] == ["head", "layers"] and not told["passed"]
    assert "in a short trial" in told["why"]


@pytest.mark.usefixtures("climbs")
def test_what_was_passed_by_comes_back_where_nothing_above_goes(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, folder: Path, *further: object, **named: object) -> object:
        if recipe.method_name in ("full", "lora") and "short" not in folder.name:
            raise MemoryError("out of memory")
        return (yield from whole(shared, recipe, folder, *further, **named))

    monkeypatch.setattr(climbing, "train_trial", some)
    told = decided(made(start(asked, tmp_path / "run")))
    assert [rung["trial"]["method"] for rung in told["rungs"]] == ["head", "layers"] and not told["passed"]
    assert len(told["failed"]) == 2


def test_a_rate_that_was_asked_for_is_the_only_one(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    fixed = asked.model_copy(update={"training": asked.training.model_copy(update={"rate": 3e-4})})
    run = made(start(fixed, tmp_path / "run"))
    for rung in decided(run)["rungs"][1:]:
        assert {trial["times"] for trial in (*rung["short"], rung["trial"])} == {1.0}
        assert rung["trial"]["rate"] == 3e-4


def test_few_rows_are_learned_by_contrast(tmp_path: Path) -> None:
    model, data = FAMILIES["sentence"](tmp_path / "model"), write_rows(tmp_path / "rows.csv", 45)
    asked = recipe_for(model, data, "auto", {"evaluation.quick": True, "training.batch_size": 12})
    run = made(start(asked, tmp_path / "run"))
    assert run.report["task"] == "few_shot"
    assert "are few" in run.report["evidence"]["ladder"]["why"]


def test_the_kind_of_base_decides_the_rungs(tmp_path: Path, model_folder: Folder) -> None:
    data = write_rows(tmp_path / "rows.csv", 200)
    run = made(start(recipe_for(model_folder("model2vec"), data, "auto", QUICK), tmp_path / "static"))
    assert decided(run)["rungs"][0]["trial"]["method"] == "head"
    assert {rung["trial"]["method"] for rung in decided(run)["rungs"]} <= {"head", "full"}
    prose = tmp_path / "prose.txt"
    prose.write_text("\n\n".join(f"the cat sat on mat {number} and saw a dog" * 3 for number in range(2_000)))
    settings = {**QUICK, "training.max_length": 16}
    run = made(start(recipe_for(model_folder("llama"), prose, "auto", settings), tmp_path / "prose"))
    assert decided(run)["rungs"][0]["trial"]["method"] == "lora"


def test_with_nothing_to_choose_by_it_is_what_is_usual(asked: Recipe, tmp_path: Path) -> None:
    blind = asked.model_copy(update={"data": asked.data.model_copy(update={"validation": 0.0})})
    run = made(start(blind, tmp_path / "run"))
    assert run.report["method"] == "full"
    assert "no validation rows" in run.report["evidence"]["ladder"]["why"]


def test_no_method_at_all_is_told_with_every_reason(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> object:
        raise TrainingError("it diverged")
        yield

    monkeypatch.setattr(climbing, "train_trial", refused)
    with pytest.raises(TrainingError) as caught:
        made(start(asked, tmp_path / "run"))
    assert "no method could be trained" in caught.value.problems[0]
    assert caught.value.problems[1:] == ("head, layers, full, lora: it diverged",), (
        "a reason that all have is said once"
    )


def test_a_method_that_comes_to_nothing_is_named(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> object:
        if recipe.method_name != "head":
            raise TrainingError("it diverged")
        return whole(shared, recipe, *further, **named)

    monkeypatch.setattr(climbing, "train_trial", some)
    told = decided(made(start(asked, tmp_path / "run")))
    assert told["chosen"] == "head" and told["failed"] == [
        f"{name}: it diverged" for name in ("layers", "full", "lora")
    ]
    assert told["why"].startswith("layers, full and lora came to nothing, and no other was better on")


def test_a_rate_that_diverges_is_not_the_end_of_its_method(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "SHORT_ROWS", 15)
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> object:
        low = isinstance(recipe.training.rate, float)  # a third of the method's own, or three times that
        if recipe.method_name == "full" or (recipe.method_name == "layers" and not low):
            raise TrainingError("it diverged")
        return (yield from whole(shared, recipe, *further, **named))

    monkeypatch.setattr(climbing, "train_trial", some)
    told = decided(made(start(asked, tmp_path / "run")))
    tried = {trial["times"] for rung in told["rungs"] for trial in rung["short"] if trial["method"] == "layers"}
    assert tried == {1 / 3, 3.0}
    assert told["failed"][0] == "layers at its own rate: it diverged"


def test_memory_that_runs_out_on_a_rung_leaves_what_was_trained_before(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> object:
        if recipe.method_name != "head":
            raise RuntimeError("CUDA error: out of memory")
        return (yield from whole(shared, recipe, *further, **named))

    monkeypatch.setattr(climbing, "train_trial", some)
    run = made(start(asked, tmp_path / "run"))
    assert run.report["method"] == "head" and "layers: out of memory; lower" in decided(run)["failed"][0]


def test_where_all_weights_do_not_fit_lora_is_tried(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> object:
        if recipe.method_name == "full":
            raise MemoryError("out of memory")
        return (yield from whole(shared, recipe, *further, **named))

    monkeypatch.setattr(climbing, "train_trial", some)
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)
    told = decided(made(start(asked, tmp_path / "run")))
    assert [rung["trial"]["method"] for rung in told["rungs"]] == ["head", "layers", "lora"]
    assert told["failed"][0].startswith("full: out of memory") and len(told["failed"]) == 1


def test_a_rung_that_says_the_same_of_all_rows_does_not_hold_the_next_back(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = climbing.train_trial

    def some(shared: object, recipe: Recipe, *further: object, **named: object) -> object:
        result = yield from whole(shared, recipe, *further, **named)
        return (
            replace(result, metrics={**result.metrics, "accuracy": math.nan})
            if recipe.method_name == "head"
            else result
        )

    monkeypatch.setattr(climbing, "train_trial", some)
    monkeypatch.setattr(Climb, "_gain", lambda *_: Gain("accuracy", math.nan, math.nan, math.nan))
    assert decided(made(start(asked, tmp_path / "run")))["chosen"] == "layers"


def test_where_a_lower_rung_was_better_on_too_few_rows_it_is_told(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Climb, "_gain", lambda *_: Gain("accuracy", -0.05, -0.1, 0.0, rows=20))
    monkeypatch.setattr(climbing, "perfect", lambda scores, metric: False)
    told = decided(made(start(asked, tmp_path / "run")))
    assert told["chosen"] == "full"
    assert "too few to tell it from the one before, which was better" in told["why"]


def test_with_no_room_for_a_step_nothing_is_trained(asked: Recipe, tmp_path: Path) -> None:
    from tunesmith.specs import LimitSpec

    with pytest.raises(
        TrainingError, match=r"no time or memory is left for a single step \(limits.memory: .*raise it$"
    ):
        made(start(asked.model_copy(update={"limits": LimitSpec(memory=1e6)}), tmp_path / "run"))  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "ladder").exists()


def test_time_that_is_over_ends_the_climb(asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.limits import Limits
    from tunesmith.specs import LimitSpec

    limited = asked.model_copy(update={"limits": LimitSpec(time=1e9)})  # type: ignore[arg-type]
    over = {"after": 20}

    def enough(self: Limits) -> str:
        over["after"] -= 1
        return "limits.time: it is over" if over["after"] < 0 else ""

    monkeypatch.setattr(Limits, "enough", enough)
    monkeypatch.setattr(Gain, "beyond_noise", True)
    run = made(start(limited, tmp_path / "run"))
    assert len(decided(run)["rungs"]) < 3
    assert "limits.time" in decided(run)["why"]
    (cut,) = decided(run)["passed"]
    assert cut.endswith(" is not trained to its end: limits.time: it is over")


def test_memory_that_is_held_after_the_choice_does_not_take_the_model_away(
    asked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.specs import LimitSpec
    from tunesmith.training import preflight

    monkeypatch.setattr(ladder, "perfect", lambda scores, metric: True)
    limited = asked.model_copy(update={"limits": LimitSpec(memory=1e13)})  # type: ignore[arg-type]
    session, held = start(limited, tmp_path / "run"), {"now": 0}
    monkeypatch.setattr(preflight, "resident_memory", lambda: held["now"])
    for event in session.events():
        if isinstance(event, Note) and any(" is delivered: " in line for line in event.lines):
            held["now"] = 10**15
    assert held["now"] and Run(session.run).report["verdict"]


def test_a_search_wants_a_method_by_name(asked: Recipe, tmp_path: Path) -> None:
    from tunesmith.searching import search

    plain = {**asked.to_plain(), "method": "auto"}
    plain["training"] = {**plain["training"], "rate": [1e-4, 1e-3]}
    with pytest.raises(RecipeError, match="method: auto is a search of its own; name one"):
        search(plain, tmp_path / "s")
    among = {**asked.to_plain(), "method": ["lora", "auto"]}
    with pytest.raises(RecipeError, match="method: auto is a search of its own; name one"):
        search(among, tmp_path / "s")
