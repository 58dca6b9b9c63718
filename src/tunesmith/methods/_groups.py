"""The rule that puts every trainable parameter in a group: head or base, with weight decay or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunesmith.errors import ModelError
from tunesmith.methods.base import Group, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network

RATE_DECAY: Any = Field(  # pydantic types a field's description as the value it describes
    default=1.0, description="the rate of each block is that of the block above it times this; 1 gives all the same"
)


def plan_for(network: Network, trained: Iterable[str], rates: Rates, cut: int, fall: float = 1.0) -> Plan:
    """`trained` parameters of the base, and all of the head, train; the rest is frozen, bit for bit.

    Weight decay holds weights near zero, which suits weight matrices only: vectors (biases, norms) and embeddings go
    without it (Loshchilov & Hutter 2019 as applied by BERT's reference code). `fall`: the rate of a block is that of the
    block above it times this; the last block's, and that of what follows it, is `rates.base`, and the embeddings lie one
    step below the first block (Howard & Ruder 2018, ULMFiT, section 3.2).
    """
    from torch import nn

    embeddings = tuple(f"{name}." for name in network.layout.embeddings)
    # The layout has none where a base has no list of blocks (albert): a table of vectors is one wherever it stands.
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    chosen = set(trained) | set(network.fresh)
    depth = _steps_down(network) if fall < 1.0 else {}
    buckets: dict[tuple[str, int, bool], list[str]] = {}
    frozen = set()
    for name, parameter in network.named_parameters():
        if name not in chosen:
            frozen.add(name)
            parameter.requires_grad_(False)
            continue
        parameter.requires_grad_(True)
        part = "head" if name in network.fresh else "base"
        decay = parameter.ndim >= 2 and id(parameter) not in tables and not name.startswith(embeddings)
        down = 0 if part == "head" else next((steps for start, steps in depth.items() if name.startswith(start)), 0)
        buckets.setdefault((part, down, decay), []).append(name)
    groups = tuple(
        Group(
            name=f"{part}{f' {down} below the top' if down else ''}, {'weight decay' if decay else 'no decay'}",
            parameters=tuple(names),
            rate=rates.head if part == "head" else rates.base * fall**down,
            decay=decay,
        )
        for (part, down, decay), names in buckets.items()
    )
    plan = Plan(groups, frozenset(frozen), cut)
    plan.check(network)
    return plan


def check_decay(layout: Layout, fall: float, method: str) -> None:
    """Raises ModelError where the rate is to fall from block to block, and the base has none."""
    if fall < 1.0 and not layout.blocks:
        raise ModelError(
            f"method.rate_decay: this base has no ordered list of blocks for {method}'s rate to fall over; leave it out"
        )


def _steps_down(network: Network) -> dict[str, int]:
    """How far below the last block a part of the base lies, by the start of its parameters' names."""
    blocks = network.layout.blocks
    found = {f"{name}.": len(blocks) - 1 - place for place, name in enumerate(blocks)}
    return {**found, **{f"{name}.": len(blocks) for name in network.layout.embeddings}}


def parameters_of(network: Network, modules: Iterable[str]) -> list[str]:
    """Names of all parameters inside the named modules."""
    inside = tuple(f"{name}." for name in modules)
    return [name for name, _ in network.named_parameters() if name.startswith(inside)]


def full_rate(width: int | None) -> float:
    """Peak rate of full fine-tuning with Adam, on which the other methods' rates are built; see `Full.rates`."""
    if width is None:
        return 1e-4
    return round(min(2e-4, max(1e-5, 1e-4 * 384 / width)), 8)


def head_rate(width: int | None) -> float:
    """Peak rate of a head that was fitted before the base may change: 5 times the rate of full fine-tuning."""
    return 5 * full_rate(width)
