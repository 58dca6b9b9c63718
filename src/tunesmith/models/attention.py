"""Which form of attention a body computes with: transformers' own ones, and a plain one with faster dropout."""

from __future__ import annotations

import inspect
import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import eager_mask

from tunesmith.models.backbone import quiet
from tunesmith.models.dropout import kept

PLAIN, FUSED = "eager", "sdpa"  # transformers' names
DRAWN = "tunesmith_drawn"  # the plain form with dropout of models/dropout.py
PLAIN_FUNCTION = "eager_attention_forward"  # what transformers calls the plain form in each family's file
RATES = ("attention_probs_dropout_prob", "attention_dropout")  # of the probabilities' dropout, by family


def suit_attention(body: nn.Module, training: bool) -> None:
    """Gives `body` the plain form where that is measured to be faster, else the fused one that transformers chooses.

    torch's fused attention has no kernel with dropout on a CPU: it falls back to the plain form computed in float32,
    whatever the weights' format. In bfloat16 transformers' own plain form takes 0.54 to 0.85 of the time and less memory
    (docs/log.md, "Attention on a CPU"); without dropout the fused one is faster. Where the family's plain form is BERT's, it
    draws what it drops as other dropouts do. Masks are made in each forward for the form then in use, so that it may change
    between any two.
    """
    if not isinstance(body, PreTrainedModel):
        return
    used = body.config._attn_implementation
    if used not in (PLAIN, FUSED, DRAWN) or not body._supports_sdpa:
        return
    slow = training and body.dtype == torch.bfloat16 and body.device.type == "cpu" and _rate(body.config) > 0
    wanted = FUSED if not slow else DRAWN if _as_bert(body) else PLAIN
    if wanted != used:
        if wanted == DRAWN:
            AttentionInterface.register(DRAWN, _attend)
            AttentionMaskInterface.register(DRAWN, eager_mask)
        with quiet():  # a family that cannot change it says so, and keeps what it has
            body.set_attn_implementation(wanted)


def _rate(config: PreTrainedConfig) -> float:
    """The rate of the attention's own dropout; 0 for a family that has none."""
    return float(next((rate for name in RATES if (rate := getattr(config, name, None)) is not None), 0.0))


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """What BERT's plain form computes, but for which probabilities are dropped. The arguments are transformers' own.

    query, key, value: [rows, heads, tokens, numbers of a head]; attention_mask is added to the scores.
    Gives [rows, tokens, heads, numbers of a head] and the probabilities.
    """
    scale = query.size(-1) ** -0.5 if scaling is None else scaling
    scores = torch.matmul(query * scale, key.transpose(2, 3))  # far fewer numbers than scores
    if attention_mask is not None:
        scores += attention_mask
    weights = scores.softmax(dim=-1)
    if module.training and 0 < dropout < 1:
        weights = weights * kept(weights, dropout)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


def _as_bert(body: PreTrainedModel) -> bool:
    """Whether the plain form of the body's family is BERT's to the letter."""
    from transformers.models.bert import modeling_bert

    own = vars(sys.modules[type(body).__module__]).get(PLAIN_FUNCTION)
    try:
        return own is not None and inspect.getsource(own) == inspect.getsource(modeling_bert.eager_attention_forward)
    except OSError:  # transformers without its sources
        return False
