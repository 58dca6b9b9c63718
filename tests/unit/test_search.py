"""Searches on tiny models: killed, shared, stopped, pruned; the winner's own run, and what no trial saw."""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tunesmith.cli.search import Board, SearchLines
from tunesmith.errors import ArtifactError, DataError, RecipeError, TrainingError
from tunesmith.recipe import yaml_text
from tunesmith.searching import Search, search
from tunesmith.selection.journal import take
from tunesmith.selection.study import Known, Mine, Study, Told
from tunesmith.training.events import Evaluated, Event, Note, Stopped, Warned
from tunesmith.training.loop import Measured
from tunesmith.training.soup import stirred

Folder = Callable[[str], Path]
TRIALS = 5
CLI = "from tunesmith.cli.main import run; run()"


def asked(model: Path, data: Path, **section: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"path": str(data), "test": 0.2, "validation": 0.2},
        "method": {"name": "layers", "layers": 1},
        "training": {
            "epochs": 2,
            "batch_size": 16,
            "precision": "float32",
            "device": "cpu",
            "rate": {"low": 1e-4, "high": 1e-1, "log": True},
            "weight_decay": [0.0, 0.01],
        },
        "evaluation": {"quick": True, "resamples": 100},
        "search": {"trials": TRIALS, "pruner": "none", **section},
    }


def told_in(folder: Path) -> list[dict[str, Any]]:
    """The trials of a finished search, without what the clock says."""
    plain = json.loads((folder / "search.json").read_text())["trials"]
    timed = ("seconds", "cpu_seconds", "again", "best")
    return [
        {
            **{key: value for key, value in one.items() if key not in timed},
            "metrics": {key: value for key, value in one["metrics"].items() if key != "seconds"},
        }
        for one in plain
    ]


