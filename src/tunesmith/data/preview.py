"""What was read, for the eye: a wrong column or delimiter shows in three rows."""

from __future__ import annotations

from tunesmith.data.columns import Columns
from tunesmith.data.table import Table, shown


def three_rows(table: Table, columns: Columns) -> list[str]:
    """The first, middle and last row as printable lines: place, label, and each text cut to 80 characters."""
    rows = sorted({0, len(table) // 2, len(table) - 1}) if len(table) else []
    texts, labels = [table.columns[name] for name in columns.texts], table.columns[columns.label]
    return [
        f"{table.place(row)}  [{shown(labels[row], 40)}]  {'  |  '.join(shown(column[row]) for column in texts)}"
        for row in rows
    ]
