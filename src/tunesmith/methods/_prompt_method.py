"""What prompt tuning and p-tuning share: vectors before every text, as if they were tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._before_text import BeforeText, fitting
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate
from tunesmith.methods.base import Rates

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network
    from tunesmith.models.soft_prompt import SoftPrompt


class PromptMethod(BeforeText):
    """A subclass says how the vectors are made while they train."""

    kinds: ClassVar[tuple[str, ...]] = ("PROMPT_TUNING", "P_TUNING")

    @abstractmethod
    def made(self, start: Tensor) -> SoftPrompt:
        """The vectors as they begin, from [length, width of the token table]."""

    def rates(self, width: int | None, steps: int) -> Rates:
        """100 times the rate of full fine-tuning, 1e-2 at width 384; head: full's own.

        Lester 2021 takes 0.3 with Adafactor, whose steps are of the size of the weights; Adam's are of the size of the rate.
        Of 3e-3, 1e-2 and 3e-2 none had a lower validation loss on SST-2 with MiniLM (docs/log.md).
        """
        base = full_rate(width)
        return Rates(100 * base, head_rate(width), f"100 * full's {base:g} for the vectors", HEAD_WHY)

    def check(self, network: Network) -> None:
        from tunesmith.models.soft_prompt import body_of, pools_first

        body = body_of(network)
        if body is not None and pools_first(body):
            raise ModelError(
                f"method {self.part_name()}: this base makes its vector of the first token before anything can be left away, "
                "and that would be a learned one; use lora, full or head"
            )
        if body is None:
            raise ModelError(
                f"method {self.part_name()}: this base does not read tokens one after another, so vectors have no place "
                f"before them; use {fitting(network)}"
            )

    def first(self, network: Network, ids: list[int]) -> Tensor:
        import torch

        from tunesmith.models.soft_prompt import reader

        with torch.no_grad():
            given = torch.tensor([ids], device=network.sample.device)
            return reader(network).get_input_embeddings()(given)[0].float()

    def put(self, network: Network, table: Tensor, trains: bool) -> None:
        from tunesmith.models.soft_prompt import SoftPrompt, put_on, reader

        put_on(reader(network), self.made(table) if trains else SoftPrompt(table))

    def table(self, network: Network) -> Tensor:
        from tunesmith.models.soft_prompt import prompt_on, reader

        return prompt_on(reader(network)).values()

    def in_peft(self, network: Network) -> bool:
        """Not of an encoder-decoder that writes: there PEFT's decoder sees the vectors too."""
        from tunesmith.models.sequence import SequenceNetwork

        return not isinstance(network, SequenceNetwork)

    def described(self, network: Network) -> Mapping[str, Any]:
        from tunesmith.models.soft_prompt import heads_and_layers, reader

        heads, layers = heads_and_layers(reader(network))
        return {
            "token_dim": self.table(network).shape[1],
            "num_transformer_submodules": 1,
            "num_attention_heads": heads,
            "num_layers": layers,
        }

    def take_off(self, network: Network) -> None:
        from tunesmith.models.soft_prompt import reader, take_off

        take_off(reader(network))
