"""Full fine-tuning: every parameter that the output depends on may change."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunesmith.methods._groups import full_rate, plan_for
from tunesmith.methods.base import Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.network import Network


class Full(Method):
    """The whole base and the head train."""

    epochs: ClassVar[int] = 5

    def rates(self, width: int, steps: int) -> Rates:
        """Base: 5e-5 * sqrt(384 / width), between 1e-5 and 1e-4; head: 10 times that.

        The curve goes through the usual choices: 5e-5 at width 384, 3.5e-5 at 768 and 3e-5 at 1024, inside the range of
        the BERT paper (Devlin 2019, appendix A.3). A head that was fitted first moves 10 times as fast as the base.
        """
        base = full_rate(width)
        return Rates(base, 10 * base, f"5e-5 * sqrt(384 / {width}) for the base, 10 times that for the head")

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        return plan_for(network, [name for name, _ in network.named_parameters()], rates, cut=0)
