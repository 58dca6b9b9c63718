"""Table: rows by column, each with the place it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import DataError

ACCEPTED = (
    "a mapping of columns, a list of mappings, a list of (text, label) pairs, a pandas DataFrame, or a path to a file"
)


@dataclass(frozen=True)
class Table:
    """Columns of equal length. Values are str, int, float, bool, None (missing) or lists of these."""

    path: str  # where it came from, as shown in messages
    columns: dict[str, list[Any]]  # column name -> one value a row
    lines: tuple[int, ...]  # line where the record starts, or row number, in the source; both from 1

    def __len__(self) -> int:
        return len(self.lines)

    def take(self, indices: Sequence[int]) -> Table:
        """The rows at `indices`, in that order; an index may repeat."""
        columns = {name: [values[row] for row in indices] for name, values in self.columns.items()}
        return Table(self.path, columns, tuple(self.lines[row] for row in indices))

    def place(self, row: int) -> str:
        """Where row `row` (from 0) stands in its source: "train.csv:12"."""
        return f"{self.path}:{self.lines[row]}"

    def fingerprint(self) -> str:
        """sha256, in hex, of the columns in their order: names and values with their types; not of path and lines."""
        digest = hashlib.sha256()
        for name, values in self.columns.items():
            digest.update(json.dumps([name, values]).encode("ascii") + b"\n")
        return digest.hexdigest()


def table_of(values: Any, name: str) -> Table:
    """A table from Python values: what `ACCEPTED` lists, or a Table, which is returned as it is.

    `name` stands for the path in messages; lines are row numbers from 1. Missing values (None, NaN, NaT) become None,
    numpy scalars plain Python ones, dates and other objects their text. Raises DataError for anything else.
    """
    if isinstance(values, Table):
        return values
    if type(values).__module__.startswith("pandas") and type(values).__name__ == "DataFrame":
        twice = sorted({str(column) for column in values.columns[values.columns.duplicated()]})
        if twice:
            raise DataError(f"{name}: columns named more than once: {', '.join(twice)}; rename them")
        values = values.to_dict("list")
    if isinstance(values, Mapping):
        return _from_columns(values, name)
    if not isinstance(values, list | tuple):
        raise DataError(f"{name}: expected {ACCEPTED}, not {type(values).__name__}")
    if not values:
        raise DataError(f"{name}: there are no rows; give {ACCEPTED}")
    if all(isinstance(row, Mapping) for row in values):
        return from_records(values, name, range(1, len(values) + 1))
    pairs = [isinstance(row, list | tuple) and len(row) == 2 for row in values]
    if not all(pairs):
        wrong = pairs.index(False)
        raise DataError(
            f"{name}:{wrong + 1}: expected every row to be a mapping or a (text, label) pair, and this one is "
            f"{shown(values[wrong])}; give {ACCEPTED}"
        )
    columns = {"text": [row[0] for row in values], "label": [row[1] for row in values]}
    return _from_columns(columns, name)


def from_records(records: Sequence[Mapping[Any, Any]], path: str, lines: Iterable[int]) -> Table:
    """A table from one mapping a row: the columns are all keys in order of first sight; an absent key gives None."""
    names = list(dict.fromkeys(key for record in records for key in record))
    columns = {str(key): [plain(record.get(key)) for record in records] for key in names}
    return Table(path, columns, tuple(lines))


def write_parquet(table: Table, path: Path) -> None:
    """Writes the columns (not the lines). A column of mixed types is written as text: numbers as Python writes them."""
    import pyarrow
    from pyarrow import parquet

    arrays = {}
    for name, values in table.columns.items():
        try:
            arrays[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
            arrays[name] = pyarrow.array([None if value is None else str(value) for value in values], pyarrow.string())
    parquet.write_table(pyarrow.table(arrays), path)


def shown(value: Any, limit: int = 80) -> str:
    """A value as part of one printed line: white space runs as one space, control characters escaped, then cut."""
    text = " ".join(value.split()) if isinstance(value, str) else str(value)
    # A text may carry terminal codes, which must not act on the reader's screen.
    text = "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return text if len(text) <= limit else text[: limit - 3].rstrip() + "..."


def plain(value: Any) -> Any:
    """A plain Python value: numpy scalars and arrays converted; missing values None, mappings JSON, others text.

    Bytes are read as UTF-8, with \\xe9 and the like for what is not.
    """
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value).__module__ == "numpy":
        value = value.tolist()
    if isinstance(value, float):
        return None if value != value else float(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    if value is None or isinstance(value, bool | int | str):
        return value
    return None if type(value).__name__ in ("NaTType", "NAType") else str(value)


def _from_columns(values: Mapping[Any, Any], name: str) -> Table:
    columns: dict[str, list[Any]] = {}
    problems = []
    for key, column in values.items():
        if isinstance(column, str | bytes | Mapping) or not isinstance(column, Iterable):
            problems.append(
                f'{name}: column "{key}" must be a list with one value a row, not {type(column).__name__} '
                f"({shown(column, 40)}); put it in a list"
            )
        else:
            columns[str(key)] = [plain(value) for value in column]
    sizes = {key: len(column) for key, column in columns.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f'"{key}" {size}' for key, size in sizes.items())
        problems.append(f"{name}: the columns differ in length: {listed}; every column needs one value a row")
    if not values:
        problems.append(f"{name}: there are no columns; give {ACCEPTED}")
    if problems:
        raise DataError(*problems)
    rows = next(iter(sizes.values()))
    return Table(name, columns, tuple(range(1, rows + 1)))
