"""From a path to tables: one file, or a folder with train, validation and test files, or a hub data set name."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from tunesmith.data import conll, csv_text, json_text, passages
from tunesmith.data.hub import read_hub
from tunesmith.data.images import CLASSES, read_npz, read_picture_folder, stored
from tunesmith.data.table import AS_JSON, Table, from_records, shown
from tunesmith.errors import DataError, TunesmithWarning, did_you_mean

ROLES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
FORMATS = (
    "csv, tsv, jsonl, ndjson, json, parquet, npz (pictures), conll (a word and its tag a line), and txt or md (text)"
)
LOOSE = ".txt"  # beside other tables of a folder more often a note to the reader than a table
PROSE = (LOOSE, ".md")


def read_data(path: str) -> dict[str, Table]:
    """The tables that `path` stands for, by split: "train", "validation", "test".

    A file gives "train", unless a column called "split" says otherwise; a folder gives what its files are called
    (dev, val and valid are validation); a name of a hub data set gives its splits. Raises DataError naming what is
    wrong with the path or with every bad line of the files.
    """
    if not path.strip():
        raise DataError("data.path is empty; name a table, a folder with tables, or a hub data set")
    here = Path(path).expanduser()
    try:
        if here.is_dir():
            return _read_folder(here)
        if here.exists():
            return by_split_column(read_table(here))
    except OSError as error:
        raise DataError(f"{here}: cannot be read ({error.strerror or error}); check its permissions") from None
    if not _hub_like(path):
        raise DataError(_missing(here))
    try:
        return read_hub(path)
    except DataError as error:
        near = did_you_mean(here.name, _tables_beside(here))
        meant = [f"{path}: if a file or folder is meant, {near}"] if near.startswith("did you mean") else []
        raise DataError(*error.problems, *meant) from None


def read_table(path: Path) -> Table:
    """The rows of one file, by its suffix. Raises DataError naming every bad line."""
    read = _readers().get(path.suffix.lower())
    if path.is_dir():
        raise DataError(f"{path}: is a folder where a file was expected; name a file in it")
    if read is None:
        raise DataError(_unknown_format(path))
    try:
        return read(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise DataError(_missing(path)) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from None


def _readers() -> dict[str, Callable[[bytes, str], Table]]:
    return {
        ".csv": csv_text.read_csv,
        ".tsv": csv_text.read_tsv,
        ".jsonl": json_text.read_json_lines,
        ".ndjson": json_text.read_json_lines,
        ".json": json_text.read_json,
        ".parquet": _read_parquet,
        ".conll": conll.read_conll,
        ".npz": read_npz,
        LOOSE: _read_loose,
        ".md": passages.read_passages,
    }


def _read_loose(data: bytes, path: str) -> Table:
    """Words with tags, or prose."""
    return passages.read_passages(data, path) if passages.is_prose(data, path) else conll.read_conll(data, path)


def _read_parquet(data: bytes, path: str) -> Table:
    import pyarrow
    from pyarrow import parquet

    if not data:
        raise DataError(f"{path}: the file is empty; expected a Parquet table")
    try:
        table = parquet.read_table(pyarrow.BufferReader(data))
        names = table.column_names
        records = table.to_pylist()
        for name in [field.name for field in table.schema if AS_JSON.items() <= (field.metadata or {}).items()]:
            for record in records:
                record[name] = json.loads(record[name])
    except (pyarrow.ArrowException, OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: is not a readable Parquet file ({shown(str(error), 120)}); write it again, or rename it if it "
            f"is of another format; read here are {FORMATS}"
        ) from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: columns named more than once: {', '.join(twice)}; rename them")
    if not records:
        raise DataError(f"{path}: the table has columns ({', '.join(names)}) but no rows")
    for name in names:
        for record, value in zip(records, stored([record[name] for record in records]), strict=True):
            record[name] = value
    return from_records(records, path, range(1, len(records) + 1))


def _read_folder(folder: Path) -> dict[str, Table]:
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in _readers() and file.is_file())
    files = [file for file in files if file.suffix.lower() not in PROSE] or files
    if any(file.suffix.lower() == ".npz" for file in files):
        files = [file for file in files if file.name != CLASSES]  # read with the arrays whose classes it names
    if not files or all(file.suffix.lower() in PROSE for file in files):
        pictures = read_picture_folder(folder, ROLES)
        if pictures:
            return pictures
    if not files:
        inside = ", ".join(sorted(file.name for file in folder.iterdir())[:20]) or "nothing"
        raise DataError(f"{folder}: there is no table in this folder ({FORMATS} are read); it holds: {inside}")
    by_role: dict[str, list[Path]] = {}
    for file in files:
        role = _role(file.stem)
        if role is not None:
            by_role.setdefault(role, []).append(file)
    listed = ", ".join(file.name for file in files)
    twice = [f"{role} ({', '.join(file.name for file in found)})" for role, found in by_role.items() if len(found) > 1]
    if twice:
        raise DataError(
            f"{folder}: more than one file could be {'; and more than one '.join(twice)}; keep one file of each of "
            "train, validation and test in the folder, joining parts into one"
        )
    if by_role:
        unread = [file.name for file in files if _role(file.stem) is None]
        if unread:
            said = f"{folder}: not read, being named neither train, validation nor test: {', '.join(unread)}"
            warnings.warn(said, TunesmithWarning, stacklevel=2)
        return {role: read_table(by_role[role][0]) for role in ("train", "validation", "test") if role in by_role}
    if len(files) > 1:
        tables = [read_table(file) for file in files] if all(file.suffix.lower() in PROSE for file in files) else []
        if tables and all(passages.PART in table.columns for table in tables):
            return {"train": passages.joined(tables, str(folder))}
        raise DataError(
            f"{folder}: which table is for training? It holds: {listed}; name one of them, or call them "
            "train, validation and test"
        )
    return by_split_column(read_table(files[0]))


def _role(stem: str) -> str | None:
    """The split a file is for: "train", "banking_test" and "validation-00000-of-00001" each name one."""
    words = {ROLES[word] for word in re.split(r"[^a-z]+", stem.lower()) if word in ROLES}
    return words.pop() if len(words) == 1 else None


def by_split_column(table: Table) -> dict[str, Table]:
    """The rows by what their column "split" says, less that column; all are "train" where no column says it.

    Raises DataError where most rows name a split and others do not.
    """
    name = next((name for name in table.columns if name.strip().casefold() == "split"), None)
    if name is None:
        return {"train": table}
    marks = [value.strip().casefold() if isinstance(value, str) else "" for value in table.columns[name]]
    strange = [row for row, mark in enumerate(marks) if mark not in ROLES]
    if strange and 2 * len(strange) > len(marks):
        return {"train": table}  # a column of another meaning: it stays a column like any other
    if strange:
        listed = ", ".join(f"{table.place(row)} ({shown(table.columns[name][row], 20)})" for row in strange[:10])
        raise DataError(
            f'{table.path}: column "{name}" says train, validation or test in most rows but not in {len(strange)}: '
            f"{listed}; put these right, or rename the column if it is not about the split"
        )
    rest = Table(table.path, {key: column for key, column in table.columns.items() if key != name}, table.lines)
    rows: dict[str, list[int]] = {}
    for row, mark in enumerate(marks):
        rows.setdefault(ROLES[mark], []).append(row)
    return {role: rest.take(rows[role]) for role in ("train", "validation", "test") if role in rows}


def _hub_like(path: str) -> bool:
    """Whether a path that does not exist could be "owner/name" or "name" (with ":configuration") on the hub."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?(:[\w.-]+)?", path) or path.startswith("."):
        return False
    owner, slash, _ = path.partition("/")
    is_file = re.fullmatch(r"\.[A-Za-z]\w*", Path(path).suffix) is not None
    return not is_file and not (slash and Path(owner).exists())


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"{path}: there is no such file, and no folder {folder}; check the path (run from {os.getcwd()})"
    return f"{path}: there is no such file; in {folder}: {did_you_mean(path.name, _tables_beside(path))}"


def _tables_beside(path: Path) -> list[str]:
    """Names of the folders and tables where `path` was looked for."""
    if not path.parent.is_dir():
        return []
    return [file.name for file in path.parent.iterdir() if file.is_dir() or file.suffix.lower() in _readers()]


def _unknown_format(path: Path) -> str:
    if path.suffix.lower() in (".xlsx", ".xls", ".ods", ".numbers"):
        return f"{path}: spreadsheets are not read; export the sheet as CSV (UTF-8); read here are {FORMATS}"
    if path.suffix.lower() in (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar"):
        return f"{path}: compressed files are not read; unpack it first; read here are {FORMATS}"
    if not path.exists():
        return _missing(path)
    ending = f'files ending in "{path.suffix}"' if path.suffix else "files without a suffix"
    return f"{path}: {ending} are not read; export the table as, or rename it to, one of {FORMATS}"
