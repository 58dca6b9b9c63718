"""Losses over vectors equal sentence-transformers' on the same batch; what only looks like a negative is left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tunesmith.tasks import _similarity

if TYPE_CHECKING:
    from torch import Tensor

ROWS, WIDTH = 7, 12


def _vectors(texts: int) -> Tensor:
    import torch

    return torch.randn(ROWS, texts, WIDTH, generator=torch.Generator().manual_seed(texts))


def _distinct(texts: int) -> Tensor:
    import torch

    return torch.arange(ROWS * texts).view(ROWS, texts)


def _reference(kind: Callable[[Any], Any], vectors: Tensor, labels: Tensor | None = None) -> tuple[float, Tensor]:
    """The loss of sentence-transformers on these very vectors, and its gradient at them."""
    import torch

    class Given(torch.nn.Module):
        def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
            return {"sentence_embedding": features["vectors"]}

    leaf = vectors.clone().requires_grad_(True)
    found = kind(Given())([{"vectors": leaf[:, side]} for side in range(leaf.shape[1])], labels)
    found.backward()
    assert leaf.grad is not None
    return float(found.detach()), leaf.grad


def _ours(loss: Callable[[Tensor], Tensor], vectors: Tensor) -> tuple[float, Tensor]:
    leaf = vectors.clone().requires_grad_(True)
    found = loss(leaf)
    found.backward()
    assert leaf.grad is not None
    return float(found.detach()), leaf.grad


def _equal(one: tuple[float, Tensor], two: tuple[float, Tensor]) -> None:
    import torch

    assert one[0] == pytest.approx(two[0], rel=1e-5)
    assert float(two[1].abs().max()) > 1e-4
    assert torch.allclose(one[1], two[1], atol=1e-6)


@pytest.mark.parametrize("texts", [2, 3, 4])
def test_contrast_equals_multiple_negatives_ranking(texts: int) -> None:
    from sentence_transformers.losses import MultipleNegativesRankingLoss

    vectors, ids = _vectors(texts), _distinct(texts)
    _equal(
        _ours(lambda leaf: _similarity.contrast(leaf, ids, 20.0, symmetric=False) / ROWS, vectors),
        _reference(lambda model: MultipleNegativesRankingLoss(model, scale=20.0), vectors),
    )


def test_symmetric_contrast_equals_the_symmetric_reference() -> None:
    from sentence_transformers.losses import MultipleNegativesSymmetricRankingLoss

    vectors, ids = _vectors(2), _distinct(2)
    _equal(
        _ours(lambda leaf: _similarity.contrast(leaf, ids, 14.0, symmetric=True) / ROWS, vectors),
        _reference(lambda model: MultipleNegativesSymmetricRankingLoss(model, scale=14.0), vectors),
    )


def test_ranking_equals_cosent() -> None:
    import torch
    from sentence_transformers.losses import CoSENTLoss

    vectors, scores = _vectors(2), torch.tensor([0.0, 5.0, 2.5, 2.5, 4.0, 1.0, 0.5])
    _equal(
        _ours(lambda leaf: _similarity.ranking(_similarity.cosines(leaf)[:, 0], scores, 20.0), vectors),
        _reference(lambda model: CoSENTLoss(model, scale=20.0), vectors, scores),
    )


def test_the_same_text_in_another_row_is_no_negative() -> None:
    """Row 1 has row 0's positive, row 2 its anchor, row 3 its anchor as positive: what is left is rows 0 and 4 to 6."""
    import torch

    vectors, ids = _vectors(2), _distinct(2)
    ids[1, 1], ids[2, 0], ids[3, 1] = ids[0, 1], ids[0, 0], ids[0, 0]
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    scores = 20.0 * unit[:, 0] @ unit[:, 1].T
    left = torch.tensor([0, 4, 5, 6])
    first = torch.nn.functional.cross_entropy(scores[:1, left], torch.tensor([0]))
    others = _similarity.contrast(vectors, ids, 20.0, False) - first
    kept = {1: [1, 2, 3, 4, 5, 6], 2: [1, 2, 4, 5, 6], 3: list(range(7))}
    kept |= {row: list(range(7)) for row in (4, 5, 6)}
    wanted = sum(
        torch.nn.functional.cross_entropy(scores[row : row + 1, places], torch.tensor([places.index(row)]))
        for row, places in kept.items()
    )
    assert float(others) == pytest.approx(float(wanted), rel=1e-5)


def test_same_class_equals_the_supervised_contrastive_loss() -> None:
    """Against the formula written out as sums over rows (Khosla 2020, equation 2)."""
    import math

    import torch

    vectors, classes = _vectors(2)[:, 0], torch.tensor([0, 1, 0, 2, 1, 0, 3])
    unit = torch.nn.functional.normalize(vectors, dim=-1)
    said = (unit @ unit.T / 0.1).tolist()
    total = 0.0
    for row in range(ROWS):
        others = [other for other in range(ROWS) if other != row]
        related = [other for other in others if classes[other] == classes[row]]
        whole = math.log(sum(math.exp(said[row][other]) for other in others))
        total += sum(whole - said[row][other] for other in related) / max(1, len(related))
    assert float(_similarity.same_class(vectors, classes, 0.1)) == pytest.approx(total, rel=1e-5)
