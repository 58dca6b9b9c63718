"""Training rows that stand in windows, several in one: whether they may, in how many, and which rows a window holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.encode import Example
from tunesmith.data.packing import PackedExamples, packed
from tunesmith.data.table import Table
from tunesmith.tasks.base import Task

if TYPE_CHECKING:
    from tunesmith.models.network import Network


@dataclass(frozen=True)
class Packing:
    """How the training rows stand in windows."""

    windows: PackedExamples | None  # None where each row is read alone
    said: str  # in how many, or why not; "" where nobody asked


def packing_of(task: Task, rows: Sequence[Example], limit: int, network: Network, alone: bool) -> Packing:
    """The training rows with several in one window, where the task asks for it and the base keeps them apart.

    alone: whether the method puts something before each text that stands before the first of a window only.
    """
    from tunesmith.models.language import can_pack

    if not task.packs():
        return Packing(None, "")
    if alone:
        return Packing(
            None, "not packed: what is learned to stand before a text would stand before one of a window alone"
        )
    if not can_pack(network, limit):
        return Packing(None, "not packed: this base does not keep two rows in one window apart")
    found = packed(rows, limit)
    said = f"{len(rows):,} rows in {len(found):,} windows of {limit} tokens at most, each row as if alone"
    return Packing(found, said)


def place(table: Table, examples: Sequence[Example], windows: PackedExamples | None, row: int) -> str:
    """Where a row that is trained on stands in its table; of a window of several, where each of them does."""
    sources = (examples[row].source,) if windows is None else windows.sources_of(row)
    return ", ".join(map(table.place, sources))
