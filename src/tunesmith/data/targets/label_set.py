"""Any number of labels for each row: a list, a text with a separator, or one column of 0 and 1 for each label."""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from tunesmith.data.findings import Finding, Rows, counted, find
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.one_class import is_object, label_of
from tunesmith.errors import Problems

SEPARATORS = ("|", ";", ",")
LISTED = 10
# A column of 0 and 1 in which up to so many values are others holds mistakes, and is not one of numbers. Where a twentieth
# of the rows is fewer than two values, two may be wrong, unless the table is so short that these could be its numbers.
ODD_SHARE, ODD_FEW, FEWEST_ROWS = 0.05, 2, 10
FLAGS = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class LabelSet(Target):
    """Sorted tuples of label names; an empty one says that none of the labels applies."""

    separator: str | None  # between the labels of a text; None where a text is one label
    flags: tuple[str, ...] = ()  # the labels, where each has a column of 0 and 1

    balance: ClassVar[str] = "stratified by the rarest label of a row"
    classes: ClassVar[bool] = True
    swaps: ClassVar[bool] = True

    def read(self, table: Table, column: str, problems: Problems) -> list[Any]:
        found: list[Any] = []
        wrong: list[int] = []
        for row, value in enumerate(table.columns[column]):
            try:
                labels = self._flagged(value) if self.flags else self._listed(value)
            except ValueError:
                wrong.append(row)
                labels = None
            found.append(None if labels is None else tuple(sorted(set(labels))))
        if wrong:
            listed = ", ".join(f"{table.place(row)} {shown(table.columns[column][row], 40)}" for row in wrong[:LISTED])
            expected = "0 or 1 in each label's column" if self.flags else "a list of names, without null or lists in it"
            problems.add(
                f'{table.path}: column "{column}" cannot be read in {counted(len(wrong))} ({listed}); expected {expected}'
            )
        return found

    def _flagged(self, value: Any) -> list[str] | None:
        """Raises ValueError for what is neither yes nor no."""
        if all(flag is None or flag == "" for flag in value):
            return None
        read = [FLAGS.get(label_of(flag).lower()) for flag in value]
        if None in read:
            raise ValueError
        return [name for name, flag in zip(self.flags, read, strict=True) if flag]

    def _listed(self, value: Any) -> list[str] | None:
        """Raises ValueError for a list that holds other than names."""
        value = as_list(value)
        if is_object(value):
            raise ValueError
        if isinstance(value, list):
            if any(item is None or item != item or isinstance(item, list | dict) for item in value):
                raise ValueError
            return [label for item in value if (label := label_of(item))]
        name = label_of(value)
        return split_labels(name, self.separator) if name else None

    def name(self, target: Any) -> str:
        return " + ".join(target) if target else "(none)"

    def told(self, value: Any, text: str) -> Any:
        try:
            labels = self._flagged(value) if self.flags else self._listed(value)
        except ValueError:
            return value  # refused with its row where the column is read
        return "" if labels is None else ", ".join(labels) or "(none)"

    def notice(self, column: str, rows: dict[str, Rows], findings: list[Finding]) -> None:
        bare = {name: [row for row, labels in enumerate(split.targets) if labels == ()] for name, split in rows.items()}
        what = f'"{column}" names no label, which is learned as: none of them applies'
        find(findings, "no_label_applies", rows, bare, what)

    def check(
        self,
        column: str,
        rows: dict[str, Rows],
        known: Sequence[str] | None,
        problems: Problems,
        findings: list[Finding],
    ) -> None:
        counts = {
            name: Counter(label for row in split.kept for label in split.targets[row]) for name, split in rows.items()
        }
        train = Counter(known) if known is not None else counts["train"]
        of = "the run" if known is not None else rows["train"].table.path
        if known is None and len(train) < 2:
            problems.add(
                f'{of}: column "{column}" holds {len(train)} label(s) in all, and several are needed; name the right '
                "column by --label, or learn one class a row with --task classification"
            )
            return
        for name, split in rows.items():
            missing = sorted(label for label in counts[name] if label not in train)
            if missing:
                named = ", ".join(f'"{shown(label, 40)}" ({counts[name][label]})' for label in missing[:LISTED])
                more = ", ..." if len(missing) > LISTED else ""
                first = next(split.table.place(row) for row in split.kept if set(missing) & set(split.targets[row]))
                problems.add(
                    f"{name}: labels that no training row of {of} has: {named}{more}, first at {first}; add training rows "
                    "of them, correct their spelling, or remove these rows"
                )
        if known is None:
            _note_rare(rows, train, findings)

    def strata(self, targets: Sequence[Any]) -> list[tuple[str, ...]]:
        return [target if target else ("",) for target in targets]


