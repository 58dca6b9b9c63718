"""What an examination is given, and what it gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Text
from tunesmith.data.findings import SHOWN_EXAMPLES, Finding, Instance, counted, instance
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import LabelSet
from tunesmith.data.targets.one_class import OneClass
from tunesmith.preparing import SPLITS, Encoded, Prepared, texts_of

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.processor import Processor


class Row(NamedTuple):
    """A row of a split's table, from 0."""

    split: str
    row: int


@dataclass(frozen=True)
class Material:
    """Cleaned rows, split by split, and what is known of them by now."""

    target: Target
    columns: Columns
    tables: Mapping[str, Table]  # only those with rows
    given: frozenset[str]  # splits that nobody drew at random: files of their own, or later in time
    seed: int = 0
    encoded: Encoded | None = None
    processor: Processor | None = None  # by which they were encoded
    # Split -> [rows, width]: what a frozen base makes of each row of its table.
    features: Mapping[str, np.ndarray] | None = None

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        encoded: Encoded | None = None,
        processor: Processor | None = None,
        features: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
    ) -> Material:
        """`given` are the tables that were files of their own, or, where rows are split by time, all."""
        tables = {name: prepared.table(name) for name in SPLITS if len(prepared.table(name))}
        apart = prepared.splits.given if prepared.columns.time is None else frozenset(tables) - {"train"}
        return cls(prepared.target, prepared.columns, tables, apart, seed, encoded, processor, features)

    @cached_property
    def rows(self) -> list[Row]:
        """Those of all splits, one after the other."""
        return [Row(name, row) for name, table in self.tables.items() for row in range(len(table))]

    @cached_property
    def texts(self) -> list[Text]:
        """What is read of each of `rows`."""
        return [text for table in self.tables.values() for text in texts_of(table, self.columns)]

    @property
    def pictures(self) -> bool:
        return self.target.pictures

    def truth(self, split: str) -> list[Any]:
        return self.tables[split].columns[self.columns.label]

    def labels(self, split: str) -> list[tuple[str, ...]]:
        """Of each row the classes that it is labelled with. Empty where targets are no names of classes."""
        if isinstance(self.target, OneClass):
            return [(name,) for name in self.truth(split)]
        return list(self.truth(split)) if isinstance(self.target, LabelSet) else []

    @property
    def one_class(self) -> bool:
        return isinstance(self.target, OneClass)

    @property
    def names(self) -> list[str]:
        """Columns of the source, in their order; not those that a task made, whose names stand in parentheses."""
        every = dict.fromkeys(name for table in self.tables.values() for name in table.columns)
        return [name for name in every if not (name.startswith("(") and name.endswith(")"))]

    def place(self, row: Row) -> str:
        return self.tables[row.split].place(row.row)

    def text(self, row: Row) -> Text:
        columns = [self.tables[row.split].columns[name][row.row] for name in self.columns.texts]
        return columns[0] if len(columns) == 1 else tuple(columns)

    def example(self, row: Row, detail: str = "") -> Instance:
        return instance(self.place(row), self.text(row), detail)

    def finding(self, kind: str, rows: Sequence[Row], what: str, advice: str, details: Sequence[str] = ()) -> Finding:
        """One about `rows`, the plainest first; `details` says what is wrong with each, or at least the first few."""
        places = tuple(self.place(row) for row in rows)
        said = [*details[:SHOWN_EXAMPLES], *[""] * SHOWN_EXAMPLES]
        examples = tuple(self.example(row, detail) for row, detail in zip(rows[:SHOWN_EXAMPLES], said, strict=False))
        return Finding(kind, len(rows), f"{self.counted(rows)}: {what}", places, examples, advice)

    def counted(self, rows: Sequence[Row]) -> str:
        """ "12 rows (train 10, test 2)"."""
        if len(self.tables) < 2:
            return counted(len(rows))
        number = Counter(row.split for row in rows)
        return f"{counted(len(rows))} ({', '.join(f'{name} {number[name]}' for name in self.tables if number[name])})"


@dataclass(frozen=True)
class Examined:
    """What one examination came to."""

    name: str  # of its file
    said: str  # one line: what was looked at and what it came to, or why nothing was
    findings: tuple[Finding, ...] = ()
    done: bool = True  # False where it does not apply, or lacks something; `said` gives the reason
    applies: bool = True  # False where there is nothing to look at in rows of this kind
    marks: Mapping[Row, str] = field(default_factory=dict)  # what is doubtful about rows, of all of them
    suggested: Mapping[Row, str] = field(default_factory=dict)  # labels that rows may rather have


def not_done(name: str, why: str, applies: bool = True) -> Examined:
    return Examined(name, why, (), False, applies)
