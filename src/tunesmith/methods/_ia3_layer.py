"""One linear map with a learned factor on what it gives, or on what it is given."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tunesmith.methods._beside import Beside, linear_shape, whole_weight

FACTOR = "ia3_l"  # PEFT's name


class Ia3Linear(Beside):
    """y = base(x) * factor, or base(x * factor) where `before`; factors of 1 are the base alone (Liu 2022, equation 1)."""

    def __init__(self, base: nn.Module, before: bool, factor: Tensor | None = None) -> None:
        """`factor` [outputs] ([inputs] where `before`): ones where it is not given."""
        super().__init__(base)
        self.before = before
        size = linear_shape(base)[0 if before else 1]
        self.factor = nn.Parameter(torch.ones(size) if factor is None else factor)

    @property
    def silent(self) -> bool:
        return bool((self.factor == 1).all())

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]"""
        return self.base(hidden * self.factor) if self.before else self.base(hidden) * self.factor

    def stored(self) -> dict[str, Tensor]:
        factor = self.factor.detach()
        return {FACTOR: factor[None, :] if self.before else factor[:, None]}

    def fused(self) -> tuple[Tensor, Tensor | None]:
        weight, factor, bias = whole_weight(self.base), self.factor.detach().float(), self.base.bias
        if self.before:
            return weight * factor, None
        return weight * factor[:, None], bias.detach().float() * factor if isinstance(bias, Tensor) else None
