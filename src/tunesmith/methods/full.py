"""Full fine-tuning: every parameter that the output depends on may change."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from tunesmith.methods._groups import (
    HEAD_WHY,
    RATE_DECAY,
    UNFREEZE,
    falling,
    full_rate,
    head_rate,
    plan_for,
    unfreezing,
)
from tunesmith.methods.base import Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.network import Network


class Full(Method):
    """The whole base and the head train."""

    epochs: ClassVar[int] = 5
    static_epochs: ClassVar[int | None] = 10

    rate_decay: Annotated[float, Field(gt=0, le=1)] = RATE_DECAY
    unfreeze: Annotated[float, Field(ge=0, lt=1)] = UNFREEZE

    def rates(self, width: int | None, steps: int) -> Rates:
        """Base: 1e-4 * 384 / width, between 1e-5 and 2e-4; head: 5 times that.

        Adam's best rate falls as 1 / width (Yang 2022, "Tensor Programs V", table 3). The constant is from Banking77 with
        MiniLM of width 384 (docs/log.md); it gives 5e-5 at width 768 and 3.75e-5 at 1024, inside the range of the BERT
        paper (Devlin 2019, appendix A.3). Without a width 1e-4 (docs/log.md, "Pictures").
        """
        base = full_rate(width)
        if width is None:
            return Rates(base, head_rate(width), "1e-4 for a base with batch norms", HEAD_WHY)
        return Rates(base, head_rate(width), f"1e-4 * 384 / {width} for the base", HEAD_WHY)

    def static_rates(self, width: int | None, steps: int) -> Rates:
        """3e-3 for the table and 1e-2 for the head, whatever the width: a word's vector moves only where the word occurs.

        Measured on Banking77 (docs/log.md).
        """
        return Rates(
            3e-3,
            1e-2,
            "3e-3 for a table of word vectors: measured on Banking77",
            "measured on Banking77, on word vectors",
        )

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where blocks are to have rates or beginnings of their own, and there are none."""
        times = falling(network, self.rate_decay)
        plan = plan_for(network, [name for name, _ in network.named_parameters()], rates, 0, times)
        return replace(plan, stages=unfreezing(network, plan, self.unfreeze))
