"""Activations as they are read, batch by batch: into memory or into a file, and apart again by row."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example
from tunesmith.phases import Time
from tunesmith.training.shelf import writing

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

PROOFS = 8  # rows, spread over all, computed again before what was kept is used
# Of the length of a row's values, how far those of another batch may be: matrix products of other shapes round otherwise,
# and bfloat16 has three digits.
APART = {"float64": 1e-6, "float32": 1e-4, "float16": 0.02, "bfloat16": 0.06}
TOGETHER = 1_000  # places written at once

if TYPE_CHECKING:
    # Of each batch the places, and what is read of each. To be closed: while it runs the network may be in another form.
    Parts = Generator[tuple[list[int], Sequence[Tensor] | Tensor]]


@dataclass(frozen=True)
class Reading:
    """What is read of rows, by which part of a network."""

    network: Network
    name: str  # tells apart what else is read by the same part
    spared: tuple[str, ...]  # names of the parts that are not used
    settings: Sequence[Any]  # what else decides the numbers, as plain data
    parts: Callable[[Sequence[Example]], Parts]
    # How many vectors each place has; None where a place has one item, of a shape that all have.
    sizes: Callable[[Sequence[Example]], list[int]] | None = None
    sides: int = 1  # places of each row: those of all second texts follow all first ones

    def nbytes(self, values: Tensor | list[Tensor]) -> int:
        return sum(value.nbytes for value in values) if isinstance(values, list) else values.nbytes


def one_each(parts: Parts, places: int) -> Tensor:
    """[places, ...]: what is read of each, in memory."""
    import torch

    out = None
    with closing(parts):
        for rows, values in parts:
            found = values if isinstance(values, torch.Tensor) else torch.stack(list(values))
            if out is None:
                out = torch.zeros(places, *found.shape[1:], dtype=found.dtype)
            out[rows] = found
    assert out is not None, "no rows to read"
    return out


def many_each(parts: Parts, places: int) -> list[Tensor]:
    """What is read of each place, [vectors, width], in memory."""
    import torch

    kept: list[Tensor] = [torch.empty(0)] * places
    with closing(parts):
        for rows, values in parts:
            for row, value in zip(rows, values, strict=True):
                kept[row] = value.clone()  # not a view of the batch
    return kept


def collected(reading: Reading, examples: Sequence[Example]) -> Tensor | list[Tensor]:
    """All of it in memory: [places, ...], or of each place [vectors, width]."""
    places = len(examples) * reading.sides
    return (one_each if reading.sizes is None else many_each)(reading.parts(examples), places)


def streamed(reading: Reading, examples: Sequence[Example], path: Path) -> None:
    """The same into a file, with one batch in memory. Raises OSError where it cannot be written."""
    places = len(examples) * reading.sides
    sizes = [1] * places if reading.sizes is None else reading.sizes(examples)
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    with closing(reading.parts(examples)) as parts, ExitStack() as stack:
        put: Callable[[int, Tensor], None] | None = None
        for rows, values in parts:
            if put is None:
                shape = tuple(values[0].shape) if reading.sizes is None else tuple(values[0].shape[1:])
                put = stack.enter_context(writing(path, (starts[-1], *shape), values[0].dtype))
            for row, value in zip(rows, values, strict=True):
                put(starts[row], value)


def write(path: Path, values: Tensor | list[Tensor], took: Time) -> None:
    """What was collected, into a file. Raises OSError where it cannot be written."""
    import torch

    first = values[0]
    shape = tuple(values.shape) if isinstance(values, torch.Tensor) else (sum(map(len, values)), *first.shape[1:])
    with writing(path, shape, first.dtype, took) as put:
        start = 0
        for place in range(0, len(values), TOGETHER):
            some = values[place : place + TOGETHER]
            flat = torch.cat(some) if isinstance(some, list) else some
            put(start, flat)
            start += len(flat)


def by_place(reading: Reading, examples: Sequence[Example], flat: Tensor) -> Tensor | list[Tensor]:
    """What a file holds as `collected` gave it. Raises ValueError where it is of other rows."""
    if reading.sizes is None:
        if len(flat) != len(examples) * reading.sides:
            raise ValueError("holds another number of rows")
        return flat
    sizes = reading.sizes(examples)
    if sum(sizes) != len(flat):
        raise ValueError("holds another number of tokens")
    return list(flat.split(sizes))


def agrees(reading: Reading, examples: Sequence[Example], values: Tensor | list[Tensor]) -> bool:
    """Whether eight rows, computed again, are what `values` say of them, but for the rounding of another batch."""
    import torch

    count = len(examples)
    chosen = sorted({place * (count - 1) // max(1, PROOFS - 1) for place in range(PROOFS)})
    few = [replace(examples[place], row=row) for row, place in enumerate(chosen)]
    again = collected(reading, few)
    apart = APART.get(str(reading.network.sample.dtype).removeprefix("torch."), max(APART.values()))
    for side in range(reading.sides):
        for row, place in enumerate(chosen):
            mine = again[row + side * len(few)].double()
            theirs = values[examples[place].row + side * count].double()
            if mine.shape != theirs.shape or not torch.isfinite(theirs).all():
                return False
            if float((mine - theirs).norm()) > apart * float(mine.norm()):
                return False
    return True
