"""What was read, for the eye: a wrong column or delimiter shows in three rows."""

from __future__ import annotations

from typing import Any

from tunesmith.data.columns import Columns
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target


def three_rows(table: Table, columns: Columns, target: Target) -> list[str]:
    """The first, middle and last row as printable lines: place, label, and each text cut to 80 characters.

    The label is written as its `target` reads it, whatever lists and objects the file holds.
    """
    rows = sorted({0, len(table) // 2, len(table) - 1}) if len(table) else []
    texts, labels = [table.columns[name] for name in columns.texts], table.columns[columns.label]
    return [
        f"{table.place(row)}  [{_said(target.told(labels[row], _text(texts[0][row])), 40)}]  "
        f"{'  |  '.join(_said(_text(column[row]) if columns.words else column[row], 80) for column in texts)}"
        for row in rows
    ]


def _text(value: Any) -> str:
    """Words with spaces between, as they are read."""
    return " ".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _said(value: Any, limit: int) -> str:
    return shown("" if value is None else value, limit) or "(empty)"
