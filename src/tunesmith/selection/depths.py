"""What a frozen base gives on the way: the outputs of its blocks beside its last, for fine-tuning can use any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Batch, Example, places_of
from tunesmith.training.trunk import measured_batches

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith.models.network import Network

MOST = 6  # depths, the frozen features themselves among them


def chosen(blocks: int, most: int = MOST) -> list[int]:
    """Places of blocks that are looked at beside the last one: at most `most` - 1 of them, about evenly spaced.

    (6) -> [0, 1, 2, 3, 4]; (12) -> [1, 3, 5, 7, 9]; (1) -> [].
    """
    count = min(most, blocks)
    return sorted({(place + 1) * blocks // count - 1 for place in range(count)} - {blocks - 1}) if count else []


def depth_features(network: Network, examples: Sequence[Example], pad: dict[str, int]) -> list[Tensor]:
    """What blocks before the last give, pooled by the mean: each [units, width] float32, on the CPU, row after row.

    Of two texts read apart how their vectors differ and their product, [rows, 2 width]; of pictures the mean over their
    places; where outputs are one a token, of the tokens that count alone. Nothing of a base without blocks, and of one whose
    blocks give other tokens than were read.
    """
    import torch

    names = [network.layout.blocks[place] for place in chosen(len(network.layout.blocks))]
    found: list[dict[int, Tensor]] = [{} for _ in names]
    given: dict[str, Tensor] = {}
    if not names:
        return []
    with ExitStack() as stack:
        for name in names:
            handle = network.get_submodule(name).register_forward_hook(partial(_keep, given, name))
            stack.callback(handle.remove)
        for rows, batch in measured_batches(network, examples, pad):
            with torch.no_grad():
                network.features(batch.inputs)
            for name, kept in zip(names, found, strict=True):
                pooled = _pooled(given[name].float(), batch, network.per_token)
                if pooled is None:
                    return []
                for example, values in zip(rows, pooled, strict=True):
                    kept[example.row] = (values[list(places_of(example))] if network.per_token else values[None]).cpu()
    return [torch.cat([kept[example.row] for example in examples]) for kept in found]


def _keep(given: dict[str, Tensor], name: str, block: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
    """A hook after a block, whose output is a tensor or begins with one."""
    given[name] = output[0] if isinstance(output, tuple) else output


def _pooled(hidden: Tensor, batch: Batch, per_token: bool) -> Tensor | None:
    """[rows, ...]; None where these are not the states of the tokens that were read."""
    import torch
    from torch.nn.functional import normalize

    from tunesmith.models.pooling import Pooling

    inputs: Mapping[str, Tensor] = batch.inputs
    if "attention_mask" not in inputs:
        return hidden.flatten(2).mean(-1) if hidden.dim() == 4 else hidden.mean(1)
    mask = inputs["attention_mask"]
    if hidden.shape[:2] != mask.shape:
        return None
    if per_token:
        return hidden
    pooled = Pooling("mean")(hidden, mask)  # [texts, width]
    if len(pooled) == len(batch.rows):
        return pooled
    one, two = normalize(pooled, dim=-1).chunk(2)
    return torch.cat([(one - two).abs(), one * two], dim=-1)
