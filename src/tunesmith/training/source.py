"""Where a step's rows come from: a source answers `batch(step)`, and nothing about it changes during a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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


@dataclass
class Ahead:
    """A source's batches; on a GPU that of the next step is made while this one is computed there.

    Which rows a step takes depends on nothing that training does, so that the same batches come out. On a CPU there is
    nobody else to compute meanwhile.
    """

    source: FixedRows
    steps: int  # of the whole run
    _made: dict[int, list[Batch]] = field(default_factory=dict)

    def batch(self, step: int) -> list[Batch]:
        """The micro-batches of a step."""
        return self._made.pop(step) if step in self._made else self.source.batch(step)

    def prepare(self, step: int) -> None:
        """Makes those of a step, where there is a GPU and such a step."""
        if self.source.device != "cpu" and step < self.steps:
            self._made = {step: self.source.batch(step)}
