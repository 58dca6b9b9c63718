"""Which of transformers' forms of attention a body computes with."""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from tunesmith.models.backbone import quiet

PLAIN, FUSED = "eager", "sdpa"  # transformers' names
RATES = ("attention_probs_dropout_prob", "attention_dropout")  # of the probabilities' dropout, by family


def suit_attention(body: nn.Module, training: bool) -> None:
    """Gives `body` the plain form where that is measured to be faster, else the fused one that transformers chooses.

    torch's fused attention has no kernel with dropout on a CPU: it falls back to the plain form computed in float32,
    whatever the weights' format. In bfloat16 transformers' own plain form takes 0.54 to 0.85 of the time and less memory
    (docs/log.md, "Attention on a CPU"); without dropout the fused one is faster. Masks are made in each forward for the
    form then in use, so that it may change between any two.
    """
    if not isinstance(body, PreTrainedModel):
        return
    used = body.config._attn_implementation
    if used not in (PLAIN, FUSED) or not body._supports_sdpa:
        return
    slow = training and body.dtype == torch.bfloat16 and body.device.type == "cpu" and _rate(body.config) > 0
    wanted = PLAIN if slow else FUSED
    if wanted != used:
        with quiet():  # a family that cannot change it says so, and keeps what it has
            body.set_attn_implementation(wanted)


def _rate(config: PreTrainedConfig) -> float:
    """The rate of the attention's own dropout; 0 for a family that has none."""
    return float(next((rate for name in RATES if (rate := getattr(config, name, None)) is not None), 0.0))
