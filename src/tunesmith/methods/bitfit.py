"""BitFit (Ben Zaken 2022): only the biases of the base train."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate, plan_for
from tunesmith.methods.base import Method, Plan, Rates

if TYPE_CHECKING:
    from tunesmith.models.network import Network


class Bitfit(Method):
    """The biases, those of norms too, and the head train."""

    epochs: ClassVar[int] = 5

    def rates(self, width: int | None, steps: int) -> Rates:
        """Base: 10 times full fine-tuning's rate; head: full's own.

        Ben Zaken 2022 ("BitFit", section 4) takes 1e-4 to 1e-3 for BERT-base, where full fine-tuning takes 5e-5 here:
        few parameters must each move further.
        """
        base = full_rate(width)
        return Rates(10 * base, head_rate(width), f"10 * full's {base:g} for the biases", HEAD_WHY)

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where the base has no biases."""
        inside = f"{network.layout.body}." if network.layout.body else ""
        chosen = [
            name
            for name, _ in network.named_parameters()
            if name.startswith(inside) and name.rpartition(".")[2] == "bias" and name not in network.fresh
        ]
        if not chosen:
            raise ModelError(
                "method bitfit: this base has no biases, as is usual of decoders and of word vectors; use "
                + ("lora, norms, layers, head or full" if network.layout.blocks else "full or head")
            )
        return plan_for(network, chosen, rates, cut=0)
