"""Units: rows that stay on one side of every split, and the name by which each is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunesmith.data.audit import either_order, row_key
from tunesmith.data.columns import Columns
from tunesmith.data.near import grouped
from tunesmith.data.passages import PART
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.seeds import seed_of

MOST_NEAR = 0.05  # of the rows: near-duplicates that would make a larger unit, often a chain of them, are not joined
FEWEST_NEAR = 4  # rows that may be joined however few rows there are


@dataclass(frozen=True)
class Unit:
    """Rows that stay together: of one text or nearly the same one, or of one group."""

    rows: tuple[int, ...]
    labels: Counter[str]  # of the strata that its rows count for
    name: str  # from the content of one of its rows, or its group: what it is drawn by

    def draw(self, seed: int, purpose: str) -> int:
        """A number that says where the unit stands among all, whichever others there are."""
        return seed_of(seed, purpose, self.name)


@dataclass(frozen=True)
class Units:
    """The rows of a table in units, in order of their first row."""

    all: list[Unit]
    near: int = 0  # rows that are kept with others because they say nearly the same
    apart: tuple[int, ...] = ()  # rows that say nearly the same as others, and are too many to be kept with them
    crowded: bool = False  # whether so many rows are alike that not all could be compared


def units_of(table: Table, columns: Columns, target: Target, seed: int, near: bool = True, equal: bool = True) -> Units:
    """Rows of one group together; with `equal` rows of the same texts, and with `near` of nearly the same.

    Near-duplicates are joined where no unit grows beyond a twentieth of the rows, and 4 rows, by that.
    """
    strata = target.strata(table.columns[columns.label])
    keys = text_keys(table, columns, target)
    groups = group_names(table, columns)
    joined = _Joined(len(table))
    for values in [*([keys] if equal else []), groups]:
        first: dict[str, int] = {}
        for row, value in enumerate(values):
            if value:
                joined.join([first.setdefault(value, row), row])
    together, apart, crowded = _join_near(joined, read_texts(table, columns, target), keys) if near else (0, (), False)
    names = [group or key for group, key in zip(groups, keys, strict=True)]
    return Units(
        [
            # The least of its rows' draws names a unit: a row that joins it seldom gives it another name.
            Unit(
                rows,
                Counter(stratum for row in rows for stratum in strata[row]),
                min((names[row] for row in rows), key=lambda name: (seed_of(seed, "unit", name), name)),
            )
            for rows in joined.parts()
        ],
        together,
        apart,
        crowded,
    )


def read_texts(table: Table, columns: Columns, target: Target) -> list[tuple[str, ...]]:
    """The texts of each row, two of them in one order where the target reads them in either."""
    rows = list(zip(*(table.columns[name] for name in columns.texts), strict=True))
    return [tuple(sorted(row)) if target.swaps and len(row) == 2 else row for row in rows]


def text_keys(table: Table, columns: Columns, target: Target) -> list[str]:
    """For each row what it shares with rows of the same texts."""
    keys = [row_key(row) for row in zip(*(table.columns[name] for name in columns.texts), strict=True)]
    return [either_order(key) for key in keys] if target.swaps else keys


def group_names(table: Table, columns: Columns) -> list[str]:
    """The group of each row; "" for none."""
    if columns.group is None:
        return [""] * len(table)
    return ["" if value is None else f"{value}" for value in table.columns[columns.group]]


def groups_of_rows(table: Table, columns: Columns) -> list[int] | None:
    """The group of each row, numbered; None where there are none. A row of no group is one by itself.

    Parts of texts that nobody grouped (`PART`) are no groups, nor are rows that say nearly the same.
    """
    if columns.group in (None, PART) or columns.group not in table.columns:
        return None
    number: dict[str | int, int] = {}
    names = [name or row for row, name in enumerate(group_names(table, columns))]
    return [number.setdefault(name, len(number)) for name in names]


class _Joined:
    """Rows in parts, that grow by joining."""

    def __init__(self, rows: int) -> None:
        self._parent = list(range(rows))
        self.size = [1] * rows  # of the part of a row that stands for its part

    def root(self, row: int) -> int:
        """The row that stands for its part."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, rows: Iterable[int]) -> None:
        first, *others = sorted({self.root(row) for row in rows})
        for other in others:
            self._parent[other] = first
            self.size[first] += self.size[other]

    def parts(self) -> list[tuple[int, ...]]:
        """In order of their first rows."""
        found: dict[int, list[int]] = {}
        for row in range(len(self._parent)):
            found.setdefault(self.root(row), []).append(row)
        return [tuple(rows) for rows in found.values()]


def _join_near(joined: _Joined, texts: Sequence[tuple[str, ...]], keys: list[str]) -> tuple[int, tuple[int, ...], bool]:
    """How many rows were joined with others, those that would have made too large a part, and whether all were compared."""
    most = max(FEWEST_NEAR, int(MOST_NEAR * len(texts)))
    together, apart = 0, []
    groups, crowded = grouped(texts)
    # In an order of the texts themselves: that of the rows must not decide which of two groups is the one too many.
    for group in sorted(groups, key=lambda group: min(keys[row] for row in group)):
        roots = {joined.root(row) for row in group}
        if len(roots) > 1 and sum(joined.size[root] for root in roots) > most:
            apart += group
        elif len(roots) > 1:
            joined.join(roots)
            together += len(group)
    return together, tuple(sorted(apart)), crowded
