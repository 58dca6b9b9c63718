"""Text that is learned as it is: a model learns to say it, so it is its own target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.errors import Problems

SHOWN = 60


class PlainText(Target):
    """One text a row."""

    balance: ClassVar[str] = "at random"

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return ["" if value is None else str(value) for value in table.columns[column]]

    def name(self, target: Any) -> str:
        return shown(target, SHOWN)

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
        return

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [("texts",)] * len(targets)  # all alike

    def disagree(self, targets: Sequence[Any]) -> bool:
        return False
