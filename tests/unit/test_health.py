"""The rules by which a run's training is judged: each on a curve that breaks it, on curves that do not, and on short runs."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortruns import HINTS, recipe_for, rows
from tunesmith.evaluation import health
from tunesmith.evaluation.collapse import Said, collapsed, constant, never_said
from tunesmith.evaluation.health import Check, History, Moved, ValidationPoint
from tunesmith.pipeline import start
from tunesmith.training.events import Warned

Folder = Callable[[str], Path]
USUAL = (Moved("base", 0.01, 0.01, 1e-4, 1e-4), Moved("head", 0.01, 0.01, 5e-4, 5e-4))
SLOW = (Moved("base", 1e-5, 1e-5, 1e-7, 1e-4), Moved("head", 1e-5, 1e-5, 5e-7, 5e-4))


def _noisy(levels: Sequence[float], seed: int = 0, noise: float = 0.15) -> list[float]:
    draw = random.Random(seed)
    return [level * math.exp(draw.gauss(0, noise)) for level in levels]


def _falling(steps: int = 60, least: float = 0.1) -> list[float]:
    return [least + (0.5 - least) * math.exp(-4 * step / steps) for step in range(steps)]


def _held(
    losses: Sequence[float], values: Sequence[float], error: float = 0.02, per_epoch: int = 12
) -> list[ValidationPoint]:
    made = enumerate(zip(losses, values, strict=True))
    return [ValidationPoint(per_epoch * place, float(place), value, error, loss) for place, (loss, value) in made]


FALLING_HELD = _held([0.55, 0.4, 0.32, 0.3, 0.295, 0.293], [0.8, 0.83, 0.85, 0.86, 0.86, 0.86])


def _history(
    losses: Sequence[float],
    held: Sequence[ValidationPoint] = FALLING_HELD,
    norms: Sequence[float] = (),
    chance: float = 0.69,
) -> History:
    return History(losses, norms or [1.0] * len(losses), held, "accuracy", False, 3e-5, chance)


def _all(history: History, moved: Sequence[Moved], clip: float | None = 1.0) -> dict[str, Check]:
    """The checks that found something."""
    checks = (
        health.nothing_learned(history, moved, 0.0, clip, 5),
        health.too_high(history, moved),
        health.too_low(history, moved, clip),
        health.stopped_early(history, 5),
        health.gradients(history, moved, clip),
    )
    return {check.rule: check for check in checks if check.cause}


@pytest.mark.parametrize("seed", range(10))
def test_a_curve_that_falls_breaks_no_rule(seed: int) -> None:
    draw = random.Random(seed)
    losses = _noisy(_falling(draw.randint(15, 300), draw.uniform(0.001, 0.4)), seed, draw.uniform(0.05, 0.4))
    norms = _noisy([1.0 + loss for loss in losses], seed, 0.5)
    assert _all(_history(losses, norms=norms), USUAL) == {}


@pytest.mark.parametrize(
    ("losses", "held"),
    [
        ([0.42, 3.8, 3.8, 0.9, *[0.71] * 20], FALLING_HELD),  # as SST-2 at a hundred times the rate
        ([0.45, 1.4, 1.5, 1.5, 1.2, *_falling(30)], FALLING_HELD),  # thrown off, and came back
        ([0.5, *[0.5 + 0.02 * step for step in range(40)]], FALLING_HELD),
        (_falling(), _held([0.55, 0.7, 0.8], [0.8, 0.7, 0.6])),
    ],
)
def test_a_rate_that_is_too_high(losses: list[float], held: list[ValidationPoint]) -> None:
    fast = [Moved("base", 0.6, 0.6, 1e-2, 1e-4), Moved("head", 0.01, 0.01, 5e-4, 5e-4)]
    assert "rate too high" in _all(_history(losses, held), USUAL)
    found = _all(_history(losses, held), fast)["rate too high"]
    assert found.fix == "give --set training.rate=1e-4, what the method takes for this base by itself"
    assert "--set training.rate=1e-5, a tenth" in _all(_history(losses, held), USUAL)["rate too high"].fix


def test_a_metric_that_fell_within_its_error_is_not_held_against_the_rate() -> None:
    assert _all(_history(_falling(), _held([0.55, 0.5, 0.5], [0.8, 0.78, 0.76], error=0.02)), USUAL) == {}
    assert _all(_history(_falling(), _held([0.55, 0.5, 0.5], [0.8, 0.78, 0.74], error=0.02)), USUAL) != {}


def test_a_loss_near_nothing_may_double() -> None:
    losses = [0.002, 0.002, *[0.006] * 30]
    assert "rate too high" not in _all(_history(losses, _held([0.001, 0.001], [1.0, 1.0])), USUAL)
    assert "rate too high" in _all(_history(losses, _held([0.001, 0.001], [1.0, 1.0]), chance=0.0), USUAL)


def test_a_rate_that_is_too_low() -> None:
    flat = _held([0.5, 0.4999, 0.4998], [0.8, 0.8, 0.8])
    (found,) = _all(_history(_noisy([0.42] * 60), flat), SLOW).values()
    assert found.rule == "rate too low" and "training itself did nothing" in found.cause
    assert found.fix.startswith("give --set training.rate=1e-4 --set training.head_rate=5e-4, what the method takes")
    assert _all(_history(_noisy([0.42] * 60), flat), USUAL) == {}, "a fitted head has nothing more to learn"
    falls = _held([0.5, 0.49, 0.47], [0.8, 0.8, 0.8])
    (found,) = _all(_history(_noisy([0.42] * 60), falls), SLOW).values()
    assert "training itself did little" in found.cause
    unknown = [Moved(item.part, item.trained, item.delivered, item.rate, 0.0) for item in SLOW]
    assert _all(_history(_noisy([0.42] * 60), falls), unknown) == {}
    (found,) = _all(_history(_noisy([0.42] * 60), flat), SLOW, clip=1e-9).values()
    assert found.fix == "give --set training.clip=1" and found.cause.startswith("gradients are clipped to 1e-09")


def test_of_a_slow_base_below_a_head_that_learns_only_the_head_learned() -> None:
    (found,) = _all(_history(_falling()), (SLOW[0], USUAL[1])).values()
    assert found.rule == "rate too low" and "only the head learned" in found.cause
    assert found.fix.startswith("give --set training.rate=1e-4, ")


def test_a_loss_that_still_falls_much_at_the_end_was_stopped_early() -> None:
    held = _held([0.9, 0.7, 0.6, 0.5, 0.42, 0.36], [0.5, 0.6, 0.7, 0.75, 0.8, 0.82])
    (found,) = _all(_history(_falling(), held), USUAL).values()
    assert found.rule == "stopped too early" and found.fix == "give --set training.epochs=10"
    assert "fell by 14 % from epoch 4 to the last one" in found.cause
    assert _all(_history(_falling(), held[:-1]), USUAL) == {}, "patience ended it"
    assert _all(_history(_falling(), _held([0.9, 0.5, 0.4, 0.42, 0.41, 0.38], [0.8] * 6)), USUAL) == {}


def test_what_did_not_move() -> None:
    still = [Moved("base", 0.0, 0.0, 1e-12, 1e-4), Moved("head", 0.01, 0.01, 5e-4, 5e-4)]
    (found,) = _all(_history(_falling()), still).values()
    assert found.cause == "no weight of the base moved in 60 steps: only the rest of the model learned"
    assert "--set training.rate=1e-4" in found.fix
    near = [Moved("base", 1e-16, 0.0, 1e-14, 1e-4), Moved("head", 0.0, 0.0, 1e-14, 5e-4)]
    (found,) = _all(_history(_noisy([0.42] * 60)), near).values()
    assert found.cause.startswith("no weight of the base and head moved in 60 steps: the model is the one before")
    no_step = health.nothing_learned(_history([]), (), 0.0, 1.0, 5)
    assert "no step was done" in no_step.cause and no_step.fix == "give --set training.epochs=5"
    no_gradient = health.nothing_learned(_history([0.5] * 20, norms=[0.0] * 20), USUAL, 0.0, 1.0, 5)
    assert "no gradient reached what trains" in no_gradient.cause
    dead = [Moved("base", 3e-5, 3e-5, 1e-4, 1e-4), Moved("head", 0.01, 0.01, 5e-4, 5e-4)]
    (found,) = _all(_history(_falling()), dead).values()
    assert found.cause.startswith("a dead adapter: what trains of the base moved by 0.003 % in 60 steps")


def test_what_was_learned_and_is_not_delivered() -> None:
    lost = [Moved("base", 0.01, 0.0, 1e-4, 1e-4)]
    (found,) = _all(_history(_falling()), lost).values()
    assert "no later state was better on the validation rows" in found.cause and "training.rate=1e-5" in found.fix
    kept = health.nothing_learned(_history(_falling()), [Moved("base", 0.01, 1e-5, 1e-4, 1e-4)], 0.999, 1.0, 5)
    assert "0.999 of the delivered weights are the base's own" in kept.cause and "retention.keep=0.5" in kept.fix
    half = health.nothing_learned(_history(_falling()), [Moved("base", 0.01, 0.005, 1e-4, 1e-4)], 0.5, 1.0, 5)
    assert half.cause == "" and "1 % (0.5 % delivered)" in half.figure


def test_gradients_that_vanish_and_that_grow() -> None:
    vanished = _history(_noisy([0.5] * 60), norms=[1.0] * 6 + [1e-5] * 54)
    assert "the gradients vanished" in _all(vanished, USUAL)["gradients"].cause
    learned = _history(_falling(least=1e-4), norms=[1.0] * 6 + [1e-5] * 54)
    assert _all(learned, USUAL) == {}, "a loss of nothing has no gradient"
    grown = _history([0.55 + 0.02 * step for step in range(60)], norms=[1.0 + step for step in range(60)])
    assert _all(grown, USUAL, clip=None)["gradients"].fix == "give --set training.clip=1"
    figure = health.gradients(_history(_falling(), norms=[0.5, 2.0] * 30), USUAL, 1.0).figure
    assert "clipped" not in figure, "Adam's step hardly depends on the norm, so that clipping is no news"


@given(
    st.floats(1e-3, 1e3),
    st.lists(st.floats(0.01, 5.0), min_size=8, max_size=60),
    st.lists(st.floats(0.01, 5.0), min_size=2, max_size=6),
    st.sampled_from([USUAL, SLOW]),
)
def test_the_unit_of_a_loss_does_not_matter(
    times: float, losses: list[float], held: list[float], moved: tuple[Moved, ...]
) -> None:
    times = 2.0 ** round(math.log2(times))  # exact, so that no comparison can fall on its other side
    found = []
    for unit in (1.0, times):
        evaluations = _held([unit * loss for loss in held], [0.8] * len(held))
        history = _history([unit * loss for loss in losses], evaluations, losses, unit * 0.69)
        found.append(sorted(_all(history, moved)))
        assert health.far_above(history.losses, history.held[0].loss) == health.far_above(losses, held[0])
    assert found[0] == found[1]


@given(st.lists(st.floats(0.01, 5.0), max_size=7), st.lists(st.floats(0.01, 5.0), max_size=2))
def test_a_few_steps_tell_nothing(losses: list[float], held: list[float]) -> None:
    found = _all(_history(losses, _held(held, [0.8] * len(held))), USUAL)
    assert set(found) <= {"nothing learned"} and bool(found) == (not losses)


def test_a_loss_far_above_its_start_is_told_of_while_it_runs() -> None:
    thrown = [0.43, 3.05, 2.67, 2.73, 1.04]
    assert [health.far_above(thrown[:steps], 0.5) for steps in range(6)] == [False] * 5 + [True]
    assert not health.far_above(thrown, None)
    assert not health.far_above([0.4, 0.4, 9.0, 0.4, 0.4], 0.5), "one strange batch"


def _classes(*counts: tuple[int, int, int, int]) -> list[Said]:
    return [Said(f"class {place}", *item) for place, item in enumerate(counts)]


def test_a_class_that_is_never_said() -> None:
    usual = [(100, 40, 40, 36)] * 9
    assert never_said(_classes(*usual, (100, 40, 41, 35))) == []
    assert [item.name for item in never_said(_classes(*usual, (100, 40, 0, 0)))] == ["class 9"]
    assert never_said(_classes(*usual, (100, 4, 0, 0))) == [], "four rows may all be missed by chance"
    assert never_said(_classes(*usual, (0, 40, 0, 0))) == [], "nobody could have learned it"
    weak = [(100, 40, 40, 4)] * 9
    assert never_said(_classes(*weak, (100, 40, 0, 0))) == [], "of a model that finds one row in ten"
    assert len(never_said(_classes((900, 450, 500, 450), (100, 50, 0, 0)))) == 1, "always the same answer"


@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(5, 60), st.floats(0.2, 0.95))
def test_no_class_of_a_model_with_one_recall_is_called_collapsed(
    seed: int, count: int, size: int, recall: float
) -> None:
    draw = random.Random(seed)
    hits = [sum(draw.random() < recall for _ in range(size)) for _ in range(count)]
    assert not [item for item in never_said(_classes(*((50, size, hit, hit) for hit in hits))) if item.hits]


def test_what_to_do_about_a_collapsed_class_is_one_thing() -> None:
    usual, gone = [(100, 40, 40, 36)] * 4, (100, 40, 0, 0)
    few = collapsed(_classes(*usual, (10, 40, 0, 0)), "")
    assert few.fix == 'give more rows of "class 4", or each of its training rows 10 times'
    assert "10 training rows where the median class has 100" in few.cause
    taken = collapsed([*_classes(*usual), Said("lost", *gone, "class 0")], "")
    assert 'and is taken for "class 0"' in taken.cause and "make one class of both" in taken.fix
    assert collapsed(_classes(*usual, gone), "give a lower rate").fix == "give a lower rate"
    assert collapsed(_classes(*usual), "").cause == ""


def test_numbers_that_are_all_the_same() -> None:
    assert constant({"score": (1.0, 0.001)}).cause == "nearly the same number is predicted for every row of score"
    assert constant({"score": (1.0, 0.3)}).cause == ""
    assert constant({"score": (0.0, 0.0)}).cause == ""


# Short runs.

SETTINGS = {"training.epochs": 4, "training.rate": 1e-3, "training.micro_batch": 24, "retention.measure": False}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *rows(240)])
    return path


def _run(model: Path, data: Path, out: Path, method: Any = "full", **settings: Any) -> dict[str, Any]:
    given = SETTINGS | {key.replace("__", "."): value for key, value in settings.items()}
    events = list(start(recipe_for(model, data, method, given), out).events())
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    report["warned"] = [event.message for event in events if isinstance(event, Warned)]
    assert ('<section id="health">' in (out / "report.html").read_text(encoding="utf-8")) == bool(report["evidence"])
    return report


def _found(report: dict[str, Any]) -> list[str]:
    """Broken rules; the findings say the same."""
    messages = [item["message"] for item in report["findings"] if item["kind"] == "health"]
    checks = report["evidence"]["health"]["checks"]
    broken = [item for item in checks if item["cause"] and item["rule"] != "overfitting"]
    assert [f"{item['cause']}; {item['fix']}" for item in broken] == messages
    return messages


@pytest.mark.parametrize(
    ("method", "settings", "says", "fix"),
    [
        ("full", {"training__rate": 0.3}, "the learning rate is too high", "training.rate="),
        (
            "full",
            {"training__rate": 1e-7, "training__head_rate": 1e-7},
            "training itself did nothing",
            "training.rate=",
        ),
        ("full", {"training__rate": 1e-7}, "only the head learned", "--set training.rate=2e-4"),
        ("full", {"training__rate": 1e-14}, "no weight of the base moved", "--set training.rate=2e-4"),
        ("full", {"training__epochs": 0}, "no step was done", "--set training.epochs=5"),
        ("full", {"training__clip": 1e-13}, "training itself did nothing", "--set training.clip=1"),
        (
            "full",
            {"retention__keep": 0.999, "seed": 1},
            "what was learned is not delivered",
            "--set retention.keep=0.5",
        ),
    ],
)
def test_each_planted_case_is_found(
    method: str, settings: dict[str, Any], says: str, fix: str, model_folder: Folder, table: Path, tmp_path: Path
) -> None:
    report = _run(model_folder("bert"), table, tmp_path / "run", method, **settings)
    found = _found(report)
    assert len([message for message in found if says in message and fix in message]) == 1, found
    assert any(says in line for line in report["beside"])
    assert any("times its start" in line for line in report["warned"]) == ("too high" in says)


def test_a_dead_adapter_is_found(
    model_folder: Folder, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradients are taken away, as where nothing of it reaches the output."""
    from tunesmith.training.optim import Masters

    gradients = Masters.gradients

    def without(self: Masters) -> list[Any]:
        for name, tensor in self.tensors.items():
            if (tensor.grad is not None and ".base." not in name and "down" in name) or "up" in name:
                tensor.grad.zero_()
        return gradients(self)

    monkeypatch.setattr(Masters, "gradients", without)
    report = _run(model_folder("bert"), table, tmp_path / "run", {"name": "lora", "rank": 4})
    assert any("a dead adapter" in message for message in _found(report)), report["evidence"]["health"]


