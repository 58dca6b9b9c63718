"""What the nearest of known vectors say of others: votes by cosine, weighted by nearness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

AT_ONCE = 20_000_000  # cosines in memory: 80 MB
SAME = 1e-6  # a cosine distance that float32 cannot tell from 0


def votes(known: Tensor, values: Tensor, asked: Tensor, counts: Sequence[int], outputs: int) -> dict[int, Tensor]:
    """For each of `counts` the mean of what so many nearest known vectors have, each weighted by one over its distance.

    known: [known, width]; values: [known] classes, or [known, outputs] numbers; asked: [rows, width]. Gives float32
    [rows, outputs], of classes their shares of the vote. The distance is 1 - cosine (scikit-learn's KNeighborsClassifier
    with metric="cosine" and weights="distance"); vectors nearer than float32 can tell count as equally near.
    """
    import torch
    from torch.nn.functional import normalize

    counts = sorted({min(count, len(known)) for count in counts})
    unit = normalize(known.float(), dim=1)
    found = {count: torch.zeros(len(asked), outputs) for count in counts}
    rows = max(1, AT_ONCE // len(known))
    for start in range(0, len(asked), rows):
        cosines = normalize(asked[start : start + rows].float(), dim=1) @ unit.T  # [some rows, known]
        near = cosines.topk(counts[-1], dim=1)
        weights = 1 / (1 - near.values).clamp_min(SAME)
        for count in counts:
            share = weights[:, :count] / weights[:, :count].sum(1, keepdim=True)
            own = values[near.indices[:, :count]]  # [some rows, count] or [some rows, count, outputs]
            part = found[count][start : start + rows]
            if own.dim() == 2:
                part.scatter_add_(1, own, share)
            else:
                part.copy_((share[:, :, None] * own.float()).sum(1))
    return found
