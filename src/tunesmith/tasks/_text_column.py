"""The one column of texts, for tasks that have no label."""

from __future__ import annotations

from tunesmith.data.columns import Asked, find_text
from tunesmith.data.passages import PART, TEXT
from tunesmith.data.table import Table


def text_column(table: Table, asked: Asked) -> tuple[str, str]:
    """Its name and why. Raises DataError where a named one is absent, and where looking finds none or several."""
    if asked.text is not None:
        return find_text(table, asked.text, ""), "named"
    if PART in table.columns:
        return TEXT, "the passages of plain text"
    return find_text(table, None, "text"), "found by looking"