def test_a_class_without_its_rows_learned_is_found(model_folder: Folder, tmp_path: Path) -> None:
    """Two classes of the same texts, one of them ten times as frequent in training."""
    draw, made = random.Random(0), {}
    sizes = {"train": {"often": 200, "rare": 20, "other": 200}, "test": {"often": 40, "rare": 40, "other": 40}}
    for split, counts in sizes.items():
        made[split] = []
        for label, count in counts.items():
            hints = HINTS["praise" if label == "other" else "money"]
            texts = [" ".join(draw.choice(hints) for _ in range(6)) + f" {draw.random():.3f}" for _ in range(count)]
            made[split] += [(text, label) for text in texts]
    data = tmp_path / "data"
    data.mkdir()
    for split, lines in made.items():
        with (data / f"{split}.csv").open("w", newline="", encoding="utf-8") as out:
            csv.writer(out).writerows([("text", "label"), *lines])
    found = _found(_run(model_folder("bert"), data, tmp_path / "run"))
    assert any(
        '1 class is never said, or hardly ever: "rare"' in message and "10 times" in message for message in found
    ), found


def test_a_quick_report_has_no_examination(model_folder: Folder, table: Path, tmp_path: Path) -> None:
    report = _run(model_folder("bert"), table, tmp_path / "run", evaluation__quick=True)
    assert report["evidence"] == {}
    assert {"loss", "norm"} <= report["curves"]["losses"][0].keys()


