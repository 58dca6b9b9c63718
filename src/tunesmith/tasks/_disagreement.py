"""How far two outputs of one row, with other dropout, say other things: R-Drop (Liang 2021, arXiv 2106.14448, equation 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def classes_apart(first: Tensor, second: Tensor) -> Tensor:
    """Mean of the Kullback-Leibler divergences both ways, summed: of two [..., classes] logits."""
    from torch.nn.functional import kl_div

    one, other = first.float().log_softmax(-1), second.float().log_softmax(-1)
    both = kl_div(one, other, reduction="sum", log_target=True) + kl_div(other, one, reduction="sum", log_target=True)
    return both / 2


def labels_apart(first: Tensor, second: Tensor) -> Tensor:
    """The same of independent labels, each there or not: of two [..., labels] logits."""
    difference = first.float() - second.float()
    return (difference * (first.float().sigmoid() - second.float().sigmoid())).sum() / 2


def numbers_apart(first: Tensor, second: Tensor) -> Tensor:
    """Squared differences, summed."""
    return (first.float() - second.float()).square().sum()
