"""Text that is learned as it is: a model learns to say it, so it is its own target."""

from __future__ import annotations

from typing import Any, ClassVar

from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Unbalanced
from tunesmith.errors import Problems

SHOWN = 60


class PlainText(Unbalanced):
    """One text a row."""

    stratum: ClassVar[str] = "texts"

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return ["" if value is None else str(value) for value in table.columns[column]]

    def name(self, target: Any) -> str:
        return shown(target, SHOWN)
