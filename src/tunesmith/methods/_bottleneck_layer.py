"""A linear map with a bottleneck behind it: two narrow maps, a nonlinearity between them, and a bridge around both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunesmith.methods._beside import linear_shape
from tunesmith.models.around import Around


class BottleneckLinear(Around):
    """y + up(gelu(down(y))), y = base(x); before the first step `up` is zero, and so this is the base alone."""

    def __init__(self, base: nn.Module, size: int) -> None:
        """Raises TypeError where `base` is no linear map."""
        super().__init__()
        _, width = linear_shape(base)
        self.base = base
        self.down = nn.Linear(width, size)
        self.up = nn.Linear(size, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    @property
    def silent(self) -> bool:
        return not bool(self.up.weight.any() or self.up.bias.any())

    @property
    def weight(self) -> Tensor:
        """The base's own: T5 looks at a layer's number format before it calls it."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        given = self.base(hidden)
        return given + self.up(torch.nn.functional.gelu(self.down(given)))