def _of_task(task: str, folder: Path) -> Path:
    """120 rows as the task reads them."""
    made, path = rows(120), folder / f"{task}.csv"
    if task == "causal_lm":
        path = folder / "texts.txt"
        path.write_text("\n\n".join(text for text, _ in made), encoding="utf-8")
        return path
    if task == "token_classification":
        path = folder / "rows.conll"
        hints = {word: kind for kind, words in HINTS.items() for word in words}
        lines = [
            [f"{word} {f'B-{hints[word]}' if word in hints else 'O'}" for word in text.split()] for text, _ in made
        ]
        path.write_text("\n\n".join("\n".join(words) for words in lines) + "\n", encoding="utf-8")
        return path
    targets: dict[str, Callable[[str, str], object]] = {
        "multilabel": lambda text, label: json.dumps([label, *(["long"] if len(text) > 40 else [])]),
        "regression": lambda text, label: len(text) / 7 + 0.01 * len(label),
        "embedding": lambda text, label: f"{text} {label}",
        "few_shot": lambda text, label: label,
    }
    with path.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("text", "label"), *((text, targets[task](text, label)) for text, label in made)])
    return path


@pytest.mark.parametrize(
    ("task", "family", "rules"),
    [
        ("multilabel", "bert", {"stopped too early", "collapsed class"}),
        ("regression", "bert", {"stopped too early", "collapsed class"}),
        ("token_classification", "bert", {"stopped too early", "collapsed class"}),
        ("few_shot", "bert", {"collapsed class"}),
        ("causal_lm", "gpt2", {"stopped too early"}),
        ("embedding", "sentence", {"stopped too early"}),
    ],
)
def test_a_task_is_asked_what_makes_sense_of_it(
    task: str, family: str, rules: set[str], model_folder: Folder, tmp_path: Path
) -> None:
    settings = {"task": task, "training.rate": 1e-4, "retention.measure": False}
    list(start(recipe_for(model_folder(family), _of_task(task, tmp_path), "full", settings), tmp_path / "run").events())
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    asked = {item["rule"] for item in report["evidence"]["health"]["checks"]}
    always = {"nothing learned", "rate too high", "rate too low", "gradients"}
    assert asked - {"overfitting"} == always | rules
