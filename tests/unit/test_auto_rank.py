"""LoRA's rank by how much the training rows have to teach: what each task says of that, and what a run makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from shortruns import recipe_for, rows, same_model
from tunesmith.catalog import build, names
from tunesmith.data.encode import Example
from tunesmith.data.words import Window
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods._beside import linear_shape
from tunesmith.methods.base import Findings, Rates
from tunesmith.methods.lora import LEAST_RANK, Lora
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import resume, start
from tunesmith.predictor import load
from tunesmith.tasks._information import entropy
from tunesmith.tasks.base import Labels, Task
from tunesmith.training.events import Event, Finished, Note, Stopped

Folder = Callable[[str], Path]
KEY = "method.rank"


def _task(name: str) -> Task:
    task = build("tasks", name)
    assert isinstance(task, Task)
    return task


def _examples(lengths: Sequence[int], learned: int = 1) -> list[Example]:
    """Rows of so many tokens, of each of which `learned` count."""
    return [
        Example(row, {"input_ids": [5] * length}, None, window=Window(row, "", tuple(range(learned))))
        for row, length in enumerate(lengths)
    ]


def test_entropy_is_that_of_the_definition() -> None:
    assert entropy([5, 5, 5, 5]) == pytest.approx(2.0)
    assert entropy([1, 3]) == pytest.approx(0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert entropy([7]) == entropy([7, 0]) == 0.0


def test_every_task_says_how_much_there_is_to_learn() -> None:
    plain = Labels((), ())
    draw = [math.sin(place) for place in range(1000)]
    cases: dict[str, tuple[list[Example], list[Any], Labels, float]] = {
        "classification": ([], ["a"] * 8 + ["b"] * 8, Labels(("a", "b"), (8, 8)), 16.0),
        "few_shot": ([], ["a", "b", "c", "d"], Labels(("a", "b", "c", "d"), (1, 1, 1, 1)), 8.0),
        "image_classification": ([], ["a"] * 8, Labels(("a",), (8,)), 0.0),
        "multilabel": ([], [()] * 16, Labels(("a", "b", "c"), (8, 4, 16)), 16 * (1.0 + entropy((4, 12)))),
        "token_classification": ([], [()], Labels(("O", "B-x"), (30, 10)), 40 * entropy((30, 10))),
        "embedding": ([], [("one",)] * 64, Labels(("related",), (64,)), 64 * 6.0),
        "question_answering": (_examples([16, 8]), [(), ()], Labels(("start", "end"), (1, 1)), 2 * 4.0 + 2 * 3.0),
        "causal_lm": (_examples([20, 20, 20], 19), ["t"] * 3, plain, 57.0),
        "instruction": (_examples([20, 20], 7), ["t"] * 2, plain, 14.0),
        "seq2seq": (_examples([20, 20], 9), ["t"] * 2, plain, 18.0),
        "masked_lm": (_examples([20, 20], 3), ["t"] * 2, plain, 40.0),
        "regression": ([], [(value,) for value in draw], Labels(("x",), (1000,), center=(0.0,), scale=(1.0,)), 4560.0),
    }
    assert set(cases) == set(names("tasks"))
    for name, (examples, truth, labels, expected) in cases.items():
        found = _task(name).information(examples, truth, labels)
        assert found.bits == pytest.approx(expected, rel=0.05 if name == "regression" else 1e-9), name
        assert any(letter.isdigit() for letter in found.why), "and by which figures"


def test_numbers_tell_the_same_on_any_scale() -> None:
    truth = [(float(place * place % 31),) for place in range(200)]
    scores = Labels(("x",), (200,), center=(0.0,), scale=(31.0,))
    found = [
        _task(name).information([], [(factor * value,) for (value,) in truth], scores).bits
        for name in ("regression", "embedding")
        for factor in (1.0, 1e-3)
    ]
    assert found == pytest.approx([found[0]] * 4) and found[0] > 200
    assert _task("regression").information([], [(1.0,), (2.0,)] * 100, scores).bits == 200.0, "two values are one bit"


class _Told(Findings):
    """What is to be learned, said by a test."""

    def __init__(self, network: Network, bits: float) -> None:
        self.network, self.bits = network, bits

    def relative_gradients(self) -> list[float]:
        raise AssertionError("the rank is not chosen by gradients")

    def information(self) -> tuple[float, str]:
        return self.bits, "as the test says"


@pytest.fixture
def network(model_folder: Folder) -> Network:
    backbone = load_backbone(resolve(str(model_folder("bert"))))
    return sequence_network(backbone, ("a", "b"), "single_label_classification", False, 3)


@pytest.mark.parametrize("targets", [(), ("query",)])
def test_the_rank_is_the_least_power_of_two_that_holds_it(
    targets: tuple[str, ...], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to 256, and no more than the smallest map has: 32 of this base."""
    method = Lora(targets=targets)
    each = sum(sum(linear_shape(network.get_submodule(name))) for name in method.chosen(network))

    def rank(times: float) -> tuple[int, str]:
        return method.decided(_Told(network, 2 * each * times))

    assert [rank(times)[0] for times in (0.0, 3, 8, 8.1, 16, 17, 100, 256, 257, 1e6)] == [
        LEAST_RANK, LEAST_RANK, LEAST_RANK, 16, 16, 32, 32, 32, 32, 32,
    ]  # fmt: skip
    assert "8 at least" in rank(3)[1] and "32 at most: give a higher one" in rank(300)[1]
    assert "at least" not in rank(8)[1] and "at most" not in rank(32)[1]
    assert rank(17)[1].endswith("(as the test says), which rank 17 holds at 2 bits in each of its parameters")
    monkeypatch.setattr("tunesmith.methods.lora.MOST_RANK", 16)
    assert rank(1e6)[0] == 16 and "16 at most" in rank(1e6)[1]
    one = Lora(rank=1, targets=targets)
    plan = one.attach(network, Rates(1e-3, 1e-2, ""), 1)
    held = sum(network.get_parameter(name).numel() for name in plan.trainable if name not in network.fresh)
    assert held == each, "what a rank adds"


