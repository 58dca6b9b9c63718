"""Where a step's rows come from: a source answers `batch(step)`, and nothing about it changes during a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunesmith.data.encode import Batch, Example, collate
from tunesmith.data.order import Order, split_evenly


@dataclass(frozen=True)
class FixedRows:
    """The rows of a training split, in the order that (seed, step) gives."""

    examples: Sequence[Example]
    order: Order
    micro_batch: int
    pad: dict[str, int]
    device: str
    vary: Callable[[Batch, int], Batch] | None = None  # (rows, epoch) -> the rows as this epoch sees them

    @property
    def steps_per_epoch(self) -> int:
        return self.order.steps_per_epoch

    def batch(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step."""
        rows = self.order.batch(step)
        found = [
            collate([self.examples[row] for row in part], self.pad, self.device)
            for part in split_evenly(rows, self.micro_batch)
        ]
        epoch = step // self.steps_per_epoch
        return found if self.vary is None else [self.vary(batch, epoch) for batch in found]

    def longest(self) -> Batch:
        """The micro-batch that needs the most memory."""
        rows = self.order.longest()[: self.micro_batch]
        return collate([self.examples[row] for row in rows], self.pad, self.device)
