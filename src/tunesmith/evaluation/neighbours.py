"""How much of the order among texts one set of vectors shares with another: neighbours that stay, and linear CKA."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

NEAREST = 10


def still_near(before: Tensor, after: Tensor, nearest: int = NEAREST) -> float:
    """The mean share of each row's `nearest` others by cosine in `before` that are among the nearest in `after` too.

    Both [rows, width], of the same rows in the same order; the widths may differ. Raises ValueError where there are not
    more than `nearest` rows.
    """
    if len(before) != len(after) or len(before) <= nearest:
        raise ValueError(f"expected two sets of the same rows, more than {nearest}; got {len(before)} and {len(after)}")
    stayed = (_nearest(before, nearest) & _nearest(after, nearest)).sum()
    return float(stayed) / (len(before) * nearest)


def _nearest(vectors: Tensor, count: int) -> Tensor:
    """[rows, rows] whether a row is among the nearest of another; none is its own."""
    import torch
    from torch.nn.functional import normalize

    directions = normalize(vectors.double(), dim=1)
    cosines = directions @ directions.T
    cosines.fill_diagonal_(-2.0)
    return torch.zeros_like(cosines, dtype=torch.bool).scatter_(1, cosines.topk(count, dim=1).indices, True)


def linear_cka(before: Tensor, after: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith 2019, equation 3.2): 1 where one is a turned and scaled form of the other.

    Both [rows, width], of the same rows in the same order; 0 where either has no spread.
    """
    import torch

    one, two = (vectors.double() - vectors.double().mean(dim=0) for vectors in (before, after))
    sizes = torch.linalg.matrix_norm(one.T @ one) * torch.linalg.matrix_norm(two.T @ two)
    return float(torch.linalg.matrix_norm(one.T @ two) ** 2 / sizes) if sizes > 0 else 0.0
