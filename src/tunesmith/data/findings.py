"""What the audit says of rows: a Finding, and rows on their way through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data.table import Table

SHOWN_PLACES = 20


@dataclass(frozen=True)
class Finding:
    """Something about the rows that the reader of a result must know. Never refused: that is a DataError."""

    kind: str
    count: int
    message: str  # one printable line, says what was done about it
    places: tuple[str, ...]  # up to 20 of "file:line"


@dataclass
class Rows:
    """One split on its way through: rows are only ever marked as dropped, so that places stay true."""

    table: Table
    texts: dict[str, list[str]]  # each column that is read as text, one value a row
    targets: list[Any]  # as the Target reads them; None where a row has none
    keys: list[str]  # rows with the same key hold the same text; "" for a row that lacks one
    kept: list[int]

    def places(self, rows: Sequence[int]) -> list[str]:
        return [self.table.place(row) for row in rows[:SHOWN_PLACES]]


def find(findings: list[Finding], kind: str, rows: dict[str, Rows], found: dict[str, list[int]], what: str) -> None:
    """Adds one finding for rows of any splits, or nothing where there are none."""
    count = sum(map(len, found.values()))
    if not count:
        return
    named = ", ".join(f"{name} {len(some)}" for name, some in found.items() if some)
    by_split = (
        f" ({named})" if len(rows) > 1 else ""
    )  # one table is still to be split: its rows are not yet those of train
    places = [place for name, some in found.items() if some for place in rows[name].places(some)][:SHOWN_PLACES]
    findings.append(Finding(kind, count, f"{counted(count)}{by_split}: {what}", tuple(places)))


def counted(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
