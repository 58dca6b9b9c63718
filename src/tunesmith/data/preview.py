"""What was read, for the eye: a wrong column or delimiter shows in three rows."""

from __future__ import annotations

from typing import Any

from tunesmith.data.columns import Columns
from tunesmith.data.table import Table, shown


def three_rows(table: Table, columns: Columns) -> list[str]:
    """The first, middle and last row as printable lines: place, label, and each text cut to 80 characters."""
    rows = sorted({0, len(table) // 2, len(table) - 1}) if len(table) else []
    texts, labels = [table.columns[name] for name in columns.texts], table.columns[columns.label]
    return [
        f"{table.place(row)}  [{_joined(labels[row], columns, 40)}]  "
        f"{'  |  '.join(_joined(column[row], columns, 80) for column in texts)}"
        for row in rows
    ]


def _joined(value: Any, columns: Columns, limit: int) -> str:
    """Words, and the tags beside them, with spaces between."""
    listed = columns.words and isinstance(value, list)
    return shown(" ".join(map(str, value)) if listed else value, limit) or "(empty)"
