"""How the values of a label column are read, checked, and kept in balance between the splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows
from tunesmith.data.table import Table
from tunesmith.errors import Problems


class Target(ABC):
    """One kind of thing to learn. A subclass is final, and knows nothing of models."""

    balance: ClassVar[str]  # how rows are held out, in words: "stratified by label"
    # Whether the strata are classes: what no training row has, no model can say. "" is none.
    classes: ClassVar[bool] = False
    words: ClassVar[bool] = False  # whether a row's text may be a list of words
    pictures: bool = False  # whether a row's text is the name of a picture
    # Whether a row with two texts says nearly all that it says with them swapped, so that both must stand on one side.
    swaps: ClassVar[bool] = False

    @abstractmethod
    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        """The column's values, each in one form however it was written; None for a row that has none.

        What cannot be read at all is added to `problems`, with the rows, and is None too.
        """

    def located(
        self, table: Table, column: str, texts: Sequence[str], targets: Sequence[Any], problems: Problems
    ) -> list[Any]:
        """What `read` gave, held against the text of each row by a target that speaks of places in it."""
        return list(targets)

    @abstractmethod
    def name(self, target: Any) -> str:
        """A target as short text; equal targets have equal names."""

    def told(self, value: Any, text: str) -> Any:
        """A raw value of the label column as a person would write it, beside its row's text; most are as they are."""
        return value

    @abstractmethod
    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        """Adds what was put right in reading the raw values of every split."""

    @abstractmethod
    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        """Adds what nothing can be learned from, and what the reader of a result must know.

        `known` names the outputs of a finished model where `rows` are only to be measured on; None where they train.
        """

    @abstractmethod
    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        """For each of a table's rows the classes that it counts for when rows are held out; none for no balance."""

    def disagree(self, targets: Sequence[Any]) -> bool:
        """Whether rows of one text contradict each other."""
        return len({self.name(target) for target in targets}) > 1


class Unbalanced(Target, ABC):
    """Rows that all count alike when some are held out, and of which no two can contradict each other."""

    balance: ClassVar[str] = "at random"
    stratum: ClassVar[str]  # what all rows are of; with the seed it decides which of them are held out

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
        return [(self.stratum,)] * len(targets)

    def disagree(self, targets: Sequence[Any]) -> bool:
        return False
