"""Losses over the vectors of related texts. Each couples the rows of a step: more rows, more to tell apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def contrast(vectors: Tensor, ids: Tensor, scale: float, symmetric: bool) -> Tensor:
    """Sum over rows of the cross-entropy of finding a row's second text among those of all rows (InfoNCE).

    van den Oord 2018, arXiv 1807.03748; in-batch negatives after Henderson 2017, arXiv 1705.00652; what
    sentence-transformers calls MultipleNegativesRankingLoss. Third and further texts of all rows are more to choose from.

    vectors: [rows, texts, width], the texts of a row in the order anchor, positive, negatives; ids: [rows, texts], equal
    for equal texts. What only looks like a negative is left out: a text equal to the row's positive or to its anchor, and
    a positive of another row with the same anchor. `scale` is one over the temperature. `symmetric` adds the way back,
    from the positive to all anchors, and halves the sum (Radford 2021, arXiv 2103.00020, figure 3).
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    unit = normalize(vectors.float(), dim=-1)
    rows = len(ids)
    anchors = unit[:, 0]
    candidates = unit[:, 1:].transpose(0, 1).flatten(0, 1)  # [(texts - 1) rows, width], all positives first
    named = ids[:, 1:].T.flatten()
    scores = scale * anchors @ candidates.T  # [rows, (texts - 1) rows]
    own = torch.arange(rows, device=scores.device)
    same = (named == ids[:, 1:2]) | (named == ids[:, :1])
    same[:, :rows] |= ids[:, :1] == ids[:, 0]
    same[own, own] = False
    total = cross_entropy(scores.masked_fill(same, float("-inf")), own, reduction="sum")
    if not symmetric:
        return total
    back = (ids[:, 0] == ids[:, :1]) | (ids[:, 0] == ids[:, 1:2]) | (ids[:, 1] == ids[:, 1:2])
    back[own, own] = False
    back_scores = scores[:, :rows].T.masked_fill(back, float("-inf"))
    return (total + cross_entropy(back_scores, own, reduction="sum")) / 2


def ranking(cosines: Tensor, scores: Tensor, scale: float) -> Tensor:
    """log(1 + sum of exp(scale (cosine i - cosine j))) over all i and j of which j has the higher score (CoSENT).

    Su 2022, kexue.fm/archives/8847. cosines, scores: [rows]; one number for all of them.
    """
    import torch

    wrong = scale * (cosines[:, None] - cosines[None, :])  # [i, j]
    ordered = scores[:, None] < scores[None, :]
    return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong[ordered]]), dim=0)


def cosines(vectors: Tensor) -> Tensor:
    """[rows, texts, width] -> [rows, texts - 1]: of a row's first text with each of the others; float32."""
    from torch.nn.functional import normalize

    unit = normalize(vectors.float(), dim=-1)
    return (unit[:, :1] * unit[:, 1:]).sum(dim=-1)


def same_class(vectors: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Sum over rows of the supervised contrastive loss (Khosla 2020, arXiv 2004.11362, equation 2).

    vectors: [rows, width]; classes: [rows]. Of each row: the mean over the other rows of its class of minus the log of
    their share among all other rows; a row that is alone with its class adds nothing.
    """
    import torch
    from torch.nn.functional import normalize

    unit = normalize(vectors.float(), dim=-1)
    scores = unit @ unit.T / temperature
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    shares = scores - scores.masked_fill(itself, float("-inf")).logsumexp(dim=1, keepdim=True)
    related = (classes[:, None] == classes[None, :]) & ~itself
    count = related.sum(dim=1)
    told = shares.masked_fill(~related, 0.0).sum(dim=1) / count.clamp(min=1)
    return -told.sum()
