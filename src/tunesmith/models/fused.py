"""A BERT-type encoder's forward for prediction alone, in fewer and larger steps than the model's own.

What is multiplied is laid out once as the processor's matrix units read it; queries, keys and values come from one product;
activation and residual sum are part of the product before them. MiniLM in bfloat16 on one core with AMX: 0.66 of the time of
the model's own forward for many texts, 0.45 for a single one (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.unpadded import is_own_hook

ALIKE_LAYERS = ("bert", "camembert", "roberta", "xlm-roberta")  # transformers' model types
ALIKE = 0.03  # of the hidden states' length, how far two bfloat16 forwards may be apart: each layer rounds to 3 digits
WORTH_FUSING = 200  # rows: laying out the weights and checking the result takes as long as some 50 (MiniLM)
FOR_TOKENS = 768  # in one forward, about; what a product's layout is chosen for


@dataclass(frozen=True)
class _Map:
    """A linear map as the matrix units read it."""

    weight: Tensor
    bias: Tensor

    @classmethod
    def of(cls, *layers: nn.Linear) -> _Map:
        """Of several maps of the same input, one that gives their outputs side by side."""
        weight = torch.cat([layer.weight.detach() for layer in layers])
        bias = torch.cat([layer.bias.detach() for layer in layers])
        return cls(torch.ops.mkldnn._reorder_linear_weight(weight, FOR_TOKENS), bias)

    def __call__(self, hidden: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "none", [], "")

    def gelu(self, hidden: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(hidden, self.weight, self.bias, "gelu", [], "none")

    def plus(self, hidden: Tensor, residual: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(hidden, residual, self.weight, self.bias, "add")


@dataclass(frozen=True)
class _Layer:
    split: _Map  # queries, keys, values
    joined: _Map
    first_norm: nn.Module
    wide: _Map
    narrow: _Map
    second_norm: nn.Module


class FusedEncoder:
    """The forward of a body's weights as they were when it was made."""

    def __init__(self, body: PreTrainedModel) -> None:
        """Raises AttributeError, TypeError or RuntimeError where the body, or this torch, is not made so."""
        self._embeddings: Any = body.embeddings
        self._heads = int(body.config.num_attention_heads)
        blocks: Any = body.encoder
        self._layers = [_layer(block) for block in blocks.layer]

    def __call__(self, inputs: dict[str, Tensor]) -> Tensor:
        """`inputs`, each [rows, tokens] -> [rows, tokens, width]: the last hidden states."""
        read = {name: inputs[name] for name in ("input_ids", "token_type_ids") if name in inputs}
        embedded = self._embeddings(**read)
        rows, tokens, width = embedded.shape
        there = inputs["attention_mask"]
        mask = None if bool(there.all()) else there[:, None, None, :].bool()  # [rows, 1, 1, tokens]
        hidden = embedded.reshape(rows * tokens, width)
        for layer in self._layers:
            parts = layer.split(hidden).view(rows, tokens, 3, self._heads, width // self._heads)
            query, key, value = parts.permute(2, 0, 3, 1, 4)  # each [rows, heads, tokens, width of a head]
            found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            told = found.transpose(1, 2).reshape(rows * tokens, width)
            hidden = layer.first_norm(layer.joined.plus(told, hidden))
            hidden = layer.second_norm(layer.narrow.plus(layer.wide.gelu(hidden), hidden))
        return hidden.view(rows, tokens, width)


def _layer(block: Any) -> _Layer:
    attention = block.attention
    of_self = attention.self
    maps = (
        of_self.query,
        of_self.key,
        of_self.value,
        attention.output.dense,
        block.intermediate.dense,
        block.output.dense,
    )
    if any(type(part) is not nn.Linear for part in maps):
        raise TypeError("something is attached to a linear map")
    query, key, value, joined, wide, narrow = maps
    return _Layer(
        _Map.of(query, key, value),
        _Map.of(joined),
        attention.output.LayerNorm,
        _Map.of(wide),
        _Map.of(narrow),
        block.output.LayerNorm,
    )


def fused_forward(body: nn.Module, inputs: dict[str, Tensor]) -> FusedEncoder | None:
    """One of the body as it stands, in evaluation mode, proven on `inputs`, each [rows, tokens]; else None.

    There is none but for bodies of these families in bfloat16 on a CPU, with nothing attached to them.
    """
    if not (isinstance(body, PreTrainedModel) and body.dtype == torch.bfloat16 and body.device.type == "cpu"):
        return None
    config = body.config
    plain = config.model_type in ALIKE_LAYERS and config.hidden_act == "gelu" and not config.is_decoder
    hooks = (
        hook for part in body.modules() for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
    )
    hooked = not all(map(is_own_hook, hooks))
    if not plain or hooked or body.training:
        return None
    with torch.inference_mode():
        try:
            found = FusedEncoder(body)
            here = found(inputs).float()
        except (
            AttributeError,
            TypeError,
            RuntimeError,
        ):  # another torch, another form of layer, a processor without these
            return None
        there = body(**inputs).last_hidden_state.float()
    real = inputs["attention_mask"][..., None]
    return found if float(((here - there) * real).norm()) <= ALIKE * float((there * real).norm()) else None
