"""One class for each row: labels as names, and the sets of labels that nothing can be learned from."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows, counted, find
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.errors import Problems

MOST_VALUES = 0.6  # share of distinct labels above which a column is a text or a measurement, not a class
FEW_ROWS = 20  # in tables up to this size such a share says nothing
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
LISTED = 20


class OneClass(Target):
    """A name of a class; numbers and booleans are names too."""

    balance: ClassVar[str] = "stratified by label"
    classes: ClassVar[bool] = True
    swaps: ClassVar[bool] = True

    def __init__(self, pictures: bool = False) -> None:
        self.pictures = pictures

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        values = table.columns[column]
        lists = [row for row, value in enumerate(values) if isinstance(value, list) or is_object(value)]
        if lists:
            listed = ", ".join(table.place(row) for row in lists[:10])
            plain = all(isinstance(values[row], list) for row in lists)
            kind, several = (
                ("a list", ", or learn several labels with --task multilabel") if plain else ("an object", "")
            )
            problems.add(
                f'{table.path}: column "{column}" holds {kind} in {counted(len(lists))} ({listed}), and one label a row is '
                f"expected; make it one label, or name another column with --label{several}"
            )
        bad = set(lists)
        return [None if row in bad else label_of(value) or None for row, value in enumerate(values)]

    def name(self, target: Any) -> str:
        return target

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        spaced = {
            name: [
                row
                for row, value in enumerate(split.table.columns[column])
                if isinstance(value, str) and value.strip() not in ("", value)
            ]
            for name, split in rows.items()
        }
        find(findings, "label_space", rows, spaced, f'"{column}" has spaces around the label, taken off')

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        counts = {name: Counter(split.targets[row] for row in split.kept) for name, split in rows.items()}
        places = _label_places(rows)
        if known is not None:
            named = ", ".join(f'"{shown(label, 40)}"' for label in known[:LISTED]) + (
                ", ..." if len(known) > LISTED else ""
            )
            for name, labels in places.items():
                strange = sorted(set(labels) - set(known))
                if strange:
                    told = ", ".join(
                        f'"{shown(label, 60)}" ({counted(counts[name][label])}, first at {labels[label][0]})'
                        for label in strange[:LISTED]
                    )
                    more = f" and {len(strange) - LISTED:,} more" if len(strange) > LISTED else ""
                    several, them = ("label", "it") if len(strange) == 1 else ("labels", "them")
                    problems.add(
                        f"{rows[name].table.path}: the model does not know the {several} {told}{more}; it knows {named}; "
                        f"correct {them}, or remove these rows"
                    )
            return
        _note_types(column, rows, findings)
        train, path = counts["train"], rows["train"].table.path
        values = many_values(rows["train"], column)
        if values:
            problems.add(values)
            return
        for problem in (one_class(train, path, column), *unseen(counts, places, path)):
            if problem:
                problems.add(problem)
        if decimals(train):
            what = f'"{column}" holds numbers with decimals, taken as names of classes without order'
            find(findings, "decimal_label", rows, _train_rows(rows, set(train)), what)
        _note_alike_and_rare(rows, train, findings)

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [(target,) for target in targets]


def _note_types(column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
    kinds: dict[str, dict[str, list[int]]] = {}
    for name, split in rows.items():
        for row, value in enumerate(split.table.columns[column]):
            if value is not None and not isinstance(value, list) and str(value).strip():
                kinds.setdefault(_kind(value), {}).setdefault(name, []).append(row)
    sizes = {kind: sum(map(len, found.values())) for kind, found in kinds.items()}
    if len(kinds) > 1:
        most = max(sizes, key=lambda kind: (sizes[kind], kind))
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(sizes.items()))
        fewer: dict[str, list[int]] = {}
        for kind, found in kinds.items():
            for name, some in found.items() if kind != most else ():
                fewer[name] = sorted(fewer.get(name, []) + some)
        what = f'"{column}" mixes types ({listed}); all are taken as text, so that 1, 1.0 and "1" are one class'
        find(findings, "mixed_types", rows, fewer, what)
    elif "number" in kinds:
        what = f'"{column}" holds numbers, taken as names of classes without order (--task regression learns values)'
        find(findings, "number_label", rows, kinds["number"], what)


def _note_alike_and_rare(rows: dict[str, Rows], train: Counter[str], findings: list[Finding]) -> None:
    alike: dict[str, list[str]] = {}
    for label in train:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    twins = [sorted(found) for found in alike.values() if len(found) > 1]
    fewer = {min(found, key=lambda label: (train[label], label)) for found in twins}
    what = "labels differ only in case or spacing, and are kept as classes of their own: "
    what += "; ".join(" / ".join(f'"{label}"' for label in found) for found in twins[:10])
    find(findings, "label_case", rows, _train_rows(rows, fewer), what)
    rare = {label for label, count in train.items() if count == 1}
    named = ", ".join(f'"{shown(label, 40)}"' for label in sorted(rare)[:20]) + (", ..." if len(rare) > 20 else "")
    what = f"the only training row of its class, which cannot be both learned and checked: {named}; kept"
    find(findings, "rare_class", rows, _train_rows(rows, rare), what)


def _train_rows(rows: dict[str, Rows], labels: set[str]) -> dict[str, list[int]]:
    return {"train": [row for row in rows["train"].kept if rows["train"].targets[row] in labels]}


def _label_places(rows: dict[str, Rows]) -> dict[str, dict[str, list[str]]]:
    places: dict[str, dict[str, list[str]]] = {name: {} for name in rows}
    for name, split in rows.items():
        for row in split.kept:
            places[name].setdefault(split.targets[row], []).append(split.table.place(row))
    return places


def _kind(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def is_object(value: Any) -> bool:
    """Whether a value is an object of JSON, or writes one out, as tables keep them."""
    if not isinstance(value, str) or value[:1] != "{":
        return isinstance(value, dict)
    try:
        return isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def label_of(value: Any) -> str:
    """The name of a class: "" for none, spaces around it taken off, a number as its shortest text (1.0 is "1")."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def many_values(train: Rows, column: str) -> str:
    """A problem where the label column holds nearly as many values as rows; "" otherwise."""
    labels = [train.targets[row] for row in train.kept]
    distinct = sorted(set(labels))
    if len(labels) <= FEW_ROWS or len(distinct) <= MOST_VALUES * len(labels):
        return ""
    some = ", ".join(f'"{shown(label, 30)}"' for label in distinct[:3])
    what = (
        f'{train.table.path}: column "{column}" has {len(distinct)} distinct values in {len(labels)} rows ({some}, ...)'
    )
    others = [row for row in train.kept if not NUMBER.fullmatch(train.targets[row])]
    if 2 * len(others) >= len(labels):
        return f"{what}: it looks like text, not classes; name the right column by --label"
    fix = "learn them with --task regression, or name the right column by --label"
    if not others:
        return f"{what}: numbers to be predicted as values, not classes; {fix}"
    places = ", ".join(f'{train.table.place(row)} "{shown(train.targets[row], 30)}"' for row in others[:LISTED])
    more = ", ..." if len(others) > LISTED else ""
    return f"{what}: numbers, but for {counted(len(others))} ({places}{more}); put these right and {fix}"


