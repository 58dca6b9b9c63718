"""How much of what a network says depends on each of its weights: the diagonal of the Fisher information."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network


def fisher(
    network: Network, names: Iterable[str], rows: Sequence[Batch], drawn: Callable[[Batch], Tensor], seed: int
) -> dict[str, Tensor]:
    """Of each named parameter and in its shape, the mean over `rows` of the squared gradient; the mean over all is 1.

    `drawn` gives minus the log-likelihood of an outcome drawn from what the network itself says of a row: with the data's
    own labels it would not be the Fisher information (Kunstner 2019, arXiv 1905.12558, section 3). One row at a time, since
    the square of a sum is not the sum of squares. All 1 where no gradient reaches any of them.
    """
    import torch

    network.eval()
    live = dict(network.named_parameters())
    chosen = {name: live[name] for name in names}
    kept = {name: value.requires_grad for name, value in live.items()}
    for name, value in live.items():
        value.requires_grad_(name in chosen)
    found = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in chosen.items()}
    try:
        for place, batch in enumerate(rows):
            with torch_seed(seed, "fisher", place):
                gradients = torch.autograd.grad(drawn(batch), list(chosen.values()), allow_unused=True)
            for name, gradient in zip(found, gradients, strict=True):
                if gradient is not None:
                    found[name] += gradient.float().square()
    finally:
        for name, value in live.items():
            value.requires_grad_(kept[name])
    return _of_mean_one(found)


def _of_mean_one(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    import torch

    total = sum(float(value.double().sum()) for value in found.values())
    count = sum(value.numel() for value in found.values())
    if not total > 0:
        return {name: torch.ones_like(value) for name, value in found.items()}
    return {name: value * (count / total) for name, value in found.items()}
