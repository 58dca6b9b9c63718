"""Single trials: what their time is, how far their mean over seeds can be trusted, and how repeats end one early."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunesmith import trying
from tunesmith.phases import Time
from tunesmith.recipe import Recipe
from tunesmith.searching import search
from tunesmith.selection.study import Told
from tunesmith.training import loop
from tunesmith.training.events import Note
from tunesmith.trying import Result, Shared, mean_of

Folder = Callable[[str], Path]


def asked(model: Path, data: Path, rates: list[float], **section: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"path": str(data), "test": 0.2, "validation": 0.2},
        "method": {"name": "layers", "layers": 1},
        "training": {"epochs": 1, "batch_size": 16, "precision": "float32", "device": "cpu", "rate": rates},
        "evaluation": {"quick": True, "resamples": 100},
        "search": section,
    }


def test_a_trial_that_is_worse_from_seed_to_seed_is_ended_by_wilcoxon(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(
        model_folder("bert"), table_file, [1e-3, 10.0], repeats=6, pruner="wilcoxon", metrics="loss", soup=False
    )
    events = list(search(plain, tmp_path / "s").events())
    assert any(isinstance(event, Note) and "ended early by wilcoxon" in event.lines[-1] for event in events)
    better, worse = (event for event in events if isinstance(event, Told) and event.state != "running")
    assert better.state == "done" and better.values == {"training.rate": 1e-3}
    assert worse.state == "pruned" and worse.why == "worse than the best trial on 4 of 6 seeds (wilcoxon)"
    lines = [json.loads(line) for line in (tmp_path / "s" / "study.journal").read_text().splitlines()]
    reported = [line["intermediate_value"] for line in lines if "intermediate_value" in line]
    assert all(b < a for a, b in zip(reported[:6], reported[6:], strict=False)) and len(reported) == 10
    names = [path.name for path in sorted((tmp_path / "s" / "trials" / "0001").glob("seed-*"))]
    assert names == ["seed-0", "seed-1", "seed-2", "seed-3"]


def test_a_cost_that_trials_are_judged_by_has_not_the_error_of_another_metric(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    plain = asked(model_folder("bert"), table_file, [1e-2, 1e-3], metrics="loss", soup=False)
    events = list(search(plain, tmp_path / "s").events())
    assert {event.error for event in events if isinstance(event, Told) and event.state == "done"} == {None}
    (said,) = [
        line
        for event in events
        if isinstance(event, Note)
        for line in event.lines
        if line.startswith("validation loss")
    ]
    assert "±" not in said and "±" not in (tmp_path / "s" / "search.html").read_text()
    plain["search"]["metrics"] = "accuracy"
    events = list(search(plain, tmp_path / "t").events())
    assert all(event.error > 0 for event in events if isinstance(event, Told) and event.state == "done")
    assert "±" in (tmp_path / "t" / "search.html").read_text()


def test_what_trials_share_is_in_no_trial_s_time(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, ready = [0.0], trying._ready
    begin = loop.train

    def slow(*given: Any) -> Any:
        clock[0] += 1000.0  # as the first one does that computes the frozen features
        return ready(*given)

    def steps(*given: Any) -> Any:
        clock[0] += 1.0
        yield from begin(*given)

    monkeypatch.setattr(trying, "now", lambda: Time(clock[0], clock[0]))
    monkeypatch.setattr(trying, "_ready", slow)
    monkeypatch.setattr(loop, "train", steps)
    plain = asked(model_folder("bert"), table_file, [1e-2, 1e-3], pruner="none", soup=False)
    told = [event for event in search(plain, tmp_path / "s").events() if isinstance(event, Told)]
    assert [one.metrics["seconds"] for one in told if one.state == "done"] == [1.0, 1.0]


def test_what_another_version_noted_of_a_trial_is_no_result(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = Recipe.parse({"model": str(model_folder("bert")), "data": {"path": str(table_file)}})
    path = tmp_path / trying.RESULT
    for further, is_one in (({}, True), ({"an_older_field": 1}, False)):
        path.write_text(json.dumps({trying.RECIPE_ID: recipe.id, **result(0.5, 0.1).__dict__, **further}))
        assert (trying._known(path, recipe) is not None) == is_one
    assert trying._known(path, recipe.model_copy(update={"seed": 1})) is None


def result(value: float, error: float) -> Result:
    return Result({"accuracy": value, "loss": 1.0}, ("loss",), "accuracy", 1.0, error, 1.0, 1.0, 1)


def test_the_error_of_a_mean_over_seeds_is_that_of_rows_and_of_seeds() -> None:
    assert mean_of([result(0.8, 0.05)]).error == pytest.approx(0.05)
    assert mean_of([result(0.8, 0.05)] * 4).error == pytest.approx(0.05), "more seeds are no more rows"
    varied = mean_of([result(0.7, 0.05), result(0.9, 0.05)])
    assert varied.metrics["accuracy"] == pytest.approx(0.8)
    assert varied.error == pytest.approx((0.05**2 + 0.02 / 2) ** 0.5)


def test_the_error_of_a_mean_over_seeds_is_the_spread_of_such_means() -> None:
    """Over other rows and other seeds, in values that are made of both."""
    random, rows, repeats = np.random.default_rng(0), 50, 4
    means, errors = [], []
    for _ in range(2000):
        shared, seeds = random.normal(0, 1, rows), random.normal(0, 0.2, (repeats, 1))
        each = shared + seeds + random.normal(0, 0.3, (repeats, rows))
        ones = [result(float(one.mean()), float(one.std(ddof=1) / rows**0.5)) for one in each]
        found = mean_of(ones)
        means.append(found.metrics["accuracy"])
        errors.append(found.error**2)
    assert np.sqrt(np.mean(errors)) == pytest.approx(np.std(means), rel=0.06)


def test_trials_take_the_commit_of_the_hub_that_the_first_one_took(
    model_folder: Folder, table_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.models import resolve

    folder, asked_for = model_folder("bert"), list[str | None]()

    def newest(name: str, revision: str | None = None) -> tuple[Path, str]:
        asked_for.append(revision)
        return folder, revision or f"commit{len(asked_for)}"

    monkeypatch.setattr(resolve, "fetch", newest)
    monkeypatch.setattr(resolve, "_found_here", lambda name: None)
    recipe, shared = Recipe.parse({"model": "someone/bert", "data": str(table_file)}), Shared()
    found = [shared.rows(recipe)[2].source.revision for _ in range(2)]
    assert (asked_for, found) == ([None, "commit1"], ["commit1", "commit1"])
