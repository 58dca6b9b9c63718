"""What the audit says of rows: a Finding, and rows on their way through it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.data.table import Table, shown

SHOWN_PLACES = 20
SHOWN_EXAMPLES = 3
SHOWN_LETTERS = 80  # of the text of an example


@dataclass(frozen=True)
class Instance:
    """One of the rows, or columns, that a finding is about."""

    place: str  # "train.csv:12"; of a column its name
    text: str  # shortened, printable
    detail: str = ""  # what is wrong with this one


@dataclass(frozen=True)
class Finding:
    """Something about the rows that the reader of a result must know. Never refused: that is a DataError."""

    kind: str
    count: int
    message: str  # one printable line, says what was done about it
    places: tuple[str, ...]  # "file:line" of each row
    examples: tuple[Instance, ...] = ()  # up to 3, the plainest first
    advice: str = ""  # one printable line: what can be done
    numbers: Mapping[str, float] = field(default_factory=dict)  # figures of the message that advice is made of

    def brief(self) -> dict[str, Any]:
        """As plain data with the first 20 places: a report is read by people, and a finding may be about every row."""
        return {**asdict(self), "places": self.places[:SHOWN_PLACES]}


@dataclass
class Rows:
    """One split on its way through: rows are only ever marked as dropped, so that places stay true."""

    table: Table
    texts: dict[str, list[str]]  # each column that is read as text, one value a row
    targets: list[Any]  # as the Target reads them; None where a row has none
    keys: list[str]  # rows with the same key hold the same text; "" for a row that lacks one
    kept: list[int]

    def places(self, rows: Sequence[int]) -> list[str]:
        return [self.table.place(row) for row in rows]

    def example(self, row: int) -> Instance:
        texts = tuple(texts[row] for texts in self.texts.values())
        return instance(self.table.place(row), texts, _told(self.targets[row]))


def _told(target: Any) -> str:
    """A target of plain values as text: a class, labels, numbers; "" for what takes more to say."""
    if isinstance(target, tuple) and all(isinstance(part, str | int | float) for part in target):
        return " + ".join(map(str, target))
    return target if isinstance(target, str) else ""


def instance(place: str, text: Any, detail: str = "") -> Instance:
    """One with its text, or the several texts of a row, made short and printable."""
    whole = " / ".join(map(str, text)) if isinstance(text, tuple) else text
    return Instance(place, shown(whole, SHOWN_LETTERS), shown(detail, 2 * SHOWN_LETTERS))


def find(
    findings: list[Finding],
    kind: str,
    rows: dict[str, Rows],
    found: dict[str, list[int]],
    what: str,
    advice: str = "",
) -> None:
    """Adds one finding for rows of any splits, or nothing where there are none."""
    count = sum(map(len, found.values()))
    if not count:
        return
    named = ", ".join(f"{name} {len(some)}" for name, some in found.items() if some)
    # One table is still to be split: its rows are not yet those of train.
    by_split = f" ({named})" if len(rows) > 1 else ""
    places = [place for name, some in found.items() if some for place in rows[name].places(some)]
    examples = [rows[name].example(row) for name, some in found.items() for row in some[:SHOWN_EXAMPLES]]
    message = f"{counted(count)}{by_split}: {what}"
    findings.append(Finding(kind, count, message, tuple(places), tuple(examples[:SHOWN_EXAMPLES]), advice))


def counted(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
