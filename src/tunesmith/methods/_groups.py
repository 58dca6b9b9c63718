"""The rule that puts every trainable parameter in a group: head or base, with weight decay or without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunesmith.methods.base import Group, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.network import Network


def plan_for(network: Network, trained: Iterable[str], rates: Rates, cut: int) -> Plan:
    """`trained` parameters of the base, and all of the head, train; the rest is frozen, bit for bit.

    Weight decay holds weights near zero, which suits weight matrices only: vectors (biases, norms) and embeddings go
    without it (Loshchilov & Hutter 2019 as applied by BERT's reference code).
    """
    from torch import nn

    embeddings = tuple(f"{name}." for name in network.layout.embeddings)
    # The layout has none where a base has no list of blocks (albert): a table of vectors is one wherever it stands.
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    chosen = set(trained) | set(network.fresh)
    buckets: dict[tuple[str, bool], list[str]] = {}
    frozen = set()
    for name, parameter in network.named_parameters():
        if name not in chosen:
            frozen.add(name)
            parameter.requires_grad_(False)
            continue
        parameter.requires_grad_(True)
        part = "head" if name in network.fresh else "base"
        decay = parameter.ndim >= 2 and id(parameter) not in tables and not name.startswith(embeddings)
        buckets.setdefault((part, decay), []).append(name)
    groups = tuple(
        Group(
            name=f"{part}, {'weight decay' if decay else 'no decay'}",
            parameters=tuple(names),
            rate=rates.head if part == "head" else rates.base,
            decay=decay,
        )
        for (part, decay), names in buckets.items()
    )
    plan = Plan(groups, frozenset(frozen), cut)
    plan.check(network)
    return plan


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
