"""Head only (feature extraction): the base stays as it was pretrained, and its outputs are computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._groups import plan_for
from tunesmith.methods.base import Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network


class Head(Method):
    """Only the head trains."""

    epochs: ClassVar[int] = 10
    trains_base: ClassVar[bool] = False

    def rates(self, width: int | None, steps: int) -> Rates:
        """1e-3, Adam's own default (Kingma & Ba 2015, algorithm 1): a linear map on fixed features is a convex problem."""
        return Rates(1e-3, 1e-3, "1e-3, Adam's own default: a linear map on fixed features is a convex problem")

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where the network has no head that starts untrained."""
        if not network.fresh:
            fitting = "lora, layers or full" if network.layout.blocks else "full"  # word vectors have no blocks
            raise ModelError(
                "method head: every part of this network is pretrained already, so there is no head to train; use "
                f"{fitting}"
            )
        return plan_for(network, [], rates, self.cut(network.layout))

    def cut(self, layout: Layout) -> int:
        return len(layout.blocks)