def one_class(train: Counter[str], path: str, column: str) -> str:
    """A problem where all training rows are of one class; "" otherwise."""
    if len(train) > 1:
        return ""
    only, rows = next(iter(train.items()))
    return (
        f'{path}: column "{column}" holds one class only ("{shown(only, 40)}", {rows} rows), '
        "and a classifier needs at least two; name the right column by --label or add rows of another class"
    )


def decimals(train: Counter[str]) -> bool:
    """Whether every label is a number and some are not whole, as scores and prices are."""
    whole = re.compile(r"[+-]?\d+")
    return all(NUMBER.fullmatch(label) for label in train) and not all(whole.fullmatch(label) for label in train)


def unseen(counts: dict[str, Counter[str]], places: dict[str, dict[str, list[str]]], path: str) -> list[str]:
    """A problem for each label of validation and test that no training row has."""
    problems = []
    train = counts["train"]
    for name in places:
        missing = sorted(label for label in counts[name] if label not in train)
        for label in missing[:LISTED]:
            listed = ", ".join(places[name][label][:5]) + (", ..." if counts[name][label] > 5 else "")
            rows = "1 row" if counts[name][label] == 1 else f"{counts[name][label]} rows"
            problems.append(
                f'{name}: label "{shown(label, 60)}" ({rows}: {listed}) is in no training row of '
                f"{path}; add training rows of it, correct its spelling, or remove these rows"
            )
        if len(missing) > LISTED:
            problems.append(f"{name}: and {len(missing) - LISTED} further labels that no training row of {path} has")
        joined = [label for label in missing if _is_joined(label, train)]
        if joined:
            problems.append(
                f'{name}: {len(joined)} of these, such as "{shown(joined[0], 60)}", join labels that training rows have: '
                "one label a text is learned here, so keep one label of each row, or remove rows with several"
            )
    return problems


def _is_joined(label: str, train: Counter[str]) -> bool:
    """Whether a label is known labels with a separator between them."""
    parts = re.split(r"[|;,]", label)
    return len(parts) > 1 and all(part.strip() in train for part in parts)
