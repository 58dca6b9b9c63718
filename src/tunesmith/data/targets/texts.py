"""Texts to be written: each is learned as it is, and one input may have several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows, find
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.errors import Problems


class Texts(Target):
    """One text a row."""

    balance: ClassVar[str] = "at random"

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return [None if value is None or value == "" else str(value) for value in table.columns[column]]

    def name(self, target: Any) -> str:
        return str(target)

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        numbers, same = {}, {}
        for name, split in rows.items():
            raw, texts = split.table.columns[column], next(iter(split.texts.values()))
            numbers[name] = [row for row, value in enumerate(raw) if isinstance(value, int | float)]
            same[name] = [
                row
                for row, target in enumerate(split.targets)
                if target is not None and target.split() == texts[row].split()
            ]
        find(findings, "number_target", rows, numbers, f'"{column}" holds a number, taken as its text')
        find(findings, "copied", rows, same, f'"{column}" is the very text that is read')

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        return

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [("texts",)] * len(targets)  # all alike

    def disagree(self, targets: Sequence[Any]) -> bool:
        return False
