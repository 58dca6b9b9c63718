"""Predictions for many rows, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Batch, Example, collate, per_row, windows
from tunesmith.data.order import by_tokens
from tunesmith.data.stored import measures
from tunesmith.errors import TrainingError, places_said
from tunesmith.tasks.base import Labels, Prediction, Task

if TYPE_CHECKING:
    from torch import Tensor

CPU_TOKENS, GPU_TOKENS = 2_048, 65_536  # padded tokens in one forward


def infer(
    forward: Callable[[Batch], Tensor],
    task: Task,
    examples: Sequence[Example],
    labels: Labels,
    pad: dict[str, int],
    device: str,
    place: Callable[[int], str] = "row {}".format,
) -> tuple[list[Prediction], float | None]:
    """One prediction for each row of the examples, in order, and the mean loss where every target is known.

    `forward` gives the output of a network that is in evaluation mode. Raises TrainingError where an output, or the loss
    of a batch, is not finite: it names the rows, each by what `place` says of its number.
    """
    import torch

    found: list[Prediction] = []
    strange: list[int] = []
    total, weight = 0.0, 0.0
    budget = CPU_TOKENS if device == "cpu" else GPU_TOKENS
    known = len(examples) > 0 and examples[0].target is not None  # of one split: all or none
    with torch.inference_mode():
        for rows in by_tokens(measures(examples).lengths.tolist(), budget):
            batch = collate([examples[row] for row in rows], pad, device)
            output = forward(batch)
            finite = per_row(output, len(batch.rows)).isfinite().flatten(1).all(dim=1).tolist()
            if not all(finite):  # such an output would be read as the first class
                strange += [examples[row].source for row, good in zip(rows, finite, strict=True) if not good]
                continue
            found += task.judged(output, batch, labels)
            if known:
                loss = task.loss(output, batch)
                total += float(loss.total)
                weight += float(loss.weight)
                strange += () if bool(loss.total.isfinite()) else (examples[row].source for row in rows)
    if strange:
        raise _not_finite([place(row) for row in sorted(strange)], len(examples))
    found.sort(key=lambda prediction: prediction.row)
    return task.whole(found, windows(examples), labels), total / weight if known and weight > 0 else None


def _not_finite(places: Sequence[str], rows: int) -> TrainingError:
    return TrainingError(
        f"what the model says is not finite for {len(places)} of {rows} rows: {places_said(places)}; look at them, "
        "lower training.rate, or set training.precision=float32"
    )
