"""One linear map with a low-rank change beside it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from tunesmith.methods._beside import Beside, linear_shape, whole_weight

DOWN, UP, MAGNITUDE = "lora_A.weight", "lora_B.weight", "lora_magnitude_vector"  # PEFT's names
ROUGH = 4  # further columns that the randomised decomposition looks at, and its rounds: Halko 2011, section 1.6
ROUNDS = 16


class Maps(NamedTuple):
    """What is stored of one change."""

    down: Tensor  # [rank, inputs]
    up: Tensor  # [outputs, rank]
    magnitude: Tensor | None = None  # [outputs] lengths of the changed weight's rows (DoRA)


class LoraLinear(Beside):
    """y = base(x) + scale * up(down(dropout(x))), which starts as the base alone.

    Where the maps start as a part of the base's own weight (`starts`), that part is taken off again beside them: the base
    stays as it was pretrained, and the difference of two equal numbers is exactly zero.

    With a `magnitude` (DoRA, Liu 2024, equation 5) every row of the changed weight is brought to a length of its own. The
    length that it has by itself counts as a constant in the backward pass (section 4.3 there).
    """

    first_down: Tensor | None
    first_up: Tensor | None

    def __init__(self, base: nn.Module, maps: Maps, scale: float, drop: float, starts: bool = False) -> None:
        """`starts`: whether `maps` are a part of the base's weight, and not nothing."""
        super().__init__(base)
        self.down = nn.Parameter(maps.down)
        self.up = nn.Parameter(maps.up)
        self.magnitude = None if maps.magnitude is None else nn.Parameter(maps.magnitude)
        self.scale = scale
        self.drop = drop
        self.register_buffer("first_down", maps.down.detach().clone() if starts else None, persistent=False)
        self.register_buffer("first_up", maps.up.detach().clone() if starts else None, persistent=False)

    @property
    def silent(self) -> bool:
        return self.first_up is None and self.magnitude is None and not bool(self.up.any())

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        given = dropout(hidden, self.drop, self.training)
        inner = linear(given, self.down)
        known = self.base(hidden)
        if self.first_down is None and self.magnitude is None:
            # Scaled and added within the product: map and change together take a tenth less than one after the other
            # (docs/log.md), and the same number comes out.
            flat = torch.addmm(known.flatten(0, -2), inner.flatten(0, -2), self.up.t(), alpha=self.scale)
            return flat.view_as(known)
        change = linear(inner, self.up)
        if self.first_down is not None and self.first_up is not None:
            first_down, first_up = self.first_down.to(given.dtype), self.first_up.to(given.dtype)
            change = change - linear(linear(given, first_down), first_up)
        if self.magnitude is None:
            return known + change * self.scale
        times = self.magnitude / self._lengths().to(self.magnitude.dtype)
        bias = self.base.bias
        straight = known - bias if isinstance(bias, Tensor) else known
        return known + (times - 1) * straight + times * (change * self.scale)

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """[outputs] of the changed weight's rows, in float32."""
        return row_lengths(whole_weight(self.base) + self.change())

    def change(self) -> Tensor:
        """[outputs, inputs] what is added to the weight, in float32."""
        found = self.up.float() @ self.down.float()
        if self.first_down is not None and self.first_up is not None:
            found = found - self.first_up.float() @ self.first_down.float()
        return found * self.scale

    def stored(self) -> dict[str, Tensor]:
        """The change as maps that start from nothing: of twice the rank where these do not."""
        down, up = self.down.detach(), self.up.detach()
        if self.first_down is not None and self.first_up is not None:
            down, up = torch.cat([down, self.first_down.to(down)]), torch.cat([up, -self.first_up.to(up)], dim=1)
        return keyed(Maps(down, up, None if self.magnitude is None else self.magnitude.detach()))

    def fused(self) -> tuple[Tensor, Tensor | None]:
        weight = whole_weight(self.base) + self.change()
        if self.magnitude is not None:
            weight = weight * (self.magnitude.float() / row_lengths(weight))[:, None]
        return weight, None


def keyed(maps: Maps) -> dict[str, Tensor]:
    """The maps under PEFT's names."""
    found = {DOWN: maps.down, UP: maps.up}
    return found if maps.magnitude is None else {**found, MAGNITUDE: maps.magnitude}


def first_maps(base: nn.Module, rank: int, initial: str, scale: float, magnitude: bool) -> tuple[Maps, bool]:
    """How the maps on a linear map start, drawn from torch's generator; and whether they are a part of its weight.

    kaiming: uniform with a = sqrt(5), as PEFT and the reference code (Hu 2022) do. gaussian: of deviation 1 / rank.
    orthogonal: rows at right angles, of length 1. pissa: the strongest parts of the weight (Meng 2024, equations 2 to 4).
    olora: the first columns of its QR decomposition (Buyukakyuz 2024, algorithm 1). The last two are divided by `scale`,
    so that the scaled change is that part.
    """
    inputs, outputs = linear_shape(base)
    weight = whole_weight(base)
    lengths = row_lengths(weight).clone() if magnitude else None
    if initial in ("pissa", "olora"):
        down, up = _strongest(weight, rank) if initial == "pissa" else _first_columns(weight, rank)
        return Maps(down / math.sqrt(scale), up / math.sqrt(scale), lengths), True
    down = torch.empty(rank, inputs)
    if initial == "kaiming":
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
    elif initial == "gaussian":
        nn.init.normal_(down, std=1 / rank)
    else:
        nn.init.orthogonal_(down)
    return Maps(down, torch.zeros(outputs, rank), lengths), False


def _strongest(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    left, values, right = torch.svd_lowrank(weight, min(rank + ROUGH, *weight.shape), niter=ROUNDS)
    root = values[:rank].sqrt()
    return (root[:, None] * right[:, :rank].T).contiguous(), (left[:, :rank] * root).contiguous()


def _first_columns(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    left, right = torch.linalg.qr(weight)
    return right[:rank].contiguous(), left[:, :rank].contiguous()


def row_lengths(weight: Tensor) -> Tensor:
    """[outputs, inputs] -> [outputs]"""
    return torch.linalg.vector_norm(weight, dim=1)