@pytest.fixture(scope="module")
def whole(
    model_folder: Folder, table_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Search, list[Event]]:
    """A search that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "s"
    made = search(asked(model_folder("bert"), table_file), out)
    return made, list(made.events())


def test_the_winner_is_a_run_of_its_own_tested_on_rows_that_no_trial_saw(whole: tuple[Search, list[Event]]) -> None:
    made, events = whole
    ended = [event for event in events if isinstance(event, Told) and event.state != "running"]
    assert [event.number for event in ended] == list(range(TRIALS))
    found = json.loads((made.out / "search.json").read_text())
    report = json.loads((made.run / "report.json").read_text())
    best = max(ended, key=lambda event: (event.ranks[0], -event.loss))
    assert found["winner"]["number"] == best.number
    for key, value in best.values.items():
        assert report["recipe"]["training"][key.partition(".")[2]] == value
    assert found["winner"]["test"]["accuracy"]["value"] == report["metrics"]["accuracy"]["value"]
    # As the trial found it: the same rows, the same seed, the same arithmetic.
    kept = [event.value for event in events if isinstance(event, Evaluated) and event.best][-1]
    assert best.metrics["accuracy"] == pytest.approx(kept)
    assert not list(made.out.rglob("others")) and not list((made.out / "trials").rglob("*.safetensors"))
    said = next(event.lines for event in events if isinstance(event, Note) and event.topic == "finish")
    assert "best trial alone" in said[0] or "this run alone" in said[0]
    assert "Trial" in (made.out / "search.html").read_text()
    assert {path.name for path in (made.out / "trials").iterdir()} == {f"{number:04d}" for number in range(TRIALS)}
    assert not list((made.out / "trials").rglob("*.parquet")), "no trial has predictions of test rows"


def test_what_stands_in_the_test_rows_is_of_no_matter_to_any_trial(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    with table_file.open(encoding="utf-8") as file:
        rows = list(csv.reader(file))
    folders = []
    for name, labels in (("as they are", None), ("other", "praise")):
        folder = tmp_path / name
        folder.mkdir()
        for part, some in (("train", rows[1:71]), ("test", rows[71:])):
            changed = [(text, labels if part == "test" and labels else label) for text, label in some]
            with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as out:
                csv.writer(out).writerows([rows[0], *changed])
        plain = asked(model_folder("bert"), folder, trials=2)
        plain["data"].pop("test")
        made = search(plain, folder / "s")
        events = made.events()
        for event in events:
            if isinstance(event, Note) and event.topic == "winner":
                break
        events.close()  # type: ignore[attr-defined]
        folders.append([told.metrics | {"seconds": 0} for told in _opened(made)])
    assert folders[0] == folders[1] and len(folders[0]) == 2


def _opened(made: Search) -> list[Told]:
    from tunesmith.selection.study import told_from

    lines = [json.loads(line) for line in (made.out / "study.journal").read_text().splitlines()]
    told = [line["user_attr"]["told"] for line in lines if "told" in line.get("user_attr", {})]
    return [told_from(plain) for plain in told]


def begun(recipe: Path, out: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CLI, "search", str(recipe), "--out", str(out), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ})


def test_killed_within_a_trial_it_goes_on_and_comes_out_the_same(
    whole: tuple[Search, list[Event]], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain, recipe, out = asked(model_folder("bert"), table_file), tmp_path / "r.yaml", tmp_path / "s"
    recipe.write_text(yaml_text(plain))
    process = begun(recipe, out)
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "trial" and event["state"] == "running":
            under_way = event["number"]
        if event["kind"] == "judged" and under_way == 2:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    made = search(plain, out)
    events = list(made.events())
    known = next(event for event in events if isinstance(event, Known))
    assert [told.number for told in known.trials] == [0, 1]
    tried = [(event.number, event.again) for event in events if isinstance(event, Told) and event.state == "running"]
    assert tried == [(2, True), (3, False), (4, False)], "finished ones are never begun again"
    assert told_in(out) == told_in(whole[0].out)
    same = [json.loads((folder / "report.json").read_text())["metrics"] for folder in (made.run, whole[0].run)]
    assert same[0] == same[1]


def test_two_processes_share_one_search(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    plain, recipe, out = asked(model_folder("bert"), table_file), tmp_path / "r.yaml", tmp_path / "s"
    recipe.write_text(yaml_text(plain))
    other = begun(recipe, out)
    mine = list(search(plain, out).events())
    theirs_said, complaint = other.communicate()
    assert other.returncode == 0, complaint
    theirs = [json.loads(line) for line in theirs_said.splitlines()]
    here = [event.number for event in mine if isinstance(event, Told) and event.state != "running"]
    there = [event["number"] for event in theirs if event["kind"] == "trial" and event["state"] != "running"]
    assert sorted(here + there) == list(range(TRIALS)), "each once, whoever did it"
    winners = [any(event.kind == "finished" for event in mine), any(one["kind"] == "finished" for one in theirs)]
    assert sum(winners) == 1 and (out / "winner" / "report.json").exists()


def test_a_trial_that_is_given_to_another_is_told_and_does_not_count(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.selection.lease.SETTLES", 0.0)
    finish, late = Study.finish, list[int]()

    def finished_elsewhere(study: Study, mine: Mine, told: Told) -> None:
        if not late:
            late.append(mine.number)
            study.study.tell(mine.number, state=TrialState.FAIL)  # as who finds it silent does
        finish(study, mine, told)

    monkeypatch.setattr(Study, "finish", finished_elsewhere)
    plain = asked(model_folder("bert"), table_file, trials=2, storage=f"sqlite:///{tmp_path / 'study.db'}")
    made = search(plain, tmp_path / "a" / "s")
    events = list(made.events())
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any(line.startswith("trial 0 was given to another process") for line in warned), warned
    ended = [event.number for event in events if isinstance(event, Told) and event.state != "running"]
    assert ended == [1, 2] and made.finished
    there = search(plain, tmp_path / "b" / "s")
    said = list(there.events())
    assert f"which {platform.node()}:{tmp_path / 'a' / 's'}" in str(said[-1]) and not there.finished
    assert not (there.out / "winner").exists(), "another machine has trained it"


def test_a_winner_that_another_machine_took_over_is_stopped_here(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.selection.lease.SETTLES", 0.0)
    plain = asked(model_folder("bert"), table_file, trials=1, storage=f"sqlite:///{tmp_path / 'study.db'}")
    made = search(plain, tmp_path / "s")
    said: list[Event] = []
    for event in made.events():
        said.append(event)
        if isinstance(event, Note) and event.topic == "winner" and "own path" in event.lines[0]:
            study = optuna.load_study(study_name="s", storage=made.spec.storage)
            study.set_user_attr("winner", {**study.user_attrs["winner"], "owner": "elsewhere"})
    assert isinstance(said[-1], Warned) and said[-1].message.startswith("elsewhere trains the winner now")
    assert not made.finished and not (made.out / "winner" / "report.json").exists()


def test_a_finished_search_is_not_begun_again(whole: tuple[Search, list[Event]]) -> None:
    made = whole[0]
    again = Search(made.searched, made.spec, made.asked, made.out)
    (said,) = list(again.events())
    assert isinstance(said, Note) and "is finished" in said.lines[0] and again.run == made.run


def test_a_finished_search_answers_for_its_own_recipe_alone(whole: tuple[Search, list[Event]]) -> None:
    other = json.loads(json.dumps(whole[0].asked))
    other["training"]["epochs"] = 3
    made = search(other, whole[0].out)
    with pytest.raises(ArtifactError, match="another recipe"):
        list(made.events())
    assert not made.finished


def test_killed_before_the_test_rows_were_noted_they_are_noted(
    whole: tuple[Search, list[Event]], tmp_path: Path
) -> None:
    made, out = whole[0], tmp_path / "s"
    shutil.copytree(made.out, out)
    found = json.loads((out / "search.json").read_text())
    found["winner"]["test"] = None
    (out / "search.json").write_text(json.dumps(found))
    (out / "trials" / "0000" / "weights.safetensors").write_bytes(b"left behind")
    again = Search(made.searched, made.spec, made.asked, out)
    assert list(again.events())[-1].kind == "note" and again.finished
    assert json.loads((out / "search.json").read_text()) == json.loads((made.out / "search.json").read_text())
    assert not list((out / "trials").rglob("*.safetensors"))


def test_killed_within_the_winner_s_run_it_is_the_same_winner(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain, out = asked(model_folder("bert"), table_file, trials=2), tmp_path / "s"
    events = search(plain, out).events()
    for event in events:
        if event.kind == "step" and (out / "winner" / "recipe.yaml").exists():
            break
    events.close()  # type: ignore[attr-defined]
    named = json.loads((out / "search.json").read_text())["winner"]
    # The other one turns out to be better, as one would that another process ends only now.
    lines = [json.loads(line) for line in (out / "study.journal").read_text().splitlines()]
    for line in lines:
        if line.get("user_attr", {}).get("told", {}).get("number") == 1 - named["number"]:
            line["user_attr"]["told"]["ranks"] = [2.0]
    (out / "study.journal").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain["search"]["trials"] = 3
    again = list(search(plain, out).events())
    assert not any(isinstance(event, Told) for event in again), "no trial is begun once the winner is"
    found = json.loads((out / "search.json").read_text())["winner"]
    assert (found["number"], found["values"]) == (named["number"], named["values"]) and found["test"] is not None


def test_a_study_that_lost_its_last_lines_is_made_whole_from_what_trials_gave(
    whole: tuple[Search, list[Event]], tmp_path: Path
) -> None:
    made, out = whole[0], tmp_path / "s"
    shutil.copytree(made.out, out, ignore=shutil.ignore_patterns("winner*", "search.json", "search.html"))
    lines = (out / "study.journal").read_text().splitlines(keepends=True)
    told = [place for place, line in enumerate(lines) if "told" in json.loads(line).get("user_attr", {})]
    (out / "study.journal").write_text("".join(lines[: told[3]]))
    events = list(Search(made.searched, made.spec, made.asked, out).events())
    tried = [(event.number, event.again) for event in events if isinstance(event, Told) and event.state == "running"]
    assert tried == [(3, True), (4, False)] and not any(event.kind == "judged" for event in events)
    assert told_in(out) == told_in(made.out)


def to_the_trial(plain: dict[str, Any], out: Path, number: int) -> None:
    """A search that is stopped within a trial."""
    seen = list[Event]()

    def within() -> bool:
        begun = [place for place, event in enumerate(seen) if isinstance(event, Told) and event.number == number]
        return bool(begun) and any(event.kind == "judged" for event in seen[begun[0] :])

    for event in search(plain, out, stop=within).events():
        seen.append(event)
    assert isinstance(seen[-1], Stopped)


def test_gone_on_with_for_no_time_the_best_so_far_is_trained(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain, out = asked(model_folder("bert"), table_file, trials=3), tmp_path / "s"
    to_the_trial(plain, out, 1)
    plain["search"]["time"] = 1e-6
    made = search(plain, out)
    events = list(made.events())
    (said,) = [event.lines[0] for event in events if isinstance(event, Note) and "search.time" in event.lines[0]]
    assert said.endswith("1 trials were done") and made.finished
    assert not list((out / "trials").rglob("checkpoints")), "nobody goes on with what was left behind"


def test_out_of_time_it_waits_for_who_still_tries(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    plain, out = asked(model_folder("bert"), table_file, trials=3), tmp_path / "s"
    to_the_trial(plain, out, 1)
    plain["search"]["time"] = 1e-6
    other = take(out / "trials" / "0001" / ".claim")
    assert other is not None
    made = search(plain, out)
    last = list(made.events())[-1]
    assert isinstance(last, Note) and "other processes still work on 1 trial:" in last.lines[0]
    assert not made.finished and not (out / "winner").exists()
    other.let_go()
    assert any(event.kind == "finished" for event in made.events())


def test_a_trial_that_is_let_go_of_as_the_last_one_ends_is_taken_up(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, out = asked(model_folder("bert"), table_file, trials=2), tmp_path / "s"
    to_the_trial(plain, out, 1)
    claim, calls = Study.claim, list[int]()

    def once_none(study: Study) -> Any:
        calls.append(1)
        return None if len(calls) == 1 else claim(study)

    monkeypatch.setattr(Study, "claim", once_none)
    events = list(search(plain, out).events())
    assert [event.number for event in events if isinstance(event, Told)] == [1, 1]


def test_stopped_it_says_how_to_go_on_and_goes_on(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    plain, seen = asked(model_folder("bert"), table_file, trials=2), list[Event]()
    made = search(plain, tmp_path / "s", stop=lambda: any(event.kind == "judged" for event in seen))
    for event in made.events():
        seen.append(event)
    last = seen[-1]
    assert isinstance(last, Stopped) and "in trial 0, which is saved" in last.why
    assert last.resume == f"tunesmith search {tmp_path}/s/search.yaml --out {tmp_path}/s"
    assert not made.finished
    events = list(search(plain, tmp_path / "s").events())
    tried = [(event.number, event.again) for event in events if isinstance(event, Told) and event.state == "running"]
    assert tried == [(0, True), (1, False)] and (tmp_path / "s" / "winner" / "report.json").exists()


def test_several_metrics_have_a_frontier(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    plain = asked(model_folder("bert"), table_file, trials=4, metrics=["accuracy", "parameters"], pruner="auto")
    plain["method"] = ["head", {"name": "layers", "layers": 1}]
    made = search(plain, tmp_path / "s")
    events = list(made.events())
    found = json.loads((tmp_path / "s" / "search.json").read_text())
    trials = {one["number"]: one["metrics"] for one in found["trials"]}
    for number in found["frontier"]:
        own = trials[number]
        assert not any(
            other["accuracy"] >= own["accuracy"]
            and other["parameters"] <= own["parameters"]
            and (other["accuracy"], other["parameters"]) != (own["accuracy"], own["parameters"])
            for other in trials.values()
        )
    best = max(one["accuracy"] for one in trials.values())
    assert trials[found["winner"]["number"]]["accuracy"] == best
    assert any(isinstance(event, Note) and event.topic == "frontier" and event.table for event in events)


def test_repeats_are_meant(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    plain = asked(model_folder("bert"), table_file, trials=2, repeats=2, pruner="auto")
    events = list(search(plain, tmp_path / "s").events())
    (said,) = [line for event in events if isinstance(event, Note) for line in event.lines if "wilcoxon" in line]
    assert "none is ended early (wilcoxon could be from search.repeats=5 on)" in said
    for told in [event for event in events if isinstance(event, Told) and event.state == "done"]:
        folder = tmp_path / "s" / "trials" / f"{told.number:04d}"
        seeds = [json.loads((folder / f"seed-{seed}" / "result.json").read_text()) for seed in (0, 1)]
        values = [one["metrics"]["accuracy"] for one in seeds]
        assert told.metrics["accuracy"] == pytest.approx(sum(values) / 2)


def test_a_search_of_which_every_trial_diverges_says_why(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(model_folder("bert"), table_file, trials=3)
    plain["training"]["rate"] = {"low": 1e30, "high": 1e35, "log": True}
    with pytest.raises(TrainingError) as error:
        list(search(plain, tmp_path / "s").events())
    first, *others = error.value.problems
    assert first.startswith("every one of the 3 trials came to nothing") and "not finite" in " ".join(others)


@pytest.mark.parametrize("tasks", [["classification", "regression"], ["regression", "classification"]])
def test_rows_that_a_trial_cannot_read_are_why_it_came_to_nothing(
    tasks: list[str], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(model_folder("bert"), table_file)
    plain["training"].update(rate=1e-3, weight_decay=0.0, epochs=1)
    plain["task"] = tasks
    ended = [event for event in search(plain, tmp_path / "s").events() if isinstance(event, Told) and event.why]
    assert [(event.values["task"], event.state) for event in ended] == [("regression", "failed")]
    assert "label" in ended[0].why and "number" in ended[0].why
    assert (tmp_path / "s" / "winner" / "report.json").exists()


def test_rows_that_no_trial_can_read_are_told_as_any_run_tells_them(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(model_folder("bert"), table_file)
    plain["data"]["label"] = "colour"
    plain["training"]["max_length"] = [16, 32]
    with pytest.raises(DataError, match="colour"):
        list(search(plain, tmp_path / "s").events())
    assert not (tmp_path / "s").exists()


def test_a_budget_that_is_too_small_for_one_trial_is_explained(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(model_folder("bert"), table_file, time=0.01)
    with pytest.raises(TrainingError, match="passed before one trial was done; give --max-time more") as error:
        list(search(plain, tmp_path / "s").events())
    assert "tunesmith search" in str(error.value)
    plain["search"].pop("time")
    plain["search"]["trials"] = 1
    events = list(search(plain, tmp_path / "s").events())
    assert next(event for event in events if isinstance(event, Told)).number == 0


def test_limits_that_trials_do_not_look_at_are_told(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    recipe = {**asked(model_folder("bert"), table_file), "limits": {"memory": "4GB"}}
    events = search(recipe, tmp_path / "s").events()
    told = next(event for event in events if isinstance(event, Warned | Told))
    assert isinstance(told, Warned) and told.message.startswith("limits.memory: is not looked at in trials")


def test_gone_on_with_it_takes_the_commit_of_the_hub_that_it_began_with(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import resolve

    there, taken = {"newest": "first"}, list[str]()

    def fetched(name: str, revision: str | None = None) -> tuple[Path, str]:
        taken.append(revision or there["newest"])
        return model_folder("bert"), taken[-1]

    monkeypatch.setattr(resolve, "fetch", fetched)
    monkeypatch.setattr(resolve, "_found_here", lambda name: None)
    recipe = {**asked(model_folder("bert"), table_file, trials=2), "model": "someone/bert"}
    events = search(recipe, tmp_path / "s").events()
    assert any(isinstance(event, Told) and event.state == "done" for event in events), "killed after its first trial"
    events.close()
    there["newest"] = "second"
    taken.clear()
    made = search(recipe, tmp_path / "s")
    list(made.events())
    assert made.finished and taken[0] == "second", "rows are read before it is known whose folder it is"
    assert len(taken) > 2 and set(taken[1:]) == {"first"}
    assert json.loads((made.run / "manifest.json").read_text())["model"]["revision"] == "first"


def test_other_rows_in_the_same_folder_are_refused(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "rows.csv"
    data.write_bytes(table_file.read_bytes())
    plain = asked(model_folder("bert"), data, trials=1, soup=False)
    list(search(plain, tmp_path / "s", stop=lambda: True).events())
    data.write_text(data.read_text().replace("money", "gold"))
    with pytest.raises(ArtifactError, match="another recipe, or of other rows"):
        list(search(plain, tmp_path / "s").events())


def test_without_optuna_one_line_says_how_to_get_it(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RecipeError, match="pip install") as error:
        list(search(asked(model_folder("bert"), table_file), tmp_path / "s").events())
    assert len(error.value.problems) == 1 and not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": {"path": "d.csv", "folds": 3}}, "data.folds: would test on every row"),
        ({"data": {"path": "d.csv", "validation": 0}}, "data.validation: a search judges"),
        ({"search": {"pruner": "wilcoxon"}}, "search.pruner: wilcoxon goes by repeats"),
        ({"search": {"pruner": "wilcoxon", "repeats": 4}}, "a trial has 4; give search.repeats=5 or more"),
        ({"search": {"pruner": "hyperband", "repeats": 2}}, "search.pruner: hyperband goes by"),
        ({"search": {"metrics": ["bleu"]}}, 'search.metrics: task classification has no metric "bleu"'),
        ({"search": {"metrics": ["accuracy", "bleu"]}}, 'search.metrics: task classification has no metric "bleu"'),
    ],
)
def test_what_cannot_be_searched_is_refused_before_a_trial(
    change: dict[str, Any], said: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = {**asked(model_folder("bert"), table_file), **change}
    with pytest.raises(RecipeError, match=said):
        list(search(plain, tmp_path / "s").events())
    assert not (tmp_path / "s" / "trials").exists()


def of(values: dict[float, float]) -> Callable[[Any], Measured]:
    """Measures a state of one number by a table of ranks."""
    return lambda state: Measured("accuracy", values[float(state["w"])], values[float(state["w"])], 0.1, 1.0)


def test_a_soup_is_kept_only_where_validation_says_that_it_is_better() -> None:
    import torch

    start, others = (
        {"w": torch.tensor(0.0)},
        {name: {"w": torch.tensor(value)} for name, value in {"a": 2.0, "b": 4.0}.items()},
    )
    loads = {name: (lambda state=state: state) for name, state in others.items()}
    found, taken, before, after = stirred(start, loads, of({0.0: 0.5, 1.0: 0.5, 2.0: 0.4}))
    assert found is start and taken == [] and before.value == after.value == 0.5, "as good is not better"
    found, taken, _, after = stirred(start, loads, of({0.0: 0.5, 1.0: 0.6, 2.0: 0.7}))
    assert float(found["w"]) == 2.0 and taken == ["a", "b"] and after.value == 0.7
    found, taken, _, _ = stirred(start, loads, of({0.0: 0.5, 1.0: 0.4, 2.0: 0.7}))
    assert float(found["w"]) == 2.0 and taken == ["b"], "one that is left out does not count"
    other = {"c": lambda: {"w": torch.zeros(2)}}
    assert stirred(start, other, of({0.0: 0.5}))[1] == [], "other shapes are no ingredients"


def test_lines_fit_forty_columns(whole: tuple[Search, list[Event]]) -> None:
    stream = io.StringIO()
    board, view = Board(), SearchLines(stream, 40)
    with view:
        for event in whole[1]:
            if isinstance(event, Told) or event.kind in ("step", "judged"):
                board.show(event)
                assert all(len(line) <= 40 for line in board.lines(40))
                view.show(event)
    lines = stream.getvalue().splitlines()
    assert sum(line.startswith("trial ") for line in lines) == TRIALS and max(map(len, lines)) <= 40
    assert board.lines(40)[0].startswith("trial") and f"{TRIALS} tried" in board.lines(40)[0]
