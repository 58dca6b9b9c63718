"""What a network's body makes of rows, whatever its head: the vectors by which what is left of a base is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.data.encode import Batch, Example
    from tunesmith.models.network import Network


def body_vectors(network: Network, examples: Sequence[Example]) -> Tensor:
    """[rows, width] float32 on the CPU, by row number; puts the network in evaluation mode.

    Of texts the mean of the body's last hidden states over the real tokens, of several texts read apart one after the
    other; of pictures what reaches the head.
    """
    import torch

    from tunesmith.training.trunk import measured_batches

    found: list[Tensor] = [torch.empty(0)] * len(examples)
    with torch.inference_mode():
        for part, batch in measured_batches(network, examples, network.processor.pad):
            for example, vector in zip(part, batch_vectors(network, batch).float().cpu(), strict=True):
                found[example.row] = vector
    return torch.stack(found).clone()


def batch_vectors(network: Network, batch: Batch) -> Tensor:
    """[rows, width] of one batch, as the network stands."""
    from tunesmith.models.pooling import Pooling

    processor = network.processor
    if processor.pictures:
        return network.base_features(batch.inputs)
    given = processor.ready(batch.inputs, network.sample)
    hidden = network.get_submodule(network.layout.body)(**given).last_hidden_state  # [texts, tokens, width]
    means = Pooling("mean")(hidden.float(), batch.inputs["attention_mask"])  # all first texts, then all second ones
    rows = len(batch.rows)
    return means.view(-1, rows, means.shape[1]).transpose(0, 1).reshape(rows, -1)
