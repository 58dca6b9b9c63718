"""One or several numbers for each row, as scores, prices and ratings are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows, counted
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import as_list
from tunesmith.data.targets.one_class import NUMBER
from tunesmith.errors import Problems

BINS = 10  # of equal rows, so that what is held out covers the same range as what is trained on
LISTED = 10


@dataclass(frozen=True)
class Numbers(Target):
    """Finite numbers, one for each of `names`; a row that lacks one of them has no target."""

    names: tuple[str, ...]

    balance: ClassVar[str] = "stratified by value"
    swaps: ClassVar[bool] = True

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        found, wrong, sizes = [], [], []
        for row, value in enumerate(table.columns[column]):
            value = as_list(value)
            given = value if isinstance(value, list) else [value]
            missing = [item is None or item == "" for item in given]
            numbers = [None if gone else number_of(item) for item, gone in zip(given, missing, strict=True)]
            if len(given) != len(self.names):
                sizes.append(row)
            elif any(number is None and not gone for number, gone in zip(numbers, missing, strict=True)):
                wrong.append(row)
            found.append(None if None in numbers or len(given) != len(self.names) else tuple(numbers))
        if wrong:
            problems.add(
                f'{table.path}: column "{column}" holds no number in {counted(len(wrong))} ({_some(table, wrong, column)}), '
                "and numbers are learned; write them as 3 or 3.5, leave the unknown ones empty, name another column with "
                "--label, or take all as names with --task classification"
            )
        if sizes:
            problems.add(
                f'{table.path}: column "{column}" holds other than {len(self.names)} numbers in {counted(len(sizes))} '
                f"({_some(table, sizes, column)}); give these rows as many, or remove them"
            )
        return found

    def name(self, target: Any) -> str:
        return ", ".join(_digits(number) for number in target)

    def told(self, value: Any, text: str) -> Any:
        given = as_list(value)
        if not isinstance(given, list) or len(given) != len(self.names):
            return value
        items = ["(empty)" if item is None or item == "" else str(item) for item in given]
        return items[0] if len(items) == 1 else ", ".join(map(" ".join, zip(self.names, items, strict=True)))

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        return

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        if known is not None:
            return
        train = rows["train"]
        for place, name in enumerate(self.names):
            values = {train.targets[row][place] for row in train.kept}
            if len(values) == 1:
                problems.add(
                    f'{train.table.path}: column "{name}" holds one number only ({values.pop():g}), so there is nothing to '
                    "learn; name the right column by --label"
                )

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        first: dict[Any, int] = {}  # equal targets are of one bin, whatever the order of their rows
        for rank, target in enumerate(sorted(targets)):
            first.setdefault(target, rank)
        bins = min(BINS, max(1, len(targets) // BINS))
        return [(f"bin {first[target] * bins // len(targets):02d}",) for target in targets]


def number_of(value: Any) -> float | None:
    """A finite number, or a text that is one; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and not NUMBER.fullmatch(value.strip()):
        return None
    try:
        found = float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return None
    return found if math.isfinite(found) else None


def _digits(number: float) -> str:
    """The shortest text that reads back as this number."""
    whole = number + 0.0  # -0.0 equals 0.0, and so must their names
    short = f"{whole:g}"
    return short if float(short) == whole else repr(whole)


def _some(table: Table, rows: list[int], column: str) -> str:
    said = [f'{table.place(row)} "{shown(table.columns[column][row], 30)}"' for row in rows[:LISTED]]
    return ", ".join(said) + (", ..." if len(rows) > LISTED else "")
