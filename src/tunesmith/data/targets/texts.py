"""Texts to be written: each is learned as it is, and one input may have several."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows, find
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Unbalanced
from tunesmith.errors import Problems


class Texts(Unbalanced):
    """One text a row."""

    stratum: ClassVar[str] = "texts"

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
