"""Only the normalisations of the base train."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate, parameters_of, plan_for
from tunesmith.methods.base import Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.network import Network


class Norms(Method):
    """The scales and shifts of every norm of the base, and the head, train."""

    epochs: ClassVar[int] = 5

    def rates(self, width: int | None, steps: int) -> Rates:
        """Base: 10 times full fine-tuning's rate, as for biases; head: full's own.

        Qi 2022 ("Parameter-efficient tuning on layer normalization", section 4) and Frankle 2021 ("Training BatchNorm and
        only BatchNorm") train these alone at rates well above full fine-tuning's.
        """
        base = full_rate(width)
        return Rates(10 * base, head_rate(width), f"10 * full's {base:g} for the norms", HEAD_WHY)

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where the base has no norms."""
        if not network.layout.norms:
            raise ModelError("method norms: this base has no norms, as is usual of word vectors; use full or head")
        return plan_for(network, parameters_of(network, network.layout.norms), rates, cut=0)
