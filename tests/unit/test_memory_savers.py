"""Moments in 8 bits, and steps within the backward pass: what they learn, what they hold, and what rules them out."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shortruns import METHODS, Bench, bench, differences, facts, recipe_for, stopped_and_taken_up
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.methods.base import Group, Plan
from tunesmith.recipe import TrainingSpec
from tunesmith.training.loop import train
from tunesmith.training.optim import Masters
from tunesmith.training.optimizers import STATE_BYTES

Folder = Callable[[str], Path]
BACKWARD = {"training.step_in_backward": True, "training.clip": None, "training.micro_batch": 24}
WHOLE = {**BACKWARD, "training.step_in_backward": False}


def _trained(recipe: Any, folder: Path) -> tuple[Bench, list[dict[str, Any]]]:
    made = bench(recipe, folder)
    return made, facts(train(made.run))


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adamw_8bit"])
@pytest.mark.parametrize("method", ["full", "lora", "unfreeze"])
def test_a_step_in_backward_learns_the_same(
    method: str, optimizer: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    asked = {"training.optimizer": optimizer, "training.ema": 0.9}
    made = [
        _trained(recipe_for(model_folder("bert"), table_file, METHODS[method], {**way, **asked}), tmp_path / str(place))
        for place, way in enumerate((BACKWARD, WHOLE))
    ]
    (one, first), (other, second) = made
    assert one.run.masters.in_backward and not other.run.masters.in_backward
    for before, after in zip(first, second, strict=True):
        assert before.keys() == after.keys()
        if "norm" in before:
            assert before["norm"] == pytest.approx(after["norm"], rel=1e-4)
            assert before["rate"] == after["rate"]
    start, found = bench(one.recipe, tmp_path / "start").tensors(), one.tensors()
    for name, value in other.tensors().items():
        # A bias of keys adds the same to all scores, which the softmax loses: its gradient is rounding, which Adam scales up.
        if name.startswith(("parameter/", "average/")) and not name.endswith("key.bias"):
            moved = float((value - start[name]).norm())
            assert moved > 0 and float((found[name] - value).norm()) < 2e-3 * moved, name


@pytest.mark.parametrize(
    ("family", "method", "more"),
    [
        ("gpt2", "full", {"task": {"name": "causal_lm"}, "training.checkpointing": True}),  # tied weights
        ("sentence", "full", {"task": {"name": "few_shot"}}),
        ("bert", "full", {"training.r_drop": 1.0, "retention.anchor": 2.0}),
        ("bert", "qlora", {"training.checkpointing": True}),
    ],
)
def test_also_beside_other_settings(
    family: str, method: str, more: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """Momentum alone: Adam's first steps make large moves of what is rounding in a gradient."""
    asked = {"training.optimizer": "sgd", "training.rate": 0.05, **more}
    ends = []
    for place, way in enumerate((BACKWARD, WHOLE)):
        recipe = recipe_for(model_folder(family), table_file, METHODS[method], {**way, **asked})
        ends.append(_trained(recipe, tmp_path / str(place))[0].tensors())
    assert all(torch.allclose(ends[0][name], value, atol=2e-5) for name, value in ends[1].items())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", [BACKWARD, {"training.optimizer": "adamw_8bit"}], ids=["in backward", "8 bits"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    kind: dict[str, Any], dtype: str, model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    recipe = recipe_for(model_folder("bert"), table_file, "full", {**kind, "training.precision": dtype})
    whole, expected = _trained(recipe, tmp_path / "whole")
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert facts(train(again.run))[-1] == expected[-1]
    assert differences(whole.tensors(), again.tensors()) == []


@pytest.mark.parametrize("way", [BACKWARD, pytest.param(WHOLE, id="control: all gradients at once")])
def test_few_gradients_are_there_at_once(
    way: dict[str, Any], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, "full", way), tmp_path)
    parameters = [value for value in made.run.network.parameters() if value.requires_grad]
    most = 0

    def count(_: Tensor) -> None:
        nonlocal most
        most = max(most, sum(value.grad is not None for value in parameters))

    for value in parameters:
        value.register_post_accumulate_grad_hook(count)
    for _ in train(made.run):
        pass
    assert (most <= 3) is (way is BACKWARD)
    assert all(value.grad is None for value in parameters)


