"""Columns that say nothing: empty, or the same in every row."""

from __future__ import annotations

from typing import Any

from tunesmith.auditing.base import Examined, Material
from tunesmith.data.findings import Finding, Instance, instance

NAME = "fields"
FEWEST_ROWS = 10  # from which on it is no chance that all are the same


def examine(material: Material) -> Examined:
    """Kinds: "empty_column" and "constant_column"; the count is that of columns."""
    names = material.names
    whole = {name: _values(material, name) for name in names if name != material.columns.label}
    empty = [name for name, values in whole.items() if all(_bare(value) for value in values)]
    same = [
        name
        for name, values in whole.items()
        if name not in empty and len(values) >= FEWEST_ROWS and len({repr(value) for value in values}) == 1
    ]
    findings = []
    if empty:
        what = f"{_columns(len(empty))} without a value in any row: {_named(empty)}"
        findings.append(Finding("empty_column", len(empty), what, (), _examples(empty), "take them out of the table"))
    if same:
        what = f"{_columns(len(same))} with the same value in every row: {_named(same)}"
        read = set(same) & set(material.columns.texts)
        advice = (
            f"{_named(sorted(read))} is read by the model and tells it nothing: name another column with --text or --pair"
            if read
            else "they tell nothing; nothing need be done, as the model does not read them"
        )
        examples = tuple(instance(name, str(whole[name][0])) for name in same[:3])
        findings.append(Finding("constant_column", len(same), what, (), examples, advice))
    return Examined(NAME, f"{len(names)} columns: {_named(names)}", tuple(findings))


def _values(material: Material, name: str) -> list[Any]:
    found: list[Any] = []
    for table in material.tables.values():
        found += table.columns.get(name, [None] * len(table))
    return found


def _bare(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip()) or value == []


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _named(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names[:10]) + (", ..." if len(names) > 10 else "")


def _examples(names: list[str]) -> tuple[Instance, ...]:
    return tuple(Instance(name, "") for name in names[:3])
