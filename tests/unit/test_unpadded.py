"""Blocks that leave filler out give what they give with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES
from shortruns import bench, recipe_for
from tunesmith.data.encode import Example, collate
from tunesmith.models import unpadded
from tunesmith.models.attention import OWN
from tunesmith.models.backbone import load_backbone
from tunesmith.models.casting import cast
from tunesmith.models.fused import fused_forward
from tunesmith.models.layout import first_tensor
from tunesmith.models.network import Network, sequence_network, token_network
from tunesmith.models.replay import Replay
from tunesmith.models.resolve import resolve
from tunesmith.models.unpadded import Places

JOINED = ("bert", "roberta", "distilbert", "electra", "sentence")
TEXTS = (
    "the of and to in is that for it as was with be by on not",
    "the",
    "of and to in",
    "he his but at are this have",
)
SINGLE = "single_label_classification"


def network_of(folder: Path, family: str, per_token: bool = False) -> Network:
    """Without dropout, so that one forward is comparable with another."""
    backbone = load_backbone(resolve(str(FAMILIES[family](folder))))
    made = (
        token_network(backbone, ("a", "b"), 0)
        if per_token
        else sequence_network(backbone, ("a", "b"), SINGLE, False, 0)
    )
    for part in made.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    for name in ("attention_probs_dropout_prob", "attention_dropout"):
        body = made.get_submodule(made.layout.body)
        for one in (body, *body.modules()):
            config = getattr(one, "config", None)
            if config is not None and hasattr(config, name):
                setattr(config, name, 0.0)
    made.joins = True
    return made


def inputs_of(network: Network) -> dict[str, Tensor]:
    encoded = network.processor.encode_all(TEXTS, 24)
    return collate([Example(i, x, None, cut) for i, (x, cut) in enumerate(encoded)], network.processor.pad).inputs


def learned(network: Network, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Outputs, and the gradients of a loss that weighs each output apart; of filler there are none."""
    network.zero_grad()
    outputs = network(inputs).float()
    weigh = torch.randn(outputs.shape, generator=torch.Generator().manual_seed(1))
    if network.per_token:
        weigh = weigh * inputs["attention_mask"][..., None]
    (outputs * weigh).sum().backward()
    found = {name: value.grad.float().clone() for name, value in network.named_parameters() if value.grad is not None}
    return (outputs * inputs["attention_mask"][..., None] if network.per_token else outputs).detach(), found


def watched(network: Network, which: int = 0) -> tuple[list[torch.Size], Callable[[], None]]:
    """Fills with the shapes that reach a block."""
    shapes: list[torch.Size] = []
    block = network.get_submodule(network.layout.blocks[which])
    own = block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        shapes.append(args[0].shape)
        return own(*args, **kwargs)

    vars(block)["forward"] = forward  # no hook, which filler is left in for
    return shapes, lambda: vars(block).pop("forward")


@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("family", JOINED)
def test_outputs_and_gradients_are_those_with_filler(
    family: str, per_token: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = network_of(tmp_path, family, per_token)
    inputs = inputs_of(network)
    network.train()
    shapes, stop = watched(network)
    found, gradients = learned(network, inputs)
    there = int(inputs["attention_mask"].sum())
    assert shapes.pop() == (1, there, network.layout.width)
    monkeypatch.setattr(unpadded, "WORTH_IT", 1.0)
    wanted, others = learned(network, inputs)
    assert shapes.pop() == (*inputs["input_ids"].shape, network.layout.width)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert gradients.keys() == others.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, others[name], rtol=1e-4, atol=1e-5, msg=name)
    stop()
    assert not torch.allclose(wanted, wanted.flip(0)), "rows differ, so that one in the place of another would show"


@pytest.mark.parametrize("family", JOINED)
def test_what_is_attached_later_is_shown_rows(family: str, tmp_path: Path) -> None:
    network = network_of(tmp_path, family)
    network.train()
    inputs, (shapes, stop) = inputs_of(network), watched(network)
    rows, joined = (*inputs["input_ids"].shape, network.layout.width), (1, int(inputs["attention_mask"].sum()))
    body: Any = network.get_submodule(network.layout.body)
    network(inputs)
    assert shapes.pop()[:2] == joined, "the control"
    seen: list[torch.Size] = []
    block = network.get_submodule(network.layout.blocks[-1])
    handle = block.register_forward_hook(lambda module, given, found: seen.append(first_tensor(found).shape))
    network(inputs)
    assert shapes.pop() == rows == seen.pop()
    handle.remove()
    network(inputs)
    assert shapes.pop()[:2] == joined
    by_argument = body(**inputs, output_hidden_states=True)
    body.config.output_hidden_states = True
    by_config = body(**inputs)
    stop()
    network.eval()
    wanted = body(**inputs, output_hidden_states=True).hidden_states
    real = inputs["attention_mask"][..., None]
    for found in (by_argument, by_config):
        assert len(found.hidden_states) == len(wanted) > 2
        for one, other in zip(found.hidden_states, wanted, strict=True):
            torch.testing.assert_close(one * real, other * real, rtol=1e-4, atol=1e-5)


