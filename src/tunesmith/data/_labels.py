"""Labels as names of classes, and the sets of labels that nothing can be learned from."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from tunesmith.data.table import shown

MOST_VALUES = 0.6  # share of distinct labels above which a column is a text or a measurement, not a class
FEW_ROWS = 20  # in tables up to this size such a share says nothing
LISTED = 20


def label_of(value: Any) -> str:
    """The name of a class: "" for none, spaces around it taken off, a number as its shortest text (1.0 is "1")."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def many_values(train: Counter[str], path: str, column: str) -> str:
    """A problem where the label column holds nearly as many values as rows; "" otherwise."""
    rows = sum(train.values())
    if rows <= FEW_ROWS or len(train) <= MOST_VALUES * rows:
        return ""
    some = ", ".join(f'"{shown(label, 30)}"' for label in sorted(train)[:3])
    return (
        f'{path}: column "{column}" has {len(train)} distinct values in {rows} rows ({some}, ...): it looks like text '
        "or numbers to be predicted as values (regression), not classes; name the right column by --label"
    )


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
    number = re.compile(r"[+-]?\d*\.?\d+([eE][+-]?\d+)?")
    return all(number.fullmatch(label) for label in train) and not all(whole.fullmatch(label) for label in train)


def unseen(counts: dict[str, Counter[str]], places: dict[str, dict[str, list[str]]], path: str) -> list[str]:
    """A problem for each label of validation and test that no training row has."""
    problems = []
    train = counts["train"]
    for name in counts:
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
