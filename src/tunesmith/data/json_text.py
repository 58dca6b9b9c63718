"""JSON lines (an object a line) and JSON: a list of objects, an object of columns, {"data": either}, or SQuAD's nesting."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.data import squad
from tunesmith.data.csv_text import LISTED, counted, decode
from tunesmith.data.table import Table, from_records, shown, table_of, whole_characters
from tunesmith.errors import DataError

A_LINE = 'one object a line, such as {"text": "...", "label": "..."}'
SHAPES = '[{"text": ..., "label": ...}, ...] or {"text": [...], "label": [...]} or {"data": either of these}'


def read_json_lines(data: bytes, path: str) -> Table:
    """A table with the union of all keys for columns; blank lines are passed over. Raises DataError on bad lines."""
    return _lines(decode(data, path, A_LINE), path)


def read_json(data: bytes, path: str) -> Table:
    """A table from one JSON value, or from JSON lines under the wrong suffix. Lines are row numbers, from 1."""
    text = decode(data, path, SHAPES)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.lstrip().startswith("{") and isinstance(_parsed(text.lstrip().split("\n", 1)[0]), dict):
            return _lines(text, path)
        place = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{place}: is not JSON ({error}); expected {SHAPES}") from None
    if value == [] or (isinstance(value, dict) and value.get("data") == [] and "text" not in value):
        raise DataError(f"{path}: holds no rows: its list is empty; expected {SHAPES}")
    if isinstance(value, dict) and isinstance(value.get("data"), list | dict) and _wraps(value):
        value = value["data"]
    if squad.is_nested(value):
        return whole_characters(squad.nested_table(value, path))
    return whole_characters(_from_value(value, path))


def _wraps(value: dict[str, Any]) -> bool:
    """Whether "data" holds the table, rather than being a column beside others or a column of plain values."""
    inner = value["data"]
    return isinstance(inner, dict) or (bool(inner) and all(isinstance(row, dict) for row in inner))


def _from_value(value: Any, path: str) -> Table:
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        return _filled(table_of(value, path))
    if isinstance(value, dict) and "text" in value and isinstance(value["text"], str):
        return from_records([value], path, [1])
    if not isinstance(value, list):
        raise DataError(f"{path}: holds {_kind(value)} where a table was expected; write {SHAPES}")
    wrong = [row for row, record in enumerate(value, 1) if not isinstance(record, dict)]
    if wrong:
        listed = ", ".join(f"{path}:{row} ({_kind(value[row - 1])})" for row in wrong[:LISTED])
        raise DataError(f"{path}: {counted(len(wrong), 'row')} not an object: {listed}; write {SHAPES}")
    return _filled(from_records(value, path, range(1, len(value) + 1)))


def _lines(text: str, path: str) -> Table:
    records, lines, bad = [], [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        value = _parsed(line)
        if isinstance(value, dict):
            records.append(value)
            lines.append(number)
        else:
            what = f"is not JSON ({value})" if isinstance(value, ValueError) else f"is {_kind(value)}, not an object"
            bad.append(f"{path}:{number}: {what}: {shown(line, 60)}")
    if bad:
        hint = "; if the file is one JSON list, give it the suffix .json" if text.lstrip()[:1] == "[" else ""
        raise DataError(
            *bad[:LISTED],
            f"{path}: {counted(len(bad), 'bad line')} in all; expected {A_LINE}{hint}",
        )
    return whole_characters(_filled(from_records(records, path, lines)))


def _parsed(line: str) -> Any:
    """The value of one line, or the error that it gives."""
    try:
        return json.loads(line)
    except ValueError as error:
        return error
    except RecursionError:
        return ValueError("nested too deeply")


def _filled(table: Table) -> Table:
    if len(table) == 0 or not table.columns:
        raise DataError(f"{table.path}: holds no rows; write {SHAPES}")
    return table


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
