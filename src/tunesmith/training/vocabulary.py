"""Embedding rows that no row of the data uses are put aside while the embeddings train.

A token that never occurs has no gradient, and where the plan gives embeddings no weight decay, neither Adam nor SGD
with momentum ever moves its row: leaving it out changes nothing but the time that gradient, norm and optimizer take.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tunesmith.methods.base import Plan

if TYPE_CHECKING:
    from tunesmith.models.network import Network

WORTH_IT = 0.5  # share of the rows that must stay unused, below which the table is left whole


class CompactEmbedding(nn.Embedding):
    """The rows in use of a larger table; takes the larger table's token numbers."""

    place: Tensor

    def __init__(self, full: nn.Embedding, kept: Tensor) -> None:
        """kept: [rows] token numbers, ascending; the filler's own among them where the table has one."""
        filler = None if full.padding_idx is None else int((kept == full.padding_idx).nonzero())
        super().__init__(len(kept), full.embedding_dim, padding_idx=filler)
        place = torch.zeros(full.num_embeddings, dtype=torch.long, device=full.weight.device)
        place[kept] = torch.arange(len(kept), device=place.device)
        self.register_buffer("place", place, persistent=False)  # [vocabulary] -> row here
        self.weight = nn.Parameter(full.weight.detach()[kept].clone(), requires_grad=full.weight.requires_grad)

    def forward(self, input: Tensor) -> Tensor:
        """[rows, tokens] token numbers -> [rows, tokens, width]"""
        return super().forward(self.place[input])


def compact_embeddings(network: Network, plan: Plan, tokens: Iterable[int], pad: dict[str, int]) -> dict[str, Tensor]:
    """Swaps the token embeddings for their rows in use, where they train without decay and most rows are not in use.

    `tokens` are all those that the network will be given. Gives the kept token numbers by parameter name, which stays
    as it was; empty when nothing was swapped.
    """
    if "input_ids" not in pad:
        return {}
    if network.writes:  # an untrained token may still be said, and tied embeddings are outputs too
        return {}
    body = network.get_submodule(network.layout.body)
    full = body.get_input_embeddings()  # type: ignore[operator]
    owner = next((name for name, module in network.named_modules() if module is full), None)
    still = {name for group in plan.groups if not group.decay for name in group.parameters}  # without a gradient
    names = [name for name, value in network.named_parameters(remove_duplicate=False) if value is full.weight]
    if len(names) > 1:
        return {}  # the output reads the same table, and every row of it gets a gradient there
    if owner is None or type(full) is not nn.Embedding or f"{owner}.weight" not in still:
        return {}
    used = {*tokens, pad["input_ids"]}
    if full.padding_idx is not None:
        used.add(full.padding_idx)
    if len(used) > (1 - WORTH_IT) * full.num_embeddings:
        return {}
    kept = torch.tensor(sorted(used), device=full.weight.device)
    body.set_input_embeddings(CompactEmbedding(full, kept))  # type: ignore[operator]
    return {f"{owner}.weight": kept.cpu()}
