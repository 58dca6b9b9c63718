"""From scratch: the base's architecture without what it was pretrained to, which says what pretraining brought."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._groups import full_rate, plan_for
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from tunesmith.models.network import Network


class Scratch(Method):
    """Everything is drawn at random, and trains."""

    epochs: ClassVar[int] = 20
    static_epochs: ClassVar[int | None] = 10

    def rates(self, width: int | None, steps: int) -> Rates:
        """5 times full fine-tuning's rate: 5e-4 at width 384, by which MiniLM itself was trained (Wang 2020, section 4.1)."""
        base = 5 * full_rate(width)
        return Rates(base, base, f"5 * full's {full_rate(width):g}: nothing is there that a large step could undo")

    def static_rates(self, width: int | None, steps: int) -> Rates:
        """Those of full fine-tuning on word vectors: a vector moves only where its word occurs."""
        return Rates(
            3e-3, 1e-2, "3e-3 for a table of word vectors, as for method full", "as for method full on word vectors"
        )

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises ModelError where the base has batch norms, whose statistics stay those of pretraining in every run."""
        from tunesmith.models.layout import has_batch_norms
        from tunesmith.models.redrawn import draw_anew

        if has_batch_norms(network):
            raise ModelError(
                "method scratch: this base has batch norms, whose statistics stay those of its pretraining in every run, so "
                "random weights would not fit them; use full, layers, norms or head"
            )
        with torch_seed(seed, "scratch"):
            draw_anew(network, network.fresh)
        network.pretrained = False
        return plan_for(network, [name for name, _ in network.named_parameters()], rates, cut=0)
