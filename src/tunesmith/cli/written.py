"""Tables that a command writes: as CSV on standard output, or in a file of any format."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from tunesmith.cli.progress import json_line
from tunesmith.errors import ArtifactError

WRITTEN = (".csv", ".tsv", ".jsonl", ".parquet")


def csv_text(columns: dict[str, list[Any]], delimiter: str) -> str:
    """The columns as CSV, rows ended by a line feed; a missing value is an empty field, a list or an object is JSON."""
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _cell(value: Any) -> Any:
    from tunesmith.data.table import as_given

    given = as_given(value)
    return json.dumps(given, ensure_ascii=False) if isinstance(given, list | dict) else given


def write_columns(columns: dict[str, list[Any]], out: Path) -> None:
    """Writes the columns in the format of the file's suffix: whole or not at all. Raises ArtifactError."""
    unfinished = out.with_name(f".{out.name}.{os.getpid()}.unfinished")
    try:
        if out.suffix.lower() == ".parquet":
            from tunesmith.data.table import Table, write_parquet

            rows = len(next(iter(columns.values())))
            write_parquet(Table(str(out), columns, tuple(range(1, rows + 1))), unfinished)
        else:
            unfinished.write_text(_text_of(columns, out.suffix.lower()), encoding="utf-8", newline="")
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.replace(out)
    except OSError as error:
        raise ArtifactError(f"{out}: cannot be written ({error.strerror or error})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _text_of(columns: dict[str, list[Any]], suffix: str) -> str:
    from tunesmith.data.table import as_given

    if suffix == ".jsonl":
        rows = zip(*columns.values(), strict=True)
        return "".join(json_line(dict(zip(columns, map(as_given, row), strict=True))) + "\n" for row in rows)
    return csv_text(columns, "\t" if suffix == ".tsv" else ",")
