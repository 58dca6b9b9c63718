"""Rows by time: when each is from, and the newest held out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from tunesmith.data.findings import counted
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.numbers import number_of
from tunesmith.errors import DataError, Problems, did_you_mean

MONTH = re.compile(r"\d{4}-\d{2}")
LISTED = 10
WRITE = "write dates as 2024-05-31 or 2024-05-31T14:00:00+02:00, or numbers such as years or seconds"


@dataclass(frozen=True)
class Times:
    """When each row of a table is from."""

    ranks: list[int | None]  # rows of one instant have the same; the oldest 0; None for a row without a time
    written: list[str]  # of each rank, as its first row has it


def times_of(table: Table, column: str) -> Times:
    """The instants of a column of ISO 8601 dates, datetimes or months, or of numbers, of which more is later.

    A datetime without a zone is compared with others without one. Raises DataError, with the rows, for values that are
    neither, and where dates stand beside numbers, or zones beside none.
    """
    if column not in table.columns:
        near = did_you_mean(column, table.columns)
        raise DataError(f'{table.path}: there is no column "{column}" (asked for as the time); {near}')
    values = [None if value is None or value == "" else value for value in table.columns[column]]
    read = [None if value is None else _instant(value) for value in values]
    problems = Problems()
    unread = [row for row, value in enumerate(values) if value is not None and read[row] is None]
    if unread:
        said = "holds what is no time"
        problems.add(f'{table.path}: column "{column}" {said} in {_named(table, values, unread)}; {WRITE}')
    kinds = {"numbers": [], "dates with a time zone": [], "dates without one": []}
    for row, instant in enumerate(read):
        if instant is not None:
            zoned = isinstance(instant, datetime) and instant.tzinfo is not None
            kind = "numbers" if isinstance(instant, float) else f"dates with{' a time zone' if zoned else 'out one'}"
            kinds[kind].append(row)
    there = [f"{kind} in {_named(table, values, rows, 3)}" for kind, rows in kinds.items() if rows]
    if len(there) > 1:
        problems.add(
            f'{table.path}: column "{column}" holds {", and ".join(there)}, which have no order; write all alike'
        )
    if not any(kinds.values()) and not unread:
        problems.add(
            f'{table.path}: column "{column}" is empty in every row, so no row is newer than another; name another'
        )
    problems.raise_as(DataError)
    first: dict[Any, Any] = {}
    for value, instant in zip(values, read, strict=True):
        if instant is not None:
            first.setdefault(instant, value)
    order = sorted(first)
    rank = {instant: place for place, instant in enumerate(order)}
    ranks = [None if instant is None else rank[instant] for instant in read]
    return Times(ranks, [str(first[instant]) for instant in order])


def _instant(value: Any) -> float | datetime | None:
    """None for what is no time."""
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    number = number_of(value)
    if number is not None or not isinstance(value, str):
        return number
    text = value.strip()
    try:
        return datetime.fromisoformat(f"{text}-01" if MONTH.fullmatch(text) else text)
    except ValueError:
        return None


def _named(table: Table, values: Sequence[Any], rows: list[int], most: int = LISTED) -> str:
    places = ", ".join(f"{table.place(row)} {shown(values[row], 40)}" for row in rows[:most])
    return f"{counted(len(rows))} ({places}{', ...' if len(rows) > most else ''})"


def newest(ranks: Sequence[int], asked: dict[str, float]) -> list[str]:
    """The side of each row, by its rank: the newest for the first side asked for, those before for the next, the rest train.

    A side takes whole instants, as many as bring it nearest to its share of the rows and one at least, while one is left
    for every side that follows and for train. It gets none where there are too few.
    """
    sizes = Counter(ranks)
    order = sorted(sizes, reverse=True)
    side_of: dict[int, str] = dict.fromkeys(order, "train")
    start = 0
    for place, (side, share) in enumerate(asked.items()):
        most = len(order) - start - (len(asked) - place)  # instants that it may take
        wanted, have, end = max(1, round(share * len(ranks))), 0, start
        while end < start + most and (end == start or abs(have + sizes[order[end]] - wanted) < abs(have - wanted)):
            have += sizes[order[end]]
            side_of[order[end]] = side
            end += 1
        start = end
    return [side_of[rank] for rank in ranks]
