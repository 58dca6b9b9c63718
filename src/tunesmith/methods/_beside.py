"""A linear map with a change beside it: what every adapter on linear maps is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tunesmith.methods._nf4_layer import Nf4Linear
from tunesmith.models.around import Around


class Beside(Around, ABC):
    """Stands in the place of `base`, which it holds and does not change until `fuse`."""

    def __init__(self, base: nn.Module) -> None:
        """Raises TypeError where `base` is no linear map."""
        super().__init__()
        linear_shape(base)
        self.base = base

    @property
    def weight(self) -> Tensor:
        """The base's own, unchanged: T5 looks at a layer's number format before it calls it."""
        weight = self.base.weight
        assert isinstance(weight, Tensor)
        return weight

    @abstractmethod
    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]; before the first step exactly what the base gives."""

    @abstractmethod
    def stored(self) -> dict[str, Tensor]:
        """The change, under the names that PEFT keeps it by behind the layer's own."""

    @abstractmethod
    def fused(self) -> tuple[Tensor, Tensor | None]:
        """Weight [outputs, inputs] and bias [outputs] of one linear map that does the same, in float32."""

    def fuse(self) -> nn.Module:
        """The base, made to do the same alone."""
        with torch.no_grad():
            weight, bias = self.fused()
            own = self.weight
            own.copy_((weight.T if isinstance(self.base, Conv1D) else weight).to(own.dtype))
            if bias is not None and isinstance(self.base.bias, Tensor):
                self.base.bias.copy_(bias.to(own.dtype))
        return self.base


def whole_weight(base: nn.Module) -> Tensor:
    """[outputs, inputs] the weight of a linear map in float32, without a graph; of a packed one what its codes give back."""
    if isinstance(base, Nf4Linear):
        return base.whole(torch.float32)
    assert isinstance(base, nn.Linear | Conv1D)
    weight = base.weight.detach().float()
    return weight.T if isinstance(base, Conv1D) else weight


def linear_shape(base: nn.Module) -> tuple[int, int]:
    """(inputs, outputs) of a linear map; Conv1D, GPT-2's own, keeps its weight transposed. Raises TypeError."""
    if isinstance(base, Nf4Linear):
        return base.inputs, base.outputs
    if not isinstance(base, nn.Linear | Conv1D):
        raise TypeError(f"an adapter goes on linear maps, not on {type(base).__name__}")
    rows, columns = base.weight.shape
    return (rows, columns) if isinstance(base, Conv1D) else (columns, rows)


def is_transposed(base: nn.Module) -> bool:
    """Whether the pretrained model keeps this map's weight as [inputs, outputs]."""
    return base.transposed if isinstance(base, Nf4Linear) else isinstance(base, Conv1D)