def test_a_gradient_that_is_not_finite_names_the_state_before(
    model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    """Some parameters have moved by then, so that what is in memory is not saved as a good state."""
    made = bench(recipe_for(model_folder("bert"), table_file, "full", BACKWARD), tmp_path)
    steps = train(made.run)
    saved = next(event for event in steps if type(event).__name__ == "Saved")
    parameter = next(value for value in made.run.network.parameters() if value.requires_grad)
    parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(
        TrainingError, match=r"gradient is not finite.*[\s\S]*last good state is kept in .*step-00000000"
    ):
        for _ in steps:
            pass
    assert Path(saved.path).name == "step-00000000"  # type: ignore[union-attr]
    assert made.run.checkpoints.steps() == [0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training.clip": 1.0}, "training.clip: the norm of all gradients"),
        ({"training.micro_batch": 8}, "training.micro_batch: a step in backward takes its 24 rows at once"),
        ({"retention.distill": 1.0}, "retention.distill: it has a backward pass of its own"),
        ({"retention.replay": 0.2}, "retention.replay: it has a backward pass of its own"),
    ],
)
def test_what_needs_all_gradients_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_for(Path("m"), Path("d.csv"), "full", {**BACKWARD, **settings})
    (problem,) = caught.value.problems
    assert problem.startswith(said)


def test_moments_in_8_bits_take_a_quarter() -> None:
    torch.manual_seed(0)
    held = {}
    for name in ("adamw", "adamw_8bit"):
        network = torch.nn.Linear(256, 256, bias=False)
        plan = Plan((Group("all", ("weight",), 1e-3, True),), frozenset(), 0)
        masters = Masters(network, plan, TrainingSpec(optimizer=name), torch.float32)  # type: ignore[arg-type]
        for _ in range(3):
            network.weight.grad = torch.randn(256, 256)
            masters.collect()
            masters.move(1.0)
        kept = {key: value for key, value in masters.export().items() if key.startswith("optimizer/")}
        held[name] = sum(value.nbytes for key, value in kept.items() if "qmap" not in key and "step" not in key)
        assert held[name] / network.weight.numel() == pytest.approx(STATE_BYTES[name], rel=0.02)
    assert held["adamw_8bit"] < 0.27 * held["adamw"]


def test_a_run_in_8_bits_is_saved_and_goes_on(tmp_path: Path, table_file: Path) -> None:
    """Of a base with several large parameters: bitsandbytes keeps the moments of less than 4,096 numbers in full."""
    folder = _wide(tmp_path / "base")
    recipe = recipe_for(folder, table_file, "full", {"training.optimizer": "adamw_8bit"})
    whole, expected = _trained(recipe, tmp_path / "whole")
    codes = [key for key, value in whole.tensors().items() if value.dtype == torch.uint8]
    assert len(codes) > 8
    again = stopped_and_taken_up(recipe, tmp_path / "half", 3)
    assert facts(train(again.run))[-1] == expected[-1]
    assert differences(whole.tensors(), again.tensors()) == []


def _wide(folder: Path) -> Path:
    from transformers import AutoTokenizer, BertConfig, BertModel

    from families import FAMILIES

    FAMILIES["bert"](folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    BertModel(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=80, **sizes)).save_pretrained(folder)
    return folder


def test_8_bits_follow_the_moments_in_full() -> None:
    """Against bitsandbytes' own steps on the same gradients, and near to AdamW's."""
    from bitsandbytes.optim.adamw import AdamW8bit

    torch.manual_seed(0)
    start = torch.randn(128, 128)
    networks = [torch.nn.Linear(128, 128, bias=False) for _ in range(3)]
    for network in networks:
        network.weight.data.copy_(start)
    plan = Plan((Group("all", ("weight",), 1e-3, True),), frozenset(), 0)
    ours = Masters(networks[0], plan, TrainingSpec(optimizer="adamw_8bit", weight_decay=0.1), torch.float32)
    theirs = AdamW8bit([networks[1].weight], lr=1e-3, weight_decay=0.1)
    plain = torch.optim.AdamW([networks[2].weight], lr=1e-3, weight_decay=0.1)
    for _ in range(10):
        gradient = torch.randn(128, 128) + 0.5 * start
        for network in networks:
            network.weight.grad = gradient.clone()
        ours.collect()
        ours.move(1.0)
        theirs.step()
        plain.step()
    assert torch.equal(networks[0].weight, networks[1].weight)
    ends = [network.weight.detach() for network in networks]
    assert float((ends[0] - ends[2]).norm() / (ends[2] - start).norm()) < 0.1


def test_8_bits_without_bitsandbytes_say_what_to_install(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("bitsandbytes"):
            raise ImportError(name)
        return found(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"adamw_8bit needs bitsandbytes; pip install"):
        bench(recipe_for(model_folder("bert"), table_file, "full", {"training.optimizer": "adamw_8bit"}), tmp_path)