def test_rows_stay_apart(tmp_path: Path) -> None:
    """The control of the test above: what stands in another row changes nothing."""
    network = network_of(tmp_path, "bert")
    network.train()
    inputs = inputs_of(network)
    found = network(inputs)
    other = {name: value.clone() for name, value in inputs.items()}
    other["input_ids"][0, 3] = 9
    changed = network(other)
    torch.testing.assert_close(changed[1:], found[1:])
    assert not torch.allclose(changed[0], found[0])


def test_it_is_for_training_and_for_filler_that_is_worth_it(tmp_path: Path) -> None:
    network = network_of(tmp_path, "bert")
    inputs = inputs_of(network)
    network.train().eval()
    shapes, _ = watched(network)
    network(inputs)
    assert shapes.pop() == (*inputs["input_ids"].shape, network.layout.width)
    network.train()
    assert network.get_submodule(network.layout.body).config._attn_implementation == OWN  # type: ignore[union-attr]
    alike = {name: value[:1].expand(3, -1).contiguous() for name, value in inputs.items()}
    network(alike)
    assert shapes.pop()[:2] == alike["input_ids"].shape
    copy.deepcopy(network)(inputs)
    network(inputs)
    assert shapes.pop()[0] == 1


def test_in_float32_it_is_asked_for_and_in_bfloat16_always(tmp_path: Path) -> None:
    """In float32 the forms of training and evaluation are the same, so that frozen blocks give equal numbers."""
    network = network_of(tmp_path, "bert")
    network.joins = False
    shapes, _ = watched(network)
    inputs = inputs_of(network)
    network.train()
    network(inputs)
    assert shapes.pop()[0] == len(TEXTS)
    network.eval()
    cast(network, torch.bfloat16)
    network.train()
    network(inputs)
    assert shapes.pop()[0] == 1


def test_frozen_blocks_hand_back_what_the_others_take(tmp_path: Path) -> None:
    network = network_of(tmp_path, "bert")
    inputs = inputs_of(network)
    hidden = Replay(network, 1).capture(inputs)
    network.train()
    shapes, _ = watched(network, -1)
    live = network(inputs)
    torch.testing.assert_close(Replay(network, 1).forward(inputs, hidden), live)
    assert [shape[0] for shape in shapes] == [1, 1]


def test_bodies_that_mix_tokens_otherwise_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(tmp_path, "llama")
    network.train()
    assert not any(part._forward_pre_hooks for part in network.modules())
    network = network_of(tmp_path / "bert", "bert")
    monkeypatch.setattr(Places, "joined", lambda self, rows: rows.flatten(0, 1)[: len(self.index)].flip(0)[None])
    network.train()
    assert not any(part._forward_pre_hooks for part in network.modules()), "it was tried, and gives another result"


def test_prediction_in_fewer_steps_is_not_put_off_by_it(tmp_path: Path) -> None:
    network = network_of(tmp_path, "sentence")
    cast(network, torch.bfloat16)
    inputs = inputs_of(network)
    body = network.get_submodule(network.layout.body)
    expected = fused_forward(network.eval().get_submodule(network.layout.body), inputs) is not None
    network.train().eval()
    assert any(part._forward_pre_hooks for part in body.modules())
    assert (fused_forward(body, inputs) is not None) == expected


def test_other_number_formats_are_left_alone(tmp_path: Path) -> None:
    network = network_of(tmp_path, "bert")
    network.half().train()
    assert not any(part._forward_pre_hooks for part in network.modules())


def test_where_blocks_are_frozen_filler_stays_in_float32(tmp_path: Path, table_file: Path) -> None:
    """So that what they give is the same in training and when it is kept."""
    folder = FAMILIES["bert"](tmp_path / "model")
    for method, joins in (("full", True), ("layers", False)):
        recipe = recipe_for(folder, table_file, {"name": method}, {"training.exact": True})
        assert bench(recipe, tmp_path / method).run.network.joins == joins
