"""Where a step's rows come from: a source answers `batch(step)`, and nothing about it changes during a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tunesmith.data.encode import Batch, Example, collate
from tunesmith.data.order import Order, split_evenly

# With filler, in one forward and backward of training. MiniLM, full, 512 tokens, one core with AMX: 344 CPU ms a row in 32
# rows at once, which peak at 7.4 GB, and 225 in 4, which peak at 2.2; at 128 tokens the same time (docs/log.md).
CPU_TOKENS = 2_048


@dataclass(frozen=True)
class FixedRows:
    """The rows of a training split, in the order that (seed, step) gives."""

    examples: Sequence[Example]
    order: Order
    micro_batch: int
    pad: dict[str, int]
    device: str
    vary: Callable[[Batch, int], Batch] | None = None  # (rows, epoch) -> the rows as this epoch sees them
    at_once: int | None = None  # tokens with filler that a micro-batch holds at most, but for one row; None: any number

    def batch(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step."""
        rows = self.order.batch(step)
        found = [collate([self.examples[row] for row in part], self.pad, self.device) for part in self.parts(rows)]
        epoch = self.order.epoch_of(step)
        return found if self.vary is None else [self.vary(batch, epoch) for batch in found]

    def parts(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """The rows of one step, as they are computed together; where they are too long, in parts of about as many rows."""
        size = self.micro_batch
        if self.at_once is not None:
            fitting = max(1, self.at_once // max(self.order.lengths[row] for row in rows))
            if fitting < size:
                size = -(-len(rows) // -(-len(rows) // fitting))
        return split_evenly(rows, size)

    @property
    def divides(self) -> bool:
        """Whether some micro-batch has fewer rows because they are long."""
        return self._too_long and len(self.parts(self._ranked[: self.micro_batch])) > 1

    @property
    def several(self) -> bool:
        """Whether a step may take more than one micro-batch."""
        return self._too_long or self.order.most_rows > self.micro_batch

    @property
    def longest_rows(self) -> Sequence[int]:
        """The rows of `longest`."""
        rows = self._ranked[: self.micro_batch]
        return rows if self.at_once is None else rows[: -(-self.at_once // self.order.lengths[rows[0]])]

    def longest(self) -> Batch:
        """A micro-batch that needs at least the memory of any."""
        return collate([self.examples[row] for row in self.longest_rows], self.pad, self.device)

    @property
    def _too_long(self) -> bool:
        return self.at_once is not None and self.order.most_tokens > self.at_once

    @cached_property
    def _ranked(self) -> Sequence[int]:
        return self.order.longest()


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


def tokens_at_once(device: str, pad: dict[str, int]) -> int | None:
    """Tokens above which a micro-batch is divided: of texts on a CPU; a GPU takes as many as fit."""
    return CPU_TOKENS if device == "cpu" and "input_ids" in pad else None
