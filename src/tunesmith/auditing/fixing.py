"""Cleaned rows: what is surely of no use is left out, what is doubtful is marked, and labels lose the spaces around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.auditing.base import Examined, Material, Row
from tunesmith.data.audit import row_key
from tunesmith.data.findings import counted
from tunesmith.data.table import Table
from tunesmith.errors import DataError

MARKS, SUGGESTED, SPLIT = "audit", "suggested_label", "split"


@dataclass(frozen=True)
class Fixed:
    columns: dict[str, list[Any]]  # those of the source, and up to three more
    said: tuple[str, ...]  # what was done, counted


def fixed(raw: Mapping[str, Table], material: Material, examined: Iterable[Examined]) -> Fixed:
    """The rows of `raw` without those that cleaning drops and those that repeat text and label of an earlier row of their
    split; doubtful ones with the reason in a column "audit", and in "suggested_label" what their label may rather be.

    raw: the tables as they were read; `material`: what cleaning left of them. Several splits become one table with a
    column "split". Raises DataError where rows of the source are not rows of the task.
    """
    rows = _rows_of(raw, material)
    repeats = _repeats(material)
    kept = [row for row in material.rows if row not in repeats]
    marks, suggested = _notes(material, examined)
    source = [(row.split, rows[row]) for row in kept]
    names = list(dict.fromkeys(name for table in raw.values() for name in table.columns))
    columns: dict[str, list[Any]] = {
        name: [raw[split].columns[name][place] if name in raw[split].columns else None for split, place in source]
        for name in names
    }
    bared = _bare(columns, material.columns.parts or (material.columns.label,))
    dropped = sum(map(len, raw.values())) - len(material.rows)
    said = [
        f"{counted(len(kept))} of {sum(map(len, raw.values())):,} written, as they were",
        f"{counted(bared)} with spaces around the label, taken off",
        f"{counted(dropped)} left out: without text or label, or also in validation or test",
        f"{counted(len(repeats))} left out that repeat the text and label of an earlier row",
    ]
    if len(raw) > 1:
        columns[_free(SPLIT, columns)] = [row.split for row in kept]
        said.append(f'the tables of {", ".join(raw)} are one, told apart by the column "{SPLIT}"')
    for name, notes, what in (
        (MARKS, marks, "doubtful, kept"),
        (SUGGESTED, suggested, "with a label that may rather be right, its own kept"),
    ):
        found = [notes.get(row, "") for row in kept]
        if any(found):
            column = _free(name, columns)
            columns[column] = found
            said.append(f'{counted(sum(map(bool, found)))} {what}: see the column "{column}"')
    return Fixed(columns, tuple(line for line in said if not line.startswith("0 rows")))


def _bare(columns: dict[str, list[Any]], labels: Iterable[str]) -> int:
    """Takes the spaces around labels off, as training does, so that other tools see the same classes; gives how many rows."""
    changed: set[int] = set()
    for name in labels:
        for row, value in enumerate(columns.get(name, [])):
            if isinstance(value, str) and value != value.strip():
                columns[name][row] = value.strip()
                changed.add(row)
    return len(changed)


def _rows_of(raw: Mapping[str, Table], material: Material) -> dict[Row, int]:
    """Which row of its source each row is."""
    if material.pictures:
        raise DataError(
            "--fix: writes tables of text; of pictures, take the files that are named above out of their folder"
        )
    found: dict[Row, int] = {}
    for split, table in material.tables.items():
        places = {line: place for place, line in enumerate(raw[split].lines)}
        if len(places) < len(raw[split]) or len(set(table.lines)) < len(table) or not set(table.lines) <= set(places):
            raise DataError(
                f"--fix: a row of {raw[split].path} is not a row of what is learned; correct the rows named above by hand"
            )
        found |= {Row(split, row): places[line] for row, line in enumerate(table.lines)}
    return found


def _repeats(material: Material) -> set[Row]:
    seen: set[tuple[str, str, str]] = set()
    found: set[Row] = set()
    for row, key, name in _keyed(material):
        if (row.split, key, name) in seen:
            found.add(row)
        seen.add((row.split, key, name))
    return found


def _keyed(material: Material) -> list[tuple[Row, str, str]]:
    """Of each row what makes its text and its target the same as others'."""
    found = []
    for row, text in zip(material.rows, material.texts, strict=True):
        target = material.truth(row.split)[row.row]
        found.append((row, row_key((text,) if isinstance(text, str) else text), material.target.name(target)))
    return found


def _notes(material: Material, examined: Iterable[Examined]) -> tuple[dict[Row, str], dict[Row, str]]:
    notes: dict[Row, list[str]] = {}
    suggested: dict[Row, str] = {}
    by_key: dict[str, list[Row]] = {}
    for row, key, _ in _keyed(material):
        by_key.setdefault(key, []).append(row)
    for rows in by_key.values():
        targets = [material.truth(row.split)[row.row] for row in rows]
        if len(rows) > 1 and material.target.disagree(targets):
            labels = _listed([material.target.name(target) for target in targets])
            for row in rows:
                notes.setdefault(row, []).append(f"conflict: this text has the labels {labels}")
    for part in examined:
        for row, mark in part.marks.items():
            notes.setdefault(row, []).append(mark)
        suggested |= part.suggested
    return {row: "; ".join(marks) for row, marks in notes.items()}, suggested


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"{name} ({count})" for name, count in Counter(names).most_common(4))


def _free(name: str, columns: Mapping[str, Any]) -> str:
    while name in columns:
        name = f"{name}_"
    return name
