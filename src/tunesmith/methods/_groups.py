"""The rule that puts every trainable parameter in a group: head or base, with weight decay or without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunesmith.errors import ModelError
from tunesmith.methods.base import Group, Plan, Rates, Stage

if TYPE_CHECKING:
    from tunesmith.models.network import Network

RATE_DECAY: Any = Field(  # pydantic types a field's description as the value it describes
    default=1.0, description="the rate of each block is that of the block above it times this; 1 gives all the same"
)

UNFREEZE: Any = Field(
    default=0.0,
    description="share of the steps over which blocks begin to train one after another, the top one first; 0: all at once",
)


def plan_for(
    network: Network, trained: Iterable[str], rates: Rates, cut: int, times: Mapping[str, float] | None = None
) -> Plan:
    """`trained` parameters of the base, and all of the head, train; the rest is frozen, bit for bit.

    Weight decay holds weights near zero, which suits weight matrices only: vectors (biases, norms) and embeddings go
    without it (Loshchilov & Hutter 2019 as applied by BERT's reference code). `times`: parameters of the base whose
    rate is not `rates.base` but so many times that.
    """
    from torch import nn

    embeddings = tuple(f"{name}." for name in network.layout.embeddings)
    # The layout has none where a base has no list of blocks (albert): a table of vectors is one wherever it stands.
    tables = {id(module.weight) for module in network.modules() if isinstance(module, nn.Embedding)}
    chosen = set(trained) | set(network.fresh)
    other = {} if times is None else times
    buckets: dict[tuple[str, float, bool], list[str]] = {}
    frozen = set()
    for name, parameter in network.named_parameters():
        if name not in chosen:
            frozen.add(name)
            parameter.requires_grad_(False)
            continue
        parameter.requires_grad_(True)
        part = "head" if name in network.fresh else "base"
        decay = parameter.ndim >= 2 and id(parameter) not in tables and not name.startswith(embeddings)
        factor = 1.0 if part == "head" else other.get(name, 1.0)
        buckets.setdefault((part, factor, decay), []).append(name)
    groups = tuple(
        Group(
            name=f"{part}{'' if factor == 1 else f' x {factor:g}'}, {'weight decay' if decay else 'no decay'}",
            parameters=tuple(names),
            rate=rates.head if part == "head" else rates.base * factor,
            decay=decay,
        )
        for (part, factor, decay), names in buckets.items()
    )
    plan = Plan(groups, frozenset(frozen), cut)
    plan.check(network)
    return plan


def falling(network: Network, fall: float) -> dict[str, float]:
    """By how much the rate of each parameter of the base is less, where a block's is that of the block above times `fall`.

    The last block's, and that of what follows it, is the whole rate; the embeddings lie one step below the first block
    (Howard & Ruder 2018, ULMFiT, section 3.2). Raises ModelError where it is to fall, and there are no blocks.
    """
    if fall == 1.0:
        return {}
    blocks = network.layout.blocks
    if not blocks:
        raise ModelError(
            "method.rate_decay: this base has no ordered list of blocks for the rate to fall over; leave it out"
        )
    steps = {f"{name}.": len(blocks) - 1 - place for place, name in enumerate(blocks)}
    steps |= {f"{name}.": len(blocks) for name in network.layout.embeddings}
    return {
        name: fall**down
        for name, _ in network.named_parameters()
        for start, down in steps.items()
        if name.startswith(start)
    }


def unfreezing(network: Network, plan: Plan, over: float) -> tuple[Stage, ...]:
    """Stages in which the trained blocks wake one after another from the top, and last what lies before them.

    Gradual unfreezing (Howard & Ruder 2018, ULMFiT, section 3.3): what is nearest to the task first, so that the layers below
    are not disturbed by what those above have not learned yet. `over`: share of the steps after which nothing waits; the
    stages are of equal length. Raises ModelError where there are no blocks.
    """
    if over == 0.0:
        return ()
    layout = network.layout
    if not layout.blocks:
        raise ModelError("method.unfreeze: this base has no ordered list of blocks to wake one by one; leave it out")
    owner = {name: _place(name, layout.blocks, layout.tail) for name in plan.trainable if name not in network.fresh}
    tops = sorted({place for place in owner.values() if place < len(layout.blocks)}, reverse=True)
    return tuple(
        Stage(
            over * step / max(1, len(tops) - 1),
            frozenset(name for name, place in owner.items() if place < top),
            max(plan.cut, top),
        )
        for step, top in enumerate(tops)
    )


def _place(name: str, blocks: Sequence[str], tail: Sequence[str]) -> int:
    """The number of the block that a parameter belongs to: -1 for what lies before them, their count for what lies behind."""
    if name.startswith(tuple(f"{module}." for module in tail)):
        return len(blocks)
    return next((place for place, block in enumerate(blocks) if name.startswith(f"{block}.")), -1)


def parameters_of(network: Network, modules: Iterable[str]) -> list[str]:
    """Names of all parameters inside the named modules."""
    inside = tuple(f"{name}." for name in modules)
    return [name for name, _ in network.named_parameters() if name.startswith(inside)]


def full_rate(width: int | None) -> float:
    """Peak rate of full fine-tuning with Adam, on which the other methods' rates are built; see `Full.rates`."""
    if width is None:
        return 1e-4
    return round(min(2e-4, max(1e-5, 1e-4 * 384 / width)), 8)


HEAD_WHY = "5 times what method full takes for the base"


def head_rate(width: int | None) -> float:
    """Peak rate of a head that was fitted before the base may change: 5 times the rate of full fine-tuning."""
    return 5 * full_rate(width)