def test_without_training_rows_a_number_is_asked_for(network: Network, tmp_path: Path) -> None:
    says = r"^method\.rank: auto chooses by training rows, which there are none of here; give a number$"
    with pytest.raises(ModelError, match=says):
        Lora().attach(network, Rates(1e-3, 1e-2, ""), 1)
    with pytest.raises(RecipeError, match=r"method\.rank: .*greater than or equal to 1"):
        build("methods", {"name": "lora", "rank": 0})
    with pytest.raises(RecipeError, match=r"method\.rank: "):
        build("methods", {"name": "lora", "rank": "many"})


def _derived(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))["derived"]
    (item,) = [item for item in found if item["key"] == KEY]
    return item


def _lines(events: Sequence[Event]) -> list[str]:
    return [line for event in events if isinstance(event, Note) for line in event.lines if line.startswith(KEY)]


def test_a_run_finds_its_rank_says_it_once_and_resumes_with_it(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "lora")
    events = list(start(recipe, tmp_path / "whole").events())
    (said,) = _lines(events)
    assert said.startswith(f"{KEY} = 8: the training rows teach about ") and "the entropy of their targets" in said
    asked = iter([False] * 4 + [True] * 100)
    assert isinstance(list(start(recipe, tmp_path / "cut", stop=asked.__next__).events())[-1], Stopped)
    kept = tmp_path / "cut" / "resolved.yaml"
    assert "rank: auto" not in kept.read_text(encoding="utf-8") and "rank: 8" in kept.read_text(encoding="utf-8")
    assert isinstance(list(resume(tmp_path / "cut").events())[-1], Finished)
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    assert _derived(tmp_path / "cut") == {"key": KEY, "value": 8, "why": "as its training was begun"}
    config = json.loads((tmp_path / "whole" / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == 8
    given = recipe_for(model_folder("bert"), table_file, {"name": "lora", "rank": 8})
    events = list(start(given, tmp_path / "given").events())
    assert _lines(events) == [], "what is given is not found"
    assert same_model(tmp_path / "whole" / "model", tmp_path / "given" / "model")
    texts = [text for text, _ in rows(5, 4)]
    assert load(tmp_path / "whole").predict(texts) == load(tmp_path / "given").predict(texts)


def test_a_resumed_run_takes_what_it_found_whatever_would_be_found_now(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "lora")
    asked = iter([False] * 4 + [True] * 100)
    list(start(recipe, tmp_path / "cut", stop=asked.__next__).events())
    monkeypatch.setattr("tunesmith.methods.lora.LEAST_RANK", 4)
    assert isinstance(list(resume(tmp_path / "cut").events())[-1], Finished)
    assert _derived(tmp_path / "cut")["value"] == 8
    list(start(recipe, tmp_path / "other").events())
    assert _derived(tmp_path / "other")["value"] == 4, "control: a new run would find another"


def test_an_adapter_is_gone_on_from_at_its_own_rank(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    first = recipe_for(model_folder("bert"), table_file, {"name": "lora", "rank": 3})
    list(start(first, tmp_path / "first").events())
    folder = tmp_path / "first" / "adapter"
    recipe = recipe_for(model_folder("bert"), table_file, {"name": "lora", "start": str(folder)})
    events = list(start(recipe, tmp_path / "second").events())
    assert _lines(events) == [f"{KEY} = 3: that of the adapter in {folder}"]
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text(encoding="utf-8")), "r": None}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"says no rank \(r = None\)"):
        list(start(recipe, tmp_path / "third").events())


@pytest.mark.parametrize("initial", ["pissa", "olora"])
def test_more_parts_than_a_weight_has_are_refused(initial: Any, network: Network) -> None:
    with pytest.raises(
        ModelError, match=r"method\.rank: initial: .* starts from 64 parts of each weight, and .* has 32"
    ):
        Lora(rank=64, initial=initial).attach(network, Rates(1e-3, 1e-2, ""), 1)


def test_a_plain_change_may_have_more(network: Network) -> None:
    assert Lora(rank=64).attach(network, Rates(1e-3, 1e-2, ""), 1).trainable