def _note_rare(rows: dict[str, Rows], train: Counter[str], findings: list[Finding]) -> None:
    rare = {label for label, count in train.items() if count == 1}
    split = rows["train"]
    found = {"train": [row for row in split.kept if rare & set(split.targets[row])]}
    named = ", ".join(f'"{shown(label, 40)}"' for label in sorted(rare)[:20]) + (", ..." if len(rare) > 20 else "")
    find(findings, "rare_class", rows, found, f"the only training row with a label: {named}; kept")


def split_labels(text: str, separator: str | None) -> list[str]:
    """The labels that a text joins, without the spaces around them."""
    parts = [text] if separator is None else text.split(separator)
    return [part.strip() for part in parts if part.strip()]


def separator_of(values: Iterable[Any]) -> str | None:
    """The character that joins labels in these texts; None where none does.

    A name may hold a comma of its own ("Arts, Crafts"): what joins is the separator for which most of the texts that
    hold it are made of parts that other texts hold as well.
    """
    texts = {label_of(value) for value in values if isinstance(value, str)}
    best, most = None, 0
    for separator in SEPARATORS:
        parts = {text: split_labels(text, separator) for text in texts}
        seen = Counter(part for split in parts.values() for part in set(split))
        joined = [split for split in parts.values() if len(split) > 1]
        shared = [split for split in joined if all(seen[part] > 1 for part in split)]
        if len(shared) > most and 2 * len(shared) >= len(joined):
            best, most = separator, len(shared)
    return best


def is_flag(value: Any) -> bool:
    """Whether a value says yes or no: 0, 1, true, false, or a text of these."""
    return label_of(value).lower() in FLAGS


def few_odd(odd: int, filled: int) -> bool:
    """Whether so few of a column's values are other than the rest that they are mistakes."""
    return filled >= FEWEST_ROWS and odd <= max(ODD_FEW, ODD_SHARE * filled)


def few_wrong(odd: int, filled: int) -> bool:
    """Whether so few of a column's values are no numbers that they are mistakes: one, or a twentieth."""
    return odd <= max(1 if filled >= FEWEST_ROWS else 0, ODD_SHARE * filled)


def odd_flags(tables: Iterable[Table], columns: Sequence[str]) -> list[str]:
    """A problem for each column of 0 and 1 with a few other values, where all `columns` are such; [] otherwise."""
    found, some = [], list(tables)
    for name in columns:
        filled, odd = 0, []
        for table in some:
            values = [
                (row, value) for row, value in enumerate(table.columns[name]) if value is not None and value != ""
            ]
            filled += len(values)
            odd += [f'{table.place(row)} "{shown(value, 30)}"' for row, value in values if not is_flag(value)]
        if not few_odd(len(odd), filled):
            return []
        more = ", ..." if len(odd) > LISTED else ""
        if odd:
            found.append(
                f'"{name}" holds 0 and 1 but for {counted(len(odd))} ({", ".join(odd[:LISTED])}{more}); correct it, or learn '
                "the columns as numbers with --task regression"
            )
    return found


def as_list(value: Any) -> Any:
    """The list that a text writes out, as JSON or as Python does (pandas writes lists so); any other value as it is."""
    if not isinstance(value, str) or value.strip()[:1] != "[":
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = _python_list(value.strip())
    return found if isinstance(found, list) else value


def _python_list(text: str) -> Any:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    # numpy writes ['a' 'b'], which Python reads as ['ab']: only what Python would write itself is taken.
    return found if repr(found) == text else None
