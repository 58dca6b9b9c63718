"""A BERT-type encoder's forward for prediction alone, in fewer and larger steps than the model's own.

What is multiplied is laid out once as the processor's matrix units read it; queries, keys and values come from one product;
activation and residual sum are part of the product before them. MiniLM in bfloat16 on one core with AMX: 0.66 of the time of
the model's own forward for many texts, 0.45 for a single one (docs/log.md).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.attention import to_add
from tunesmith.models.unpadded import other_hooks

ALIKE_LAYERS = ("bert", "camembert", "roberta", "xlm-roberta")  # transformers' model types
ALIKE = 0.03  # of the hidden states' length, how far two bfloat16 forwards may be apart: each layer rounds to 3 digits
WORTH_FUSING = 200  # rows: laying out the weights and checking the result takes as long as some 50 (MiniLM)
UNIT = 16  # rows of a matrix unit's tile
FILLED_BELOW = 64  # tokens, from which on filling up costs as much as it saves
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


class _Attention:
    """Attention within each row of a batch, computed in blocks of tokens that suit the processor's matrix units.

    Rows below 16 tokens stand side by side in a block of 32, each seeing itself alone; of other short rows a block that is
    at least half full is filled up. One core with AMX, 2,048 tokens of a layer of MiniLM, each row a block of its own and so:
    rows of 8 tokens 6.8 and 2.1 ms, of 13 6.5 and 3.5 ms, of 28 5.1 and 3.0 ms (docs/log.md).
    """

    def __init__(self, there: Tensor, heads: int, like: Tensor) -> None:
        """`there` [rows, tokens]: what is no filler; `like` [rows, tokens, width] has the format of what is attended to."""
        self._rows, self._tokens = there.shape
        self._heads = heads
        self._beside, self._block = _blocks(self._tokens)
        self._full, self._rest = divmod(self._rows, self._beside)  # blocks with as many rows as fit, rows of a last one
        blocks = self._full + (self._rest > 0)
        self._as_it_is = self._rest == 0 and self._beside * self._tokens == self._block
        # Zeros once: what stands between the rows is never written, and seen by no row.
        self._laid = None if self._as_it_is else like.new_zeros(blocks, self._block, 3 * like.shape[2])
        self._mask = self._seen(there, blocks, like)

    def __call__(self, parts: Tensor) -> Tensor:
        """[rows * tokens, 3 width], queries, keys and values side by side -> [rows * tokens, width]"""
        width = parts.shape[1] // 3
        laid = parts if self._laid is None else self._lay(parts, self._laid)
        split = laid.view(-1, self._block, 3, self._heads, width // self._heads).permute(2, 0, 3, 1, 4)
        found = nn.functional.scaled_dot_product_attention(*split, attn_mask=self._mask)
        told = found.transpose(1, 2)  # [blocks, tokens of a block, heads, width of a head]
        if self._as_it_is:
            return told.reshape(-1, width)
        taken = told[: self._full, : self._beside * self._tokens].reshape(-1, width)
        if self._rest == 0:
            return taken
        return torch.cat([taken, told[self._full, : self._rest * self._tokens].reshape(-1, width)])

    def _lay(self, parts: Tensor, laid: Tensor) -> Tensor:
        together = self._beside * self._tokens
        laid[: self._full, :together] = parts[: self._full * together].view(-1, together, parts.shape[1])
        if self._rest:
            laid[self._full, : self._rest * self._tokens] = parts[self._full * together :]
        return laid

    def _seen(self, there: Tensor, blocks: int, like: Tensor) -> Tensor | None:
        """What is added to the scores of each block; None where every token sees all of its block."""
        if self._beside == 1 and self._block == self._tokens:
            seen = None if bool(there.all()) else there[:, None, None, :]
        else:
            filled = there.new_zeros(blocks * self._beside, self._tokens)
            filled[: self._rows] = there
            keys = there.new_zeros(blocks, self._block)
            keys[:, : self._beside * self._tokens] = filled.view(blocks, self._beside * self._tokens)
            of_row = torch.arange(self._block) // self._tokens
            seen = ((of_row[:, None] == of_row[None, :]) & keys[:, None, :])[:, None]
        return None if seen is None else to_add(seen, like)


def _blocks(tokens: int) -> tuple[int, int]:
    """Rows side by side, and tokens of a block, for rows of so many tokens."""
    if tokens < UNIT:
        return 2 * UNIT // tokens, 2 * UNIT
    half = tokens < FILLED_BELOW and tokens % UNIT >= UNIT // 2
    return 1, -(-tokens // UNIT) * UNIT if half else tokens


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
        attend = _Attention(inputs["attention_mask"].bool(), self._heads, embedded)
        hidden = embedded.reshape(rows * tokens, width)
        for layer in self._layers:
            told = attend(layer.split(hidden))
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
    if not plain or other_hooks(body.modules()) or body.training:
        return None
    with torch.inference_mode():
        try:
            found = FusedEncoder(body)
            here = found(inputs).float()
        # Another torch, another form of layer, a processor without these.
        except (AttributeError, TypeError, RuntimeError):
            return None
        there = body(**inputs).last_hidden_state.float()
    real = inputs["attention_mask"][..., None]
    return found if float(((here - there) * real).norm()) <= ALIKE * float((there * real).norm()) else None


class KeptForward:
    """The fused forward of a model in use, kept from call to call, so that single texts have it too.

    It takes the memory of the blocks' weights once more, and is made when the calls together bring enough rows. Weights that
    were changed in place or exchanged, and hooks, are seen: it is then made anew when it has become worth it again. What is
    written around torch's own count of changes (`weight.data`) is not seen.
    """

    def __init__(self) -> None:
        self.lock = Lock()  # of whoever predicts by it: what it gives stands on the network meanwhile
        self._rows = 0
        self._made: FusedEncoder | None = None
        self._tried = False
        self._parts: list[object] = []  # held, so that no other one can be taken for one of them
        self._changes: list[int] = []

    def __reduce__(self) -> tuple[type[KeptForward], tuple[()]]:
        return KeptForward, ()  # a copy is of other weights, and products laid out cannot be written

    def of(self, body: nn.Module, inputs: dict[str, Tensor], rows: int, worth: int) -> FusedEncoder | None:
        """One of the body as it stands, where it and earlier calls had `worth` rows together; None otherwise."""
        parts, changes = _state(body)
        same = len(parts) == len(self._parts) and all(map(operator.is_, parts, self._parts))
        if not same or changes != self._changes:
            self._rows, self._made, self._tried = 0, None, False
            self._parts, self._changes = parts, changes
        self._rows += rows
        if self._rows >= worth and not self._tried:
            self._made, self._tried = fused_forward(body, inputs), True
        return self._made


def _state(body: nn.Module) -> tuple[list[object], list[int]]:
    """What a body is made of, and numbers of which one differs when any of it was changed."""
    modules, values = list(body.modules()), list(body.parameters())
    instead = [vars(part)["forward"] for part in modules if "forward" in vars(part)]
    # A tensor that was made for prediction alone counts no changes, and cannot be changed but there.
    counts = [0 if value.is_inference() else value._version for value in values]
    changes = [*counts, *(value.data_ptr() for value in values), int(body.training)]
    return [*modules, *values, *other_hooks(modules), *instead], changes
