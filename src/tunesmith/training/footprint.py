"""How much memory a batch will take, told from two of its rows and from three, without running the batch."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from tunesmith.data.encode import Batch

# What the tensors do not show: freed memory that the C library keeps. With MiniLM resident memory grew by 1.10 to 1.27
# times the tensors' own where these took 1 GB or more, and by 1.00 to 1.05 times where the library kept nothing.
UNSEEN = 1.3


class Footprint:
    """Bytes that a training pass over some rows holds at once, beside what was there before it.

    `work` is a forward and backward that leaves no gradient behind. It is run on two rows of the longest batch's length:
    what they take, times rows / 2, is never too little for two rows or more. Where that bound decides nothing, three rows
    tell what grows with the rows (activations) from what does not (gradients of the weights). The two have their peaks at
    different moments, so both passes are kept as they went: moment by moment `two + (rows - 2) * (three - two)`, and of
    these the largest. One row alone would mislead: a model takes shorter ways for it.
    """

    def __init__(self, work: Callable[[Batch], object], longest: Batch, in_parts: bool = False) -> None:
        """`in_parts`: whether the loss is taken in parts (`LazyLogits`), of which more rows have more."""
        self._work, self._longest, self._in_parts = work, longest, in_parts
        self._two = _bytes_alive(work, _first(longest, 2))
        self._three: list[int] | None = None

    def bound(self, rows: int) -> int:
        """Bytes, at least what so many rows take."""
        return int(UNSEEN * max(self._two, default=0) * max(rows, 2) / 2)

    def bytes(self, rows: float) -> int:
        """Bytes that so many rows take; half a row stands for one of half the length."""
        if self._three is None:
            self._three = _bytes_alive(self._work, _first(self._longest, 3))
        less, more = self._two, self._three
        if len(less) != len(more) and not self._in_parts:  # another way through the model for more rows
            return self.bound(math.ceil(rows))
        behind = _grown(less[::-1], more[::-1], rows)[::-1]
        return int(UNSEEN * _joined(_grown(less, more, rows), behind))


def _grown(less: list[int], more: list[int], rows: float) -> list[float]:
    """Moment by moment what so many rows take, by what two and three do."""
    return [two + (rows - 2) * (three - two) for two, three in zip(less, more, strict=False)]


def _joined(before: list[float], behind: list[float]) -> float:
    """The largest of two courses, the first taken up to the moment from which the second goes on: where that is least.

    Moments before the parts of a loss are alike counted from the start, those behind them counted from the end. Taken for one
    another they differ by whole parts, which only makes the largest larger.
    """
    so_far = list(accumulate(before, max, initial=0.0))
    to_come = list(accumulate(reversed(behind), max, initial=0.0))[::-1]
    return min(max(pair) for pair in zip(so_far, to_come, strict=True))


def _first(batch: Batch, rows: int) -> Batch:
    """Its first rows and the shortest of all, repeated where more are asked for than there are.

    Without the filler of the shortest a model would need no mask, and go another way than with the whole batch.
    """
    import torch

    chosen = [row % len(batch.rows) for row in range(rows)]
    if rows < len(batch.rows):
        mask = batch.inputs.get("attention_mask")
        chosen[-1] = len(batch.rows) - 1 if mask is None else int(mask[: len(batch.rows)].sum(1).argmin())
    index = torch.tensor(chosen)
    inputs = {}
    for name, values in batch.inputs.items():
        sides = len(values) // len(batch.rows)  # of two texts read apart, all first ones come before all second ones
        both = torch.cat([index + side * len(batch.rows) for side in range(sides)])
        inputs[name] = values[both.to(values.device)]
    target = None if batch.target is None else batch.target[index.to(batch.target.device)]
    return Batch(tuple(batch.rows[row] for row in chosen), inputs, target)


def _bytes_alive(work: Callable[[Batch], object], batch: Batch) -> list[int]:
    """After each operation, the bytes of all storages that operations have made and that are still there."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    alive: dict[int, int] = {}  # identity of a storage -> its bytes
    course: list[int] = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            known = {id(storage) for storage in _storages(tree_leaves((args, kwargs)))}
            out = func(*args, **({} if kwargs is None else kwargs))
            for storage in _storages(tree_leaves(out)):
                if id(storage) not in known and id(storage) not in alive:
                    alive[id(storage)] = storage.nbytes()
                    weakref.finalize(storage, alive.pop, id(storage), None)
            course.append(sum(alive.values()))
            return out

    with Watching():
        work(batch)
    return course


def _storages(values: list[Any]) -> list[Any]:
    from torch import Tensor

    return [value.untyped_storage() for value in values if isinstance(value, Tensor)]
