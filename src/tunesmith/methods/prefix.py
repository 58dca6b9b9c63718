"""Prefix tuning (Li & Liang 2021): learned keys and values before those of every text, in every attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._before_text import BeforeText, fitting
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate
from tunesmith.methods.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network


class Prefix(BeforeText):
    """Keys and values before every text in every attention, and the head, train.

    They are trained as they are, not made by a network as in Li & Liang 2021; Liu 2022 ("P-Tuning v2") found such a
    network of use on some tasks only. They begin as the keys and values of real words (Li & Liang 2021, section 7.4).
    """

    kinds: ClassVar[tuple[str, ...]] = ("PREFIX_TUNING",)

    def rates(self, width: int | None, steps: int) -> Rates:
        """100 times the rate of full fine-tuning, 1e-2 at width 384; head: full's own.

        Of 3e-3, 1e-2 and 3e-2 it had the lowest validation loss on SST-2 with MiniLM (docs/log.md).
        """
        base = full_rate(width)
        return Rates(100 * base, head_rate(width), f"100 * full's {base:g} for the prefix", HEAD_WHY)

    def check(self, network: Network) -> None:
        from tunesmith.models.prefix import can_read

        why = can_read(network)
        if why:
            raise ModelError(f"method prefix: {why}; use {fitting(network)}")

    def first(self, network: Network, ids: list[int]) -> Tensor:
        from tunesmith.models.prefix import of_tokens

        return of_tokens(network, ids)

    def put(self, network: Network, table: Tensor, trains: bool) -> None:
        from tunesmith.models.prefix import put_on

        put_on(network, table)

    def table(self, network: Network) -> Tensor:
        from tunesmith.models.prefix import table_on

        return table_on(network)

    def in_peft(self, network: Network) -> bool:
        from tunesmith.models.prefix import as_in_peft

        return as_in_peft(network)

    def described(self, network: Network) -> Mapping[str, Any]:
        from tunesmith.models.prefix import sizes_on

        layers, heads, numbers = sizes_on(network)
        return {
            "token_dim": heads * numbers,
            "num_transformer_submodules": 1,
            "num_attention_heads": heads,
            "num_layers": layers,
            "encoder_hidden_size": heads * numbers,
            "prefix_projection": False,
        }

    def take_off(self, network: Network) -> None:
        from tunesmith.models.prefix import take_off

        take_off(network)
