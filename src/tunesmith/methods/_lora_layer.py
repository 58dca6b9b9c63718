"""One linear map with a low-rank change beside it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear
from transformers.pytorch_utils import Conv1D


class LoraLinear(nn.Module):
    """y = base(x) + (alpha / rank) * up(down(dropout(x))); `up` starts at zero, so it starts as the base alone."""

    def __init__(self, base: nn.Linear | Conv1D, down: Tensor, up: Tensor, scale: float, drop: float) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(down)  # [rank, inputs]
        self.up = nn.Parameter(up)  # [outputs, rank]
        self.scale = scale
        self.drop = drop

    @classmethod
    def from_base(cls, base: nn.Module, rank: int, alpha: float, drop: float) -> LoraLinear:
        """Draws `down` as PEFT and the reference code do: Kaiming uniform with a = sqrt(5)."""
        inputs, outputs = linear_shape(base)
        assert isinstance(base, nn.Linear | Conv1D)
        down = torch.empty(rank, inputs)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        return cls(base, down, torch.zeros(outputs, rank), alpha / rank, drop)

    @property
    def weight(self) -> Tensor:
        """The base's own, unchanged: T5 looks at a layer's number format before it calls it."""
        return self.base.weight

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        change = linear(linear(dropout(hidden, self.drop, self.training), self.down), self.up)
        return self.base(hidden) + change * self.scale

    def load(self, down: Tensor, up: Tensor) -> None:
        """Takes over given maps. Raises ValueError when their shapes differ."""
        if down.shape != self.down.shape or up.shape != self.up.shape:
            raise ValueError(f"expected {tuple(self.down.shape)} and {tuple(self.up.shape)}")
        with torch.no_grad():
            self.down.copy_(down)
            self.up.copy_(up)

    def fuse(self) -> nn.Linear | Conv1D:
        """The base with the change added to its weight; computed in float32."""
        with torch.no_grad():
            change = (self.up.float() @ self.down.float()) * self.scale  # [outputs, inputs]
            if isinstance(self.base, Conv1D):
                change = change.T
            self.base.weight.copy_((self.base.weight.float() + change).to(self.base.weight.dtype))
        return self.base


def linear_shape(base: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear map; Conv1D, GPT-2's own, keeps its weight transposed. Raises TypeError."""
    if not isinstance(base, nn.Linear | Conv1D):
        raise TypeError(f"LoRA goes on linear maps, not on {type(base).__name__}")
    rows, columns = base.weight.shape
    return (rows, columns) if isinstance(base, Conv1D) else (columns, rows)
