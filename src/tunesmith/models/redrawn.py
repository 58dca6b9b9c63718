"""A network whose base knows nothing: the same architecture, with weights as they are before any pretraining."""

from __future__ import annotations

import copy

import torch
from torch import nn
from transformers import PreTrainedModel

from tunesmith.models.static import StaticModel


def draw_anew(network: nn.Module, keep: frozenset[str]) -> None:
    """Draws every parameter of the transformers model in `network`, in place, as its family starts a new model.

    keep: names of parameters that stay as they are. Word vectors, which no family starts, are drawn with the spread that
    they have. From torch's generator.
    """
    root, model = next((name, part) for name, part in network.named_modules() if isinstance(part, PreTrainedModel))
    if isinstance(model, StaticModel):
        drawn = {name: torch.randn_like(value) * value.std() for name, value in model.named_parameters()}
    else:
        drawn = dict(type(model)(copy.deepcopy(model.config)).named_parameters())
    with torch.no_grad():
        for name, value in model.named_parameters():
            if f"{root}.{name}" not in keep:
                value.copy_(drawn[name])
