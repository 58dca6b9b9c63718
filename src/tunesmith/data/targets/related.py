"""Texts that belong together: a row says so by being there, and has no label beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Unbalanced
from tunesmith.errors import Problems

RELATED = "related"


class Related(Unbalanced):
    """The same for every row, so nothing has to be balanced and no two rows can contradict each other."""

    swaps: ClassVar[bool] = True
    stratum: ClassVar[str] = RELATED

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        return [RELATED] * len(table)

    def name(self, target: Any) -> str:
        return RELATED

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        """A positive that says what its anchor says teaches nothing; rows that all have one positive cannot be told apart."""
        if known is not None:
            return
        train = rows["train"]
        positives = {list(train.texts.values())[1][row] for row in train.kept}
        if len(positives) < 2:
            problems.add(
                f"{train.table.path}: every row has the same second text, so there is nothing to tell it from; name the "
                "right columns with --text and --pair"
            )
