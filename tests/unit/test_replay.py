"""A replayed prefix equals the live one, bit for bit; with controls that must differ."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES, NOT_REPLAYED, VISION, vision_body
from tunesmith.data.encode import Example, collate
from tunesmith.models.backbone import load_backbone
from tunesmith.models.layout import Layout, example_inputs, layout_of
from tunesmith.models.network import Network, sequence_network
from tunesmith.models.replay import Replay, supported_cut
from tunesmith.models.resolve import resolve

# Refused with the reason: T5's blocks hand on more than hidden states, BART's encoder drops out outside its blocks.
REFUSED = {"t5": "gives more than its hidden states", "bart": "gave another result"}
TEXTS = ("the good bank lost my card", "a great film " * 9, "no")


def network_of(family: str, folder: Path) -> Network:
    return sequence_network(
        load_backbone(resolve(str(FAMILIES[family](folder)))),
        ("a", "b", "c"),
        "single_label_classification",
        False,
        seed=0,
    )


def batch_of(network: Network) -> dict[str, Tensor]:
    encoded = network.processor.encode_all(TEXTS, 24)
    return collate([Example(i, x, None, cut) for i, (x, cut) in enumerate(encoded)], network.processor.pad).inputs


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in REFUSED])
def test_text_families(family: str, tmp_path: Path) -> None:
    network = network_of(family, tmp_path)
    inputs = batch_of(network)
    with torch.no_grad():
        live, features = network(inputs), network.features(inputs)
    previous = None
    for cut in range(1, len(network.layout.blocks) + 1):
        hidden = Replay(network, cut).capture(inputs)
        assert hidden.shape == (*inputs["input_ids"].shape, network.layout.width)
        assert previous is None or not torch.equal(previous, hidden)  # each block does something
        fresh = Replay(network, cut)  # one that has captured nothing, as after a restart
        assert torch.equal(fresh.forward(inputs, hidden), live)
        assert torch.equal(Replay(network, cut, call=network.features).forward(inputs, hidden), features)
        assert not torch.equal(fresh.forward(inputs, hidden.flip(0)), live)  # the control
        assert supported_cut(network, cut, inputs) == (cut, "")
        previous = hidden


@pytest.mark.parametrize("family", REFUSED)
def test_families_that_cannot_be_replayed_are_told(family: str, tmp_path: Path) -> None:
    network = network_of(family, tmp_path)
    cut, why = supported_cut(network, 2, batch_of(network))
    assert cut == 0 and REFUSED[family] in why


@pytest.mark.parametrize("family", [name for name in VISION if name not in NOT_REPLAYED])
def test_vision_bodies(family: str) -> None:
    body = vision_body(family)
    layout = layout_of(body, "")
    shape = example_inputs(body)["pixel_values"].shape
    inputs = {"pixel_values": torch.randn(3, *shape[1:], generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        live = body(**inputs).last_hidden_state
    state = {name: value.clone() for name, value in body.state_dict().items()}
    for cut in range(1, len(layout.blocks) + 1):
        hidden = Replay(body, cut, layout).capture(inputs)
        replay = Replay(body, cut, layout)
        assert torch.equal(replay.forward(inputs, hidden).last_hidden_state, live)
        assert not torch.equal(replay.forward(inputs, hidden.flip(0)).last_hidden_state, live)
        assert supported_cut(body, cut, inputs, layout) == (cut, "")
    for name, value in body.state_dict().items():
        assert torch.equal(value, state[name]), name  # also the running means of batch norms


def test_a_vision_body_that_cannot_be_replayed_is_told() -> None:
    body = vision_body("swin")
    cut, why = supported_cut(body, 2, example_inputs(body), layout_of(body, ""))
    assert cut == 0 and "more than its hidden states" in why


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "gpt2", "sentence"])
def test_gradients_in_training_are_the_live_ones(family: str, tmp_path: Path) -> None:
    network = network_of(family, tmp_path)
    inputs = batch_of(network)
    replay = Replay(network, 2)
    network.train()
    for part in replay.prefix:
        part.eval()
        part.requires_grad_(False)
    hidden = replay.capture(inputs)
    assert not hidden.requires_grad
    assert network.training  # capture looks in evaluation mode, and puts the modes back
    gradients = []
    for run in (lambda: network(inputs), lambda: replay.forward(inputs, hidden)):
        network.zero_grad()
        torch.manual_seed(5)
        output = run()
        output.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None})
    live, replayed = gradients
    frozen = tuple(f"{name}." for name in (*network.layout.embeddings, *network.layout.blocks[:2]))
    assert live.keys() == replayed.keys()
    assert live.keys() == {name for name, _ in network.named_parameters() if not name.startswith(frozen)}
    for name, value in live.items():
        assert torch.equal(value, replayed[name]), name
    if family != "gpt2":  # whose only dropouts are inside blocks and embeddings; that of block 2 is drawn anew
        torch.manual_seed(6)
        assert not torch.equal(replay.forward(inputs, hidden), output)  # dropout was on


@pytest.mark.parametrize("inside", [False, True])
def test_what_is_attached_to_frozen_blocks_later_sees_them_work(inside: bool, tmp_path: Path) -> None:
    network = network_of("bert", tmp_path).eval()
    inputs = batch_of(network)
    replay = Replay(network, 2)
    hidden = replay.capture(inputs)
    block = network.get_submodule(network.layout.blocks[0])
    part = next(module for module in block.modules() if isinstance(module, nn.Linear)) if inside else block
    seen: list[Tensor] = []

    def altered(module: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        seen.append(found)
        return found * 1.5

    with torch.no_grad():
        before = replay.forward(inputs, hidden)
        handle = part.register_forward_hook(altered)
        live = network(inputs)
        assert torch.equal(replay.forward(inputs, hidden), live) and torch.equal(*seen)
        handle.remove()
        assert torch.equal(replay.forward(inputs, hidden), before) and not torch.equal(before, live)
        assert len(seen) == 2


def test_everything_is_put_back_also_after_an_exception(tmp_path: Path) -> None:
    network = network_of("bert", tmp_path)
    inputs = batch_of(network)
    live = network(inputs)
    replay = Replay(network, 2)
    hidden = replay.capture(inputs)
    tail = network.get_submodule(network.layout.blocks[2])

    def fail(module: nn.Module, args: tuple[object, ...]) -> None:
        raise KeyError("stop here")

    handle = tail.register_forward_pre_hook(fail)
    with pytest.raises(KeyError):
        replay.forward(inputs, hidden)
    handle.remove()
    with pytest.raises(ValueError, match="input_ids"):
        replay.capture({"unknown": hidden})
    assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(network(inputs), live)
    block = network.get_submodule(network.layout.blocks[0])
    own = block.forward
    block.forward = own  # another tool's replacement survives ours
    replay.capture(inputs)
    assert vars(block)["forward"] is own


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    network = network_of("bert", tmp_path)
    inputs = batch_of(network)
    for cut in (0, 4, -1):
        with pytest.raises(ValueError, match="3 blocks"):
            Replay(network, cut)
    with pytest.raises(ValueError, match="2 rows and the inputs have 3"):
        Replay(network, 1).forward(inputs, Replay(network, 1).capture(inputs)[:2])
    assert supported_cut(network, 0, inputs)[0] == 0
    assert "cut is 9" in supported_cut(network, 9, inputs)[1]


class Noisy(nn.Module):
    """Draws randomness ahead of its blocks, or after the first one lets its input pass by, or hands out more."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.layers = nn.ModuleList([nn.Linear(4, 4), Pair() if fault == "more" else nn.Linear(4, 4)])

    def forward(self, x: Tensor) -> Tensor:
        if self.fault == "noise":
            x = nn.functional.dropout(x, 0.5, self.training)
        first = self.layers[0](x)
        second = self.layers[1](first)
        if self.fault == "more":
            return second[0] + second[1]
        return second + first if self.fault == "skip" else second


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("noise", "another result"), ("skip", "another result"), ("more", "more than its hidden states")],
)
def test_models_that_cannot_be_replayed_are_found_out(fault: str, reason: str) -> None:
    torch.manual_seed(0)
    module = Noisy(fault)
    layout = Layout("", ("layers.0", "layers.1"), (), (), (), (), 4)
    inputs = {"x": torch.randn(8, 4)}
    cut, why = supported_cut(module, 2, inputs, layout)
    assert cut == 0
    assert reason in why
    assert module.training
    assert supported_cut(Noisy("none"), 2, inputs, layout) == (2, "")
