"""Which blocks train, and from when on: gradual unfreezing, and the choice by relative gradients."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shortruns import attached, bench, recipe_for, same_model
from tunesmith.data.encode import collate
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods.base import Findings
from tunesmith.methods.layers import Layers
from tunesmith.models.backbone import load_backbone
from tunesmith.models.network import sequence_network
from tunesmith.models.resolve import resolve
from tunesmith.pipeline import resume, start
from tunesmith.preparing import encode, prepare
from tunesmith.settling import relative_gradients, settled
from tunesmith.training.events import Finished, Note, StepDone, Stopped
from tunesmith.training.loop import train
from tunesmith.training.moving import Moving
from tunesmith.training.trunk import HiddenCache, Live, Trunk

Folder = Callable[[str], Path]
KEY = "method.layers"


@pytest.mark.parametrize(
    ("asked", "starts", "cuts"),
    [
        ({"name": "full", "unfreeze": 0.6}, [0.0, 0.2, 0.4, 0.6], [2, 1, 0, 0]),
        ({"layers": 2, "unfreeze": 0.6}, [0.0, 0.6], [2, 1]),
        ({"layers": [0, 2], "unfreeze": 0.6}, [0.0, 0.6], [2, 0]),
        ({"layers": 1, "embeddings": True, "unfreeze": 0.6}, [0.0, 0.6], [2, 0]),
        ({"layers": 1, "unfreeze": 0.6}, [0.0], [2]),
        ("full", [], []),
    ],
)
def test_blocks_wake_from_the_top(asked: object, starts: list[float], cuts: list[int], model_folder: Folder) -> None:
    network, plan = attached(model_folder("bert"), asked)
    assert [stage.start for stage in plan.stages] == pytest.approx(starts)
    assert [stage.cut for stage in plan.stages] == cuts
    for stage in plan.stages:
        awake = set(plan.trainable) - stage.waiting
        assert network.fresh <= awake and any("pooler" in name for name in awake)
        below = [f".layer.{place}." for place in range(stage.cut)]
        assert not any(part in name for name in awake for part in below)
        assert not any(".embeddings." in name for name in awake) or stage.cut == 0
    assert plan.whole_from == (starts[-1] if starts else 0.0)
    if plan.stages:
        assert plan.stages[-1].waiting == frozenset()
        assert plan.at(0.0) is plan.stages[0] and plan.at(1.0) is plan.stages[-1]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_what_waits_stays_bitwise_until_its_turn(
    precision: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    settings = {"training.epochs": 4, "training.rate": 1e-3, "training.precision": precision}
    recipe = recipe_for(model_folder("bert"), table_file, {"name": "full", "unfreeze": 0.75}, settings)
    made = bench(recipe, tmp_path)
    tensors, plan, steps = made.run.masters.tensors, made.run.plan, made.run.steps
    begun = {name: value.detach().clone() for name, value in tensors.items()}
    moved: dict[str, int] = {}
    for event in train(made.run):
        if not isinstance(event, StepDone):
            continue
        for name, value in tensors.items():
            if name not in moved and not torch.equal(value, begun[name]):
                moved[name] = event.step
    first = {name: step for name, step in moved.items() if "embeddings.LayerNorm" in name or ".layer." in name}
    for name, step in first.items():
        stages = [stage for stage in plan.stages if name not in stage.waiting]
        due = next(step for step in range(steps) if step / steps >= stages[0].start) + 1
        assert step == due, name
    assert len(set(first.values())) == 4


def test_patience_counts_from_where_everything_trains(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    settings = {"training.epochs": 10, "training.rate": 1e-9, "training.head_rate": 1e-9, "training.patience": 1}
    ends = []
    for over in (0.0, 0.9):
        recipe = recipe_for(model_folder("bert"), table_file, {"name": "full", "unfreeze": over}, settings)
        made = bench(recipe, tmp_path / str(over))
        end = list(train(made.run))[-1]
        assert isinstance(end, Finished)
        ends.append(end.step / made.run.source.order.first(1))
    assert ends[0] <= 5 and ends[1] >= 9


@pytest.mark.parametrize("stopped_at", [2, 9, 14, 29])
def test_a_run_stopped_while_a_cut_is_kept_ends_as_one_that_went_on(
    stopped_at: int, model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Trunk] = []
    plain = Moving.enter

    def watched(self: Moving, cut: int, epochs: float) -> None:
        plain(self, cut, epochs)
        made.append(self.now)

    monkeypatch.setattr(Moving, "enter", watched)
    settings = {"training.epochs": 10, "training.micro_batch": 24, "training.rate": 1e-3}
    recipe = recipe_for(model_folder("bert"), table_file, {"name": "full", "unfreeze": 0.75}, settings)
    events = list(start(recipe, tmp_path / "whole").events())
    assert [type(trunk) for trunk in made] == [HiddenCache, HiddenCache, Live, Live]
    asked = iter([False] * (stopped_at + 1) + [True] * 100)
    assert isinstance(list(start(recipe, tmp_path / "cut", stop=asked.__next__).events())[-1], Stopped)
    again = list(resume(tmp_path / "cut").events())
    steps = {event.step: event.loss for event in events if isinstance(event, StepDone)}
    assert {e.step: e.loss for e in again if isinstance(e, StepDone)}.items() <= steps.items()
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")


def test_nothing_is_kept_where_no_cut_lasts(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    kinds = []
    for epochs, cache in ((2, "auto"), (10, "auto"), (4, "memory"), (10, "off")):
        settings = {"training.epochs": epochs, "training.cache": cache}
        recipe = recipe_for(model_folder("bert"), table_file, {"name": "full", "unfreeze": 0.75}, settings)
        kinds.append(type(bench(recipe, tmp_path / f"{epochs}{cache}").trunk))
    assert kinds == [Live, Moving, Moving, Live]


def test_a_base_without_blocks_cannot_wake_them(model_folder: Folder) -> None:
    with pytest.raises(ModelError, match=r"method\.unfreeze: this base has no ordered list of blocks"):
        attached(model_folder("glove"), {"name": "full", "unfreeze": 0.5})


@pytest.mark.parametrize(
    ("relative", "chosen"), [([0.1, 0.2, 0.9], (2,)), ([0.5, 0.1, 0.4], (0, 2)), ([0.2, 0.2, 0.2], (0, 1, 2))]
)
def test_blocks_above_the_mean_are_chosen(relative: list[float], chosen: tuple[int, ...]) -> None:
    class Measured(Findings):
        def relative_gradients(self) -> list[float]:
            return relative

        def information(self) -> tuple[float, str]:
            raise AssertionError("blocks are not chosen by that")

    asked = Layers(layers="auto")
    found, why = asked.decided(Measured())
    assert asked.undecided == "layers" and found == chosen
    assert not Layers(layers=found).undecided
    assert f"0: {relative[0]:.2g}, " in why


def _auto(model: Path, data: Path, **more: Any) -> Any:
    return recipe_for(model, data, {"layers": "auto"}, {"training.micro_batch": 24, **more})


def test_relative_gradients_are_those_of_a_plain_backward(model_folder: Folder, table_file: Path) -> None:
    recipe = _auto(model_folder("bert"), table_file, **{"training.batch_size": 200})  # all rows in one batch
    prepared, source = prepare(recipe), resolve(recipe.model)
    backbone = load_backbone(source, recipe.training.dropout)
    encoded = encode(prepared, backbone.processor, "auto")
    found = relative_gradients(recipe, prepared, encoded, source)

    network = sequence_network(backbone, prepared.labels.names, "single_label_classification", False, 0).eval()
    examples = encoded.examples["train"]
    batch = collate(list(examples), backbone.processor.pad, "cpu")
    from tunesmith.training.probe import fit_on
    from tunesmith.training.trunk import pooled_features

    features = pooled_features(network, examples, backbone.processor.pad)
    head = fit_on(prepared.task, network.last, {"train": features}, {"train": examples}).start
    with torch.no_grad():
        network.last.weight.copy_(head.weight)
        network.last.bias.copy_(head.bias)
    torch.nn.functional.cross_entropy(network(batch.inputs), batch.target).backward()
    expected = []
    for name in network.layout.blocks:
        block = list(network.get_submodule(name).parameters())
        gradient = torch.cat([value.grad.flatten() for value in block])
        expected.append(float(gradient.norm() / torch.cat([value.detach().flatten() for value in block]).norm()))
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_choice_by_gradients_is_the_same_when_resumed(
    family: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = _auto(model_folder(family), table_file)
    events = list(start(recipe, tmp_path / "whole").events())
    asked = iter([False] * 4 + [True] * 100)
    assert isinstance(list(start(recipe, tmp_path / "cut", stop=asked.__next__).events())[-1], Stopped)
    assert isinstance(list(resume(tmp_path / "cut").events())[-1], Finished)
    assert same_model(tmp_path / "whole" / "model", tmp_path / "cut" / "model")
    first, second = (
        next(
            item for item in json.loads((tmp_path / name / "report.json").read_text())["derived"] if item["key"] == KEY
        )
        for name in ("whole", "cut")
    )
    assert first["value"] == second["value"] and second["why"] == "as its training was begun"
    assert any(KEY in line for event in events if isinstance(event, Note) for line in event.lines)
    assert "auto" in (tmp_path / "cut" / "recipe.yaml").read_text(encoding="utf-8")


def test_a_choice_on_a_gpu_that_is_not_there_is_refused(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    recipe = _auto(model_folder("bert"), table_file, **{"training.device": "cuda"})
    with pytest.raises(RecipeError, match=r"training\.device: cuda was asked for"):
        list(start(recipe, tmp_path / "run").events())


def test_nothing_is_measured_where_nothing_is_open(model_folder: Folder, table_file: Path) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, {"layers": 1})
    prepared, source = prepare(recipe), resolve(recipe.model)
    backbone = load_backbone(source)
    encoded = encode(prepared, backbone.processor, "auto")
    network = sequence_network(backbone, prepared.labels.names, "single_label_classification", False, 0)
    assert settled(recipe, prepared, encoded, network, {}) == (recipe.method, [])
