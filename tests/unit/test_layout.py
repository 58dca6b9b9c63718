"""Where the blocks are, and what feeds them, checked by changing weights and looking at what the blocks give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES, LAYERS, VISION, WIDTH, vision_body
from tunesmith.models.backbone import load_backbone
from tunesmith.models.layout import example_inputs, first_tensor, is_norm, layout_of
from tunesmith.models.resolve import resolve

BLOCKS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "distilbert": "transformer.layer",
    "mpnet": "encoder.layer",
    "electra": "encoder.layer",
    "deberta-v2": "encoder.layer",
    "modernbert": "layers",
    "llama": "layers",
    "qwen3": "layers",
    "gpt2": "h",
    "sentence": "encoder.layer",
    "t5": "block",
    "bart": "layers",
    "vit": "layers",
    "dinov2": "encoder.layer",
    "convnext": "encoder.stages",
    "resnet": "encoder.stages",
    "mobilenet_v2": "layer",
    "swin": "encoder.layers",
}


@pytest.fixture(params=[*FAMILIES, *VISION])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def body(family: str, tmp_path: Path) -> nn.Module:
    if family in VISION:
        return vision_body(family)
    return load_backbone(resolve(str(FAMILIES[family](tmp_path)))).module


def blocks_give(body: nn.Module, last: str) -> Tensor:
    given: list[Any] = []
    handle = body.get_submodule(last).register_forward_hook(lambda m, args, out: given.append(first_tensor(out)))
    with torch.no_grad():
        body(**example_inputs(body))
    handle.remove()
    return given[0]


def test_blocks_in_order(body: nn.Module, family: str) -> None:
    layout = layout_of(body, "")
    count = {"convnext": 4, "resnet": 4, "mobilenet_v2": 16}.get(family, LAYERS)
    assert layout.blocks == tuple(f"{BLOCKS[family]}.{index}" for index in range(count))
    assert layout.width == {"mobilenet_v2": 1280}.get(
        family, WIDTH
    )  # its last convolution's, at any multiplier below one
    placed = layout_of(body, "model.x")
    assert placed.body == "model.x"
    for name in ("blocks", "embeddings", "linears", "norms", "tail"):
        assert getattr(placed, name) == tuple(f"model.x.{each}" for each in getattr(layout, name))


def test_every_parameter_has_one_place(body: nn.Module) -> None:
    layout = layout_of(body, "")
    places = (*layout.embeddings, *layout.blocks, *layout.tail)
    for name, _ in body.named_parameters():
        assert sum(name.startswith(f"{place}.") for place in places) == 1, name


def test_embeddings_are_what_the_blocks_depend_on(body: nn.Module) -> None:
    layout = layout_of(body, "")
    before = blocks_give(body, layout.blocks[-1])
    torch.manual_seed(0)
    for part in layout.tail:
        for parameter in body.get_submodule(part).parameters():
            parameter.data += torch.randn_like(parameter)
    assert torch.equal(blocks_give(body, layout.blocks[-1]), before)
    for part in layout.embeddings:
        parameters = list(body.get_submodule(part).parameters())
        kept = [parameter.data.clone() for parameter in parameters]
        for parameter in parameters:
            parameter.data += torch.randn_like(parameter)
        if parameters:
            assert not torch.equal(blocks_give(body, layout.blocks[-1]), before), part
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.data = value


def test_looking_changes_nothing(body: nn.Module) -> None:
    body.train()
    first = next(body.parameters())
    first.requires_grad_(False)
    state = {name: value.clone() for name, value in body.state_dict().items()}
    torch.manual_seed(3)
    random = torch.get_rng_state()
    layout_of(body, "")
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in body.modules())
    assert [p.requires_grad for p in body.parameters()] == [p is not first for p in body.parameters()]
    assert all(p.grad is None for p in body.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in body.modules())
    for name, value in body.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_linears_and_norms_of_bert_and_gpt2(tmp_path: Path) -> None:
    bert = load_backbone(resolve(str(FAMILIES["bert"](tmp_path / "bert")))).module
    layout = layout_of(bert, "")
    parts = (
        *(f"attention.self.{name}" for name in ("query", "key", "value")),
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    )
    assert layout.linears == tuple(f"{block}.{part}" for block in layout.blocks for part in parts)
    assert layout.norms == (
        "embeddings.LayerNorm",
        *(f"{block}.{part}.LayerNorm" for block in layout.blocks for part in ("attention.output", "output")),
    )
    assert (layout.embeddings, layout.tail) == (("embeddings",), ("pooler",))
    gpt2 = load_backbone(resolve(str(FAMILIES["gpt2"](tmp_path / "gpt2")))).module
    layout = layout_of(gpt2, "")
    parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert layout.linears == tuple(f"{block}.{part}" for block in layout.blocks for part in parts)
    assert layout.embeddings == ("wte", "wpe", "drop")
    assert layout.norms[-1:] == layout.tail == ("ln_f",)


def test_norms_by_what_they_hold() -> None:
    class ScaledRMSNorm(nn.Module):
        def __init__(self, *shape: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(*shape))

    assert is_norm(ScaledRMSNorm(4)) and is_norm(nn.LayerNorm(4)) and is_norm(nn.BatchNorm2d(4))
    assert not is_norm(ScaledRMSNorm(4, 4)) and not is_norm(nn.Linear(4, 4))


def test_blocks_that_share_weights_are_no_ordered_list() -> None:
    from transformers import AlbertConfig, AlbertModel

    config = AlbertConfig(
        hidden_size=16,
        embedding_size=8,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=50,
    )
    layout = layout_of(AlbertModel(config), "")
    assert (layout.blocks, layout.embeddings, layout.tail) == ((), (), ())
    assert layout.width == 16
    assert "encoder.embedding_hidden_mapping_in" in layout.linears


def test_any_module_with_inputs_of_ones_own() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(4, 2)
            self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.first = nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for layer in self.layers:
                x = layer(x).relu()
            return self.last(x)

    layout = layout_of(Plain(), "", {"x": torch.ones(1, 3)})
    assert layout.blocks == ("layers.0", "layers.1")
    assert (layout.embeddings, layout.tail) == (("first",), ("last",))
