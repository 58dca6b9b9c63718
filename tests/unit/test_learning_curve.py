"""The law through a learning curve: exact ones are found again, noisy ones held by intervals, and runs say what follows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shortruns import recipe_for, rows, stopped_when, write_rows
from tunesmith.data.nested import nested_order
from tunesmith.evaluation.intervals import Interval
from tunesmith.evaluation.wording import gain_in_words
from tunesmith.evidence.base import CurvePoint, Subject
from tunesmith.evidence.learning_curve import _flipped, _found, _resampled, _says, sentence
from tunesmith.evidence.power_law import Points, extrapolate
from tunesmith.pipeline import resume, start
from tunesmith.preparing import prepare
from tunesmith.tasks import _metrics
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Event, Note, Warned

Folder = Callable[[str], Path]
SIZES = np.array([625, 625, 625, 1250, 1250, 1250, 2500, 2500, 2500, 5000, 5000, 5000, 10000])


def measured(law: Callable[[Any], Any], spread: float, tested: int, seed: int) -> Points:
    """Errors as heads on nested parts of one whole have them: what parts share moves them alike, the rest is their own.

    spread: variance times rows; tested: test rows, drawn once for all points, hits and misses mostly the same rows.
    """
    draw = np.random.default_rng(seed)
    own = draw.normal(size=len(SIZES)) * np.sqrt(spread / SIZES * (1 - SIZES / SIZES.max()))
    shared = draw.normal() * np.sqrt(spread / SIZES.max())
    level = draw.normal() * np.sqrt(0.09 / tested)
    errors = law(SIZES / SIZES.max()) + own + shared + level
    alike = draw.normal(size=(100, 1)) * np.sqrt(0.09 / tested)
    apart = draw.normal(size=(100, len(SIZES))) * np.sqrt(0.004 / tested)
    return Points(SIZES, errors, errors + alike + apart)


@pytest.mark.parametrize(
    ("floor", "drop", "exponent"), [(0.05, 0.02, 0.7), (0.0, 0.1, 0.5), (0.3, 0.01, 0.35), (0.1, 0.2, 1.0)]
)
def test_an_exact_law_is_found_again(floor: float, drop: float, exponent: float) -> None:
    errors = floor + drop * (SIZES / SIZES.max()) ** -exponent
    found = extrapolate(Points(SIZES, errors, np.tile(errors, (10, 1))), [20_000, 40_000], 10_000, 0.95, 0)
    assert found is not None
    assert found.law.exponent == pytest.approx(exponent, rel=0.05)
    for times, error, gain in zip((2, 4), found.errors, found.gains, strict=True):
        wanted = floor + drop * times**-exponent
        assert error.value == pytest.approx(wanted, abs=2e-3)
        assert gain.value == pytest.approx(floor + drop - wanted, abs=2e-3)
        assert gain.low <= gain.value <= gain.high


def test_intervals_hold_the_truth_of_noisy_curves() -> None:
    held, gains, count = 0, 0, 200
    draw = np.random.default_rng(5)
    for seed in range(count):
        floor, drop, exponent = (
            draw.uniform(0.0, 0.3),
            draw.uniform(0.005, 0.08),
            np.exp(np.log(0.5) + 0.5 * draw.normal()),
        )
        spread = draw.uniform(0.02, 0.2)
        points = measured(lambda x, f=floor, d=drop, c=exponent: f + d * x**-c, spread, 3000, seed)
        found = extrapolate(points, [20_000], 10_000, 0.95, seed)
        assert found is not None
        wanted = drop * (1 - 2**-exponent)
        ahead = wanted + draw.normal() * np.sqrt(spread * (1 / 10_000 - 1 / 20_000))  # the rows to come are drawn too
        gains += found.gains[0].low <= ahead <= found.gains[0].high
        held += found.errors[0].low <= points.errors[-1] - ahead <= found.errors[0].high
    assert gains >= 0.9 * count, f"{gains} of {count} gains"
    assert held >= 0.9 * count, f"{held} of {count} errors"


def test_a_flat_curve_promises_nothing() -> None:
    hardly = 0
    for seed in range(20):
        found = extrapolate(measured(lambda x: 0.2 + 0 * x, 0.01, 3000, seed), [20_000], 10_000, 0.95, seed)
        assert found is not None
        assert found.gains[0].value < 0.005
        hardly += _says(found.gains[0], 0.8, lower=False) == "hardly"
    assert hardly >= 18


def test_two_sizes_say_nothing() -> None:
    errors = np.array([0.3, 0.31, 0.2])
    assert extrapolate(Points(np.array([50, 50, 100]), errors, errors[None]), [200], 100, 0.95, 0) is None


def test_three_sizes_drawn_once_still_have_an_interval() -> None:
    errors, draw = np.array([0.3, 0.25, 0.22]), np.random.default_rng(0)
    resampled = errors + 0.01 * draw.normal(size=(100, 1)) + 0.003 * draw.normal(size=(100, 3))
    found = extrapolate(Points(np.array([250, 500, 1000]), errors, resampled), [2000], 1000, 0.95, 0)
    assert found is not None
    assert found.gains[0].low < found.gains[0].value < found.gains[0].high
    assert 0.005 < found.gains[0].value < 0.03


@given(st.lists(st.sampled_from("aabbbc"), min_size=1, max_size=80), st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_every_beginning_of_the_order_holds_the_classes_in_their_shares(classes: list[str], seed: int) -> None:
    order = nested_order(classes, seed)
    assert sorted(order) == list(range(len(classes)))
    for size in (len(classes) // 4, len(classes) // 2):
        taken = [classes[row] for row in order[:size]]
        for name in set(classes):
            assert abs(taken.count(name) - size * classes.count(name) / len(classes)) <= 2


def test_no_edge_leaves_what_a_metric_can_be() -> None:
    wide = Interval(0.4, -0.3, 2.5)  # of errors
    assert _flipped(wide, "accuracy", False) == Interval(0.6, 0.0, 1.0)
    assert _flipped(wide, "spearman", False) == Interval(0.6, -1.0, 1.0)
    assert _flipped(wide, "rmse", True) == Interval(0.4, 0.0, 2.5)
    assert _flipped(Interval(0.4, 0.3, 0.5), "accuracy", False) == Interval(0.6, 0.5, 0.7)


def test_what_is_said_of_gains() -> None:
    assert gain_in_words(Interval(0.0062, 0.0012, 0.0117), "accuracy") == "0.6 points of accuracy [0.1, 1.2]"
    assert gain_in_words(Interval(0.0062, 0.0012, 0.0117), "spearman") == "0.006 of Spearman correlation [0.001, 0.012]"
    assert gain_in_words(Interval(0.21, 0.1, 0.3), "rmse", True) == "0.210 lower RMSE [0.100, 0.300]"
    for gain, says, begins in [
        (
            (0.006, 0.001, 0.012),
            "helps",
            "Twice the training rows would bring about 0.6 points of accuracy [0.1, 1.2] (",
        ),
        (
            (0.001, -0.001, 0.004),
            "hardly",
            "More training rows would hardly help: twice as many would bring about 0.1 points",
        ),
        ((0.006, -0.002, 0.012), "unclear", "Whether more training rows would help cannot be told: twice as many"),
    ]:
        interval = Interval(*gain)
        assert _says(interval, 0.9, lower=False) == says
        plain = {"value": gain[0], "low": gain[1], "high": gain[2]}
        data = {"of": "frozen", "metric": "accuracy", "lower": False, "says": says, "ahead": [{"gain": plain}]}
        assert sentence(data).startswith(begins)
    assert _says(Interval(0.5, 0.2, 0.8), 10.0, lower=True) == "helps"
    assert _says(Interval(0.05, 0.0, 0.1), 10.0, lower=True) == "hardly"


def _report(run: Path) -> dict[str, Any]:
    return json.loads((run / "report.json").read_text())


WITH = {"evaluation.baselines": True, "retention.measure": False}


def test_a_run_tells_its_curve(model_folder: Folder, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", 300)
    recipe = recipe_for(model_folder("sentence"), data, "head", {**WITH, "training.epochs": 1})
    list(start(recipe, tmp_path / "run").events())
    report = _report(tmp_path / "run")
    found = report["evidence"]["learning_curve"]
    rows = report["data"]["splits"][0]["rows"]
    assert [item["rows"] for item in found["points"]] == [round(rows / 8), round(rows / 4), round(rows / 2), rows]
    assert [len(item["values"]) for item in found["points"]] == [3, 3, 3, 1]
    probe = next(item for item in report["baselines"] if item["name"] == "probe")["metrics"]["accuracy"]["value"]
    assert found["points"][-1]["values"] == [pytest.approx(probe, abs=0.04)], "all rows are those of the probe"
    assert [item["rows"] for item in found["ahead"]] == [2 * rows, 4 * rows]
    assert any("training rows" in line for line in report["beside"])
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'id="learning_curve"' in page and "this method itself" not in page


@pytest.mark.parametrize(
    ("task", "family", "method", "of", "metric"),
    [
        ("multilabel", "sentence", "head", "frozen", "micro_f1"),
        ("regression", "sentence", "head", "frozen", "spearman"),
        ("causal_lm", "gpt2", "full", "method", "perplexity"),
        ("causal_lm", "gpt2", "full", None, "perplexity"),
    ],
)
def test_each_task_has_the_curve_that_it_can(
    model_folder: Folder, tmp_path: Path, task: str, family: str, method: str, of: str | None, metric: str
) -> None:
    told = {
        "multilabel": [
            [text, f"{name}|{'even' if place % 2 else 'odd'}"] for place, (text, name) in enumerate(rows(260))
        ],
        "regression": [[text, len(text)] for text, _ in rows(260)],
        "causal_lm": [[text] for text, _ in rows(260)],
    }[task]
    with (tmp_path / "rows.csv").open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([["text", "label"][: len(told[0])], *told])
    settings = {**WITH, "training.epochs": 1, "task": task, "evaluation.curve": "method" if of == "method" else "probe"}
    settings["training.dropout"] = 0.0  # whose noise alone lifts the loss of so few rows far enough to be warned of
    events = list(
        start(recipe_for(model_folder(family), tmp_path / "rows.csv", method, settings), tmp_path / "run").events()
    )
    report = _report(tmp_path / "run")
    found = report["evidence"].get("learning_curve")
    why = "" if of is not None else "this kind of model is not cheaply tried on parts"  # a language model
    assert found.get("unmeasured", "").startswith(why) and ("unmeasured" in found) == (of is None)
    said = [
        line for line in report["beside"] if line.startswith("Whether more training rows would help was not measured")
    ]
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert len(said) == page.count("Not measured: this kind of model") == (of is None)
    if of is not None:
        assert (found["of"], found["metric"], found["lower"]) == (of, metric, task == "causal_lm")
        assert found["points"][-1]["rows"] == report["data"]["splits"][0]["rows"]
        assert found["ahead"][0]["low"] <= found["ahead"][0]["value"] <= found["ahead"][0]["high"]
    assert [event.message for event in events if isinstance(event, Warned)] == []


def test_a_share_of_the_rows_is_held_in_a_larger_one_and_means_the_same(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", 300)
    made = [prepare(recipe_for(Path("m"), data, "full", {"data.share": share})) for share in (0.01, 0.25, 0.5, 1.0)]
    lines = [set(item.splits.train.lines) for item in made]
    assert all(fewer < more for fewer, more in pairwise(lines))
    assert [len(some) for some in lines] == [3, 49, 98, 195], "and no class is lost"
    assert len({item.labels for item in made}) == 1
    assert (
        len({tuple(item.splits.test.lines) for item in made})
        == len({tuple(i.splits.validation.lines) for i in made})
        == 1
    )
    assert "25 % of them, as data.share asks" in made[1].splits.why["train"]


def test_a_curve_that_is_missing_is_missing_for_a_reason_that_holds(model_folder: Folder, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", 300)
    without = {**WITH, "training.epochs": 1, "evaluation.baselines": False}
    list(start(recipe_for(model_folder("sentence"), data, "head", without), tmp_path / "run").events())
    assert _report(tmp_path / "run")["evidence"]["learning_curve"] == {"unmeasured": "evaluation.baselines is off"}


@pytest.mark.parametrize("settings", [{"evaluation.curve": "off"}, {"evaluation.quick": True}, {"data.share": 0.2}])
def test_no_curve_where_none_is_wanted_and_no_law_of_few_rows(
    model_folder: Folder, tmp_path: Path, settings: dict[str, Any]
) -> None:
    data = write_rows(tmp_path / "rows.csv", 300)
    recipe = recipe_for(model_folder("sentence"), data, "head", {**WITH, "training.epochs": 1, **settings})
    list(start(recipe, tmp_path / "run").events())
    report = _report(tmp_path / "run")
    if "data.share" not in settings:
        assert "learning_curve" not in report["evidence"]
    else:
        assert report["data"]["splits"][0]["rows"] == 39
        why = "there are too few training rows"  # one part of 24 rows or more is no curve
        assert report["evidence"]["learning_curve"] == {"unmeasured": why} and any(
            why in line for line in report["beside"]
        )
    assert not any("training rows" in line and "Twice" in line for line in report["beside"])


def test_the_methods_own_curve_is_of_whole_runs_stopped_and_gone_on_with(model_folder: Folder, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.csv", 300)
    recipe = recipe_for(
        model_folder("sentence"),
        data,
        "full",
        {"training.epochs": 1, "evaluation.curve": "method", "retention.measure": False},
    )

    def in_it(events: list[Event]) -> bool:
        return any(isinstance(event, Note) and "on a half of the rows, step" in event.lines[0] for event in events)

    stopped_when(in_it, recipe, tmp_path / "run")
    assert (tmp_path / "run" / "curve" / "quarter" / "report.json").exists()
    list(resume(tmp_path / "run").events())
    report = _report(tmp_path / "run")
    found = report["evidence"]["learning_curve"]
    inner = [_report(tmp_path / "run" / "curve" / name) for name in ("quarter", "half")]
    sizes = [item["data"]["splits"][0]["rows"] for item in inner]
    whole = report["data"]["splits"][0]["rows"]
    assert sizes == [round(whole / 4), round(whole / 2)]
    assert [item["data"]["splits"][1:] for item in inner] == [report["data"]["splits"][1:]] * 2, (
        "the same rows to measure on"
    )
    assert found["of"] == "method" and [item["rows"] for item in found["points"]] == [*sizes, whole]
    values = [*(item["metrics"]["accuracy"]["value"] for item in inner), report["metrics"]["accuracy"]["value"]]
    assert [item["values"] for item in found["points"]] == [[pytest.approx(value)] for value in values]
    assert any("this method's own curve" in line for line in report["beside"])
    assert not (tmp_path / "run" / "curve" / "half" / "checkpoints").exists()


def test_a_part_that_fails_leaves_the_run_its_report(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith import method_curve
    from tunesmith.errors import TrainingError
    from tunesmith.pipeline import Session

    data = write_rows(tmp_path / "rows.csv", 120)
    recipe = recipe_for(
        model_folder("sentence"), data, "head", {"training.epochs": 1, "evaluation.curve": "method", **WITH}
    )

    class Broken(Session):
        def events(self) -> Any:
            raise TrainingError("it broke")

    monkeypatch.setattr(method_curve, "part_recipe", lambda recipe, share: recipe)
    monkeypatch.setattr(Session, "_inner", lambda self, recipe, folder: Broken(recipe, folder))
    events = list(start(recipe, tmp_path / "run").events())
    assert any(isinstance(event, Warned) and "came to nothing: it broke" in event.message for event in events)
    assert (tmp_path / "run" / "report.json").exists()


def test_a_part_that_came_to_a_result_before_another_failed_is_kept_and_counted(
    model_folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.errors import TrainingError
    from tunesmith.pipeline import Session

    data = write_rows(tmp_path / "rows.csv", 120)
    recipe = recipe_for(
        model_folder("sentence"), data, "head", {"training.epochs": 1, "evaluation.curve": "method", **WITH}
    )
    inner = Session._inner

    class Broken(Session):
        def events(self) -> Any:
            raise TrainingError("it broke")

    def of(self: Session, recipe: Any, folder: Path) -> Session:
        return Broken(recipe, folder) if folder.name == "half" else inner(self, recipe, folder)

    monkeypatch.setattr(Session, "_inner", of)
    list(start(recipe, tmp_path / "run").events())
    report = _report(tmp_path / "run")
    assert report["cost"]["beside"]["models"] == 1
    assert report["evidence"]["learning_curve"]["of"] == "frozen", "two sizes make no curve"


def of_hits(right: np.ndarray, groups: np.ndarray | None = None) -> Scores:
    columns = {"truth": np.zeros(len(right), int), "predicted": 1 - right.astype(int)}
    metrics: Any = {"accuracy": _metrics.accuracy}
    return Scores(columns, metrics, "accuracy", shares=frozenset(metrics), groups=groups)


def curve_of(rights: list[np.ndarray], groups: np.ndarray | None = None) -> dict[str, Any]:
    points = [CurvePoint(100 * 2**place, of_hits(right)) for place, right in enumerate(rights)]
    subject = SimpleNamespace(
        train=range(points[-1].rows),
        recipe=SimpleNamespace(seed=0, evaluation=SimpleNamespace(confidence=0.95)),
        test=SimpleNamespace(scores=of_hits(rights[-1], groups)),
    )
    found = _found(cast("Subject", subject), points, "frozen")
    assert found is not None
    return dict(found.data)


def test_where_no_mistake_is_seen_as_much_may_be_gained_as_could_have_gone_unseen() -> None:
    """Not nothing, as resamples without a mistake would have it."""
    for rows_tested, says in ((20, "unclear"), (2000, "hardly")):
        found = curve_of([np.ones(rows_tested, bool)] * 4)
        unseen = 1 - 0.025 ** (1 / rows_tested)
        gain = found["ahead"][0]["gain"]
        assert gain["low"] == gain["value"] == 0 and gain["high"] == pytest.approx(unseen)
        assert found["line"][-1]["low"] == pytest.approx(1 - unseen) and found["says"] == says
    grouped = curve_of([np.ones(2000, bool)] * 4, np.repeat(np.arange(20), 100))
    assert grouped["ahead"][0]["gain"]["high"] == pytest.approx(1 - 0.025 ** (1 / 20)) and grouped["says"] == "unclear"
    none_right = curve_of([np.zeros(2000, bool)] * 4)
    assert none_right["says"] == "unclear", "nothing was learned, which tells nothing of more rows"
    few_wrong = [np.arange(100) >= wrong for wrong in (8, 4, 2, 0)]
    assert curve_of(few_wrong)["ahead"][0]["gain"]["high"] >= 1 - 0.025 ** (1 / 100)


def test_test_rows_of_a_curve_are_drawn_in_whole_groups() -> None:
    right = np.repeat(np.arange(30) % 3 > 0, 20)
    spreads = [
        np.std(_resampled(of_hits(right, group), "accuracy", 0, 0.95)) for group in (None, np.repeat(np.arange(30), 20))
    ]
    assert spreads[0] == pytest.approx(np.sqrt(2 / 9 / 600), rel=0.25)
    assert spreads[1] == pytest.approx(np.sqrt(2 / 9 / 30), rel=0.25)


@pytest.mark.parametrize("groups", [4, 8, 24])
def test_resamples_of_a_curve_lie_as_far_apart_as_those_of_an_interval(groups: int) -> None:
    """Percentiles of plain draws of whole groups cover 79 %, 86 % and 89 %."""
    held = 0
    for seed in range(400):
        draw = np.random.default_rng([19, seed])
        group = np.repeat(np.arange(groups), 20)
        right = draw.random(len(group)) < draw.beta(0.8 * 7 / 3, 0.2 * 7 / 3, size=groups)[group]  # alike by 0.3
        low, high = np.quantile(_resampled(of_hits(right, group), "accuracy", seed, 0.95), [0.025, 0.975])
        held += low <= 0.8 <= high
    assert held / 400 >= 0.9, held / 400
