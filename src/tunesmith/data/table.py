"""Table: rows by column, each with the place it came from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.errors import DataError

ACCEPTED = (
    "a mapping of columns, a list of mappings, a list of (text, label) pairs, a pandas DataFrame, or a path to a file"
)
LISTED = 10
AS_JSON = {b"tunesmith": b"json"}  # metadata of a Parquet column that holds each value as JSON: see `write_exact`


class JsonObject(str):
    """An object of the source as its JSON text: tasks read one form, and what is written again is the object."""

    __slots__ = ()


@dataclass(frozen=True)
class Table:
    """Columns of equal length. Values are str (an object of the source is one too), int, float, bool, None (missing) or
    lists of these."""

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
    numpy scalars plain Python ones, dates and other objects their text. Raises DataError for anything else, and for
    text with half of a surrogate pair.
    """
    return whole_characters(values if isinstance(values, Table) else _from_values(values, name))


def _from_values(values: Any, name: str) -> Table:
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


def whole_characters(table: Table) -> Table:
    """The table as it is. Raises DataError, naming the rows, for half of a surrogate pair ("\\ud83d" alone) in a text or
    in a column's name: no tokenizer and no file can hold it."""
    half = re.compile("[\ud800-\udfff]")

    def torn(value: Any) -> bool:
        if isinstance(value, list):
            return any(torn(item) for item in value)
        return isinstance(value, str) and not value.isascii() and half.search(value) is not None

    bad = sorted({row for values in table.columns.values() for row, value in enumerate(values) if torn(value)})
    names = [name for name in table.columns if torn(name)]
    if bad or names:
        places = [table.place(row) for row in bad[:LISTED]] + [f"column {name!r}" for name in names[:LISTED]]
        count = f"{len(bad)} row{'' if len(bad) == 1 else 's'}" if bad else "a column's name"
        raise DataError(
            f"{table.path}: {count} with half of a surrogate pair (\\ud800 to \\udfff alone), which is no character: "
            f"{', '.join(places)}{', ...' if len(bad) > LISTED else ''}; export or decode the text again without cutting "
            "characters in two"
        )
    return table


def write_parquet(table: Table, path: Path) -> None:
    """Writes the columns (not the lines), objects as structs. A column of mixed types is written as text: numbers as
    Python writes them, lists and objects as JSON."""
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({name: _array(values) for name, values in table.columns.items()}), path)


def _array(values: Sequence[Any]) -> Any:
    import pyarrow
    from pyarrow import parquet

    given = [as_given(value) for value in values]
    try:
        array = pyarrow.array(given)
        if pyarrow.types.is_nested(array.type):  # an object without a key makes an array that Parquet refuses
            parquet.write_table(pyarrow.table({"column": array}), pyarrow.BufferOutputStream())
        return array
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, OverflowError):
        return pyarrow.array([_as_text(value) for value in given], pyarrow.string())


def _as_text(value: Any) -> str | None:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return None if value is None else str(value)


def as_given(value: Any) -> Any:
    """A value of a table as its source has it: objects instead of their JSON."""
    if isinstance(value, JsonObject):
        return json.loads(value)
    return [as_given(item) for item in value] if isinstance(value, list) else value


def write_exact(table: Table, path: Path) -> None:
    """Writes the columns (not the lines) so that `readers.read_table` gives back every value with its type.

    A Parquet column has one type: it would give 1 beside 2.5 back as 1.0, which is the name of another class or group.
    Such a column holds its values as JSON instead, and says so in its metadata.
    """
    import pyarrow
    from pyarrow import parquet

    arrays, fields = [], []
    for name, values in table.columns.items():
        meta = None
        try:
            array = pyarrow.array(values)
            exact = json.dumps(array.to_pylist()) == json.dumps(values)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
            array, exact = None, False
        if array is None or not exact:
            array, meta = pyarrow.array([json.dumps(value) for value in values], pyarrow.string()), AS_JSON
        arrays.append(array)
        fields.append(pyarrow.field(name, array.type, metadata=meta))
    parquet.write_table(pyarrow.Table.from_arrays(arrays, schema=pyarrow.schema(fields)), path)


def shown(value: Any, limit: int = 80) -> str:
    """A value as part of one printed line: white space runs as one space, control characters escaped, then cut."""
    if isinstance(value, list) and any(isinstance(item, JsonObject) for item in value):
        value = json.dumps(as_given(value), ensure_ascii=False)
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
        return JsonObject(json.dumps(value, ensure_ascii=False, default=str))
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
