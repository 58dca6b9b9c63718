"""How far what trains has moved: a sample of its values before the first step, and the same ones after."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.methods.base import Plan

MOST = (
    4096  # values kept of one parameter, evenly over it: a whole copy of a large base would take its memory once more
)


@dataclass(frozen=True)
class Travel:
    """Of all parameters of one part together."""

    part: str  # "base", with what a method attached to it, or "head"
    tensors: int
    still: int  # of these, of which no sampled value moved in training
    rate: float  # the part's peak rate, the highest of its groups
    trained: float  # |w - w0| / |w0| of the state after the last step
    delivered: float  # of what is delivered


@dataclass(frozen=True)
class Sampled:
    """Some values of each parameter, by name: [values] float32 on the CPU; and how many it has."""

    values: Mapping[str, Tensor]
    sizes: Mapping[str, int]

    def square(self, name: str, less: Sampled | None = None) -> float:
        """About the sum of squares over the whole parameter, `less` taken off."""
        values = self.values[name] if less is None else self.values[name] - less.values[name]
        return float(values.double().square().sum()) * self.sizes[name] / max(1, len(values))


def sampled(tensors: Mapping[str, Tensor]) -> Sampled:
    return Sampled(
        {name: _some(tensor) for name, tensor in tensors.items()},
        {name: tensor.numel() for name, tensor in tensors.items()},
    )


def travelled(
    start: Sampled, trained: Sampled, delivered: Sampled, plan: Plan, fresh: frozenset[str]
) -> tuple[Travel, ...]:
    """Of the base's part and of the head, each where it trains. `fresh`: names of the head's parameters."""
    found = []
    for part in ("base", "head"):
        names = [name for name in start.values if (name in fresh) == (part == "head")]
        if not names:
            continue
        rates = [group.rate for group in plan.groups if not set(names).isdisjoint(group.parameters)]
        still = sum(trained.square(name, start) == 0 for name in names)
        shares = [_share(start, after, names) for after in (trained, delivered)]
        found.append(Travel(part, len(names), still, max(rates), shares[0], shares[1]))
    return tuple(found)


def _share(start: Sampled, after: Sampled, names: list[str]) -> float:
    whole, moved = math.fsum(map(start.square, names)), math.fsum(after.square(name, start) for name in names)
    return math.sqrt(moved / whole) if whole > 0 else (math.inf if moved > 0 else 0.0)


def _some(tensor: Tensor) -> Tensor:
    flat = tensor.detach().flatten()
    return flat[:: max(1, -(-flat.numel() // MOST))].float().cpu().clone()
