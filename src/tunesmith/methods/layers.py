"""Partial fine-tuning: chosen blocks train, the rest of the base is frozen."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.errors import ModelError
from tunesmith.methods._groups import (
    HEAD_WHY,
    RATE_DECAY,
    UNFREEZE,
    falling,
    full_rate,
    head_rate,
    parameters_of,
    plan_for,
    unfreezing,
)
from tunesmith.methods.base import Findings, Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network


class Layers(Method):
    """The chosen blocks, the base's tail (final norm, pooler) and the head train."""

    main_option: ClassVar[str | None] = "layers"
    epochs: ClassVar[int] = 5

    layers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | Literal["auto"] = Field(
        default=2,
        description="how many of the blocks, from the top, or a list of block numbers counted from 0 at the input; auto: "
        "those whose gradients are large beside their weights",
    )
    norms: Literal["chosen", "all"] = Field(
        default="chosen", description="norms of the chosen blocks only, or of every block"
    )
    side: Literal["top", "bottom"] = Field(
        default="top", description="where a number of blocks is counted from: the output's side, or the input's"
    )
    rate_decay: Annotated[float, Field(gt=0, le=1)] = RATE_DECAY
    unfreeze: Annotated[float, Field(ge=0, lt=1)] = UNFREEZE
    embeddings: bool = Field(default=False, description="whether the embeddings train too")

    def rates(self, width: int | None, steps: int) -> Rates:
        """Base: twice the rate of full fine-tuning, since fewer layers must each move further; head: full's own."""
        base = full_rate(width)
        return Rates(2 * base, head_rate(width), f"2 * full's {base:g} for the chosen blocks", HEAD_WHY)

    def chosen(self, layout: Layout) -> tuple[int, ...]:
        """Block numbers, ascending. Raises ModelError when the base has no such blocks."""
        depth = len(layout.blocks)
        if depth == 0:
            raise ModelError(
                "method layers: this base has no ordered list of blocks to choose from; use full"
                + (", head or lora" if layout.linears else " or head")
            )
        if self.layers == "auto":
            raise ModelError("method.layers: auto chooses on training rows, which there are none of here; give numbers")
        asked = self.layers if isinstance(self.layers, tuple) else self._counted(depth)
        wrong = sorted({index for index in asked if not 0 <= index < depth})
        if wrong or not asked:
            raise ModelError(
                f"method.layers: {self.layers!r} does not fit a base of {depth} blocks, numbered 0 to {depth - 1}; "
                f"give 1 to {depth} for the {self.side} ones, or a list of their numbers"
            )
        return tuple(sorted(set(asked)))

    def _counted(self, depth: int) -> tuple[int, ...]:
        assert isinstance(self.layers, int)
        return tuple(range(self.layers) if self.side == "bottom" else range(depth - self.layers, depth))

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        layout, times = network.layout, falling(network, self.rate_decay)
        modules = [layout.blocks[index] for index in self.chosen(layout)] + list(layout.tail)
        if self.norms == "all":
            modules += layout.norms
        if self.embeddings:
            modules += layout.embeddings
        plan = plan_for(network, parameters_of(network, modules), rates, self.cut(layout), times)
        return replace(plan, stages=unfreezing(network, plan, self.unfreeze))

    @property
    def undecided(self) -> str:
        return "layers" if self.layers == "auto" else ""

    def decided(self, findings: Findings) -> tuple[tuple[int, ...], str]:
        """The blocks whose relative gradient norm is above the mean of all.

        The measure is Lee 2022 ("Surgical fine-tuning improves adaptation to distribution shifts", Auto-RGN, section 4),
        where it sets each layer's rate; which of the blocks to take is not said there.
        """
        relative = findings.relative_gradients()
        mean = sum(relative) / len(relative)
        chosen = tuple(place for place, value in enumerate(relative) if value > mean) or tuple(range(len(relative)))
        measured = ", ".join(f"{place}: {value:.2g}" for place, value in enumerate(relative))
        return chosen, f"norm of the gradient over that of the weights, above the mean of the blocks ({measured})"

    def cut(self, layout: Layout) -> int:
        if self.embeddings or self.norms == "all":
            return 0
        return min(self.chosen(layout))
