"""What is wrong with rows that could be read: put right and counted, or refused with every reason at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.data._labels import decimals, label_of, many_values, one_class, unseen
from tunesmith.data.columns import Columns
from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError, Problems, did_you_mean

SHOWN_PLACES = 20
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Finding:
    """Something about the rows that the reader of a result must know. Never refused: that is a DataError."""

    kind: str
    count: int
    message: str  # one printable line, says what was done about it
    places: tuple[str, ...]  # up to 20 of "file:line"


@dataclass
class _Rows:
    """One split on its way through: rows are only ever marked as dropped, so that places stay true."""

    table: Table
    texts: list[str]
    labels: list[str]
    keys: list[str]
    kept: list[int]

    def places(self, rows: Sequence[int]) -> list[str]:
        return [self.table.place(row) for row in rows[:SHOWN_PLACES]]


def text_key(text: str) -> str:
    """Texts with the same key count as the same text: case and white space set aside."""
    return " ".join(text.casefold().split())


def clean(splits: dict[str, Table], columns: Columns, leaks: str = "drop") -> tuple[dict[str, Table], list[Finding]]:
    """The same splits with str texts and str labels, less the rows that cannot be used, and what was found.

    Labels lose spaces around them, and numbers become their shortest text (1.0 is "1"). Rows with an empty text or no
    label are dropped, and training rows whose text is in validation or test when `leaks` is "drop"; each is counted.
    A validation or test table without any label left is left out, and that is said. Raises DataError with every
    problem: a missing column, lists for values, fewer than 4 rows, one class, labels that training never shows,
    labels that are values rather than classes.
    """
    problems = Problems()
    _check_columns(splits, columns, problems)
    problems.raise_as(DataError)
    findings: list[Finding] = []
    rows = {name: _converted(name, table, columns, problems) for name, table in splits.items()}
    _report_conversions(splits, columns, rows, findings)
    _drop_unusable(splits, columns, rows, findings)
    _report_repeats(rows, findings)
    _drop_leaks(rows, leaks, findings)
    _check_labels(rows, columns, problems, findings)
    problems.raise_as(DataError)
    return {name: _result(split, columns) for name, split in rows.items()}, findings


def _check_columns(splits: dict[str, Table], columns: Columns, problems: Problems) -> None:
    if "train" not in splits:
        there = ", ".join(table.path for table in splits.values())
        problems.add(f"there are no training rows, only {there}; add a file called train, or name the training table")
    asked = {"text": columns.text, "label": columns.label}
    if columns.group is not None:
        asked["group"] = columns.group
    for table in splits.values():
        for role, name in asked.items():
            if role == "group" and table is not splits.get("train"):
                continue  # groups matter only where rows are still to be split
            if name not in table.columns:
                near = did_you_mean(name, table.columns)
                problems.add(f'{table.path}: there is no column "{name}" (the {role} of the other rows); {near}')


def _converted(name: str, table: Table, columns: Columns, problems: Problems) -> _Rows:
    texts, labels = table.columns[columns.text], table.columns[columns.label]
    for column, values, wanted in ((columns.text, texts, "one text"), (columns.label, labels, "one label")):
        lists = [row for row, value in enumerate(values) if isinstance(value, list)]
        if lists:
            listed = ", ".join(table.place(row) for row in lists[:10])
            problems.add(
                f'{table.path}: column "{column}" holds a list in {_rows(len(lists))} ({listed}), and {wanted} a '
                f"row is expected; make it {wanted}, or name another column with --text or --label"
            )
    plain = ["" if value is None else str(value) for value in texts]
    return _Rows(table, plain, [label_of(value) for value in labels], [text_key(text) for text in plain],
                 list(range(len(table))))  # fmt: skip


def _report_conversions(
    splits: dict[str, Table], columns: Columns, rows: dict[str, _Rows], findings: list[Finding]
) -> None:
    numbers: dict[str, list[int]] = {}
    spaced: dict[str, list[int]] = {}
    kinds: dict[str, dict[str, list[int]]] = {}
    for name, table in splits.items():
        texts, labels = table.columns[columns.text], table.columns[columns.label]
        numbers[name] = [row for row, value in enumerate(texts) if isinstance(value, int | float)]
        spaced[name] = [
            row for row, value in enumerate(labels) if isinstance(value, str) and value.strip() not in ("", value)
        ]
        for row, value in enumerate(labels):
            if value is not None and not isinstance(value, list) and str(value).strip():
                kinds.setdefault(_kind(value), {}).setdefault(name, []).append(row)
    _find(findings, "number_text", rows, numbers, f'"{columns.text}" holds a number, taken as its text')
    _find(findings, "label_space", rows, spaced, f'"{columns.label}" has spaces around the label, taken off')
    sizes = {kind: sum(map(len, found.values())) for kind, found in kinds.items()}
    if len(kinds) > 1:
        most = max(sizes, key=lambda kind: (sizes[kind], kind))
        listed = ", ".join(f"{count} {kind}" for kind, count in sorted(sizes.items()))
        fewer: dict[str, list[int]] = {}
        for kind, found in kinds.items():
            for name, some in found.items() if kind != most else ():
                fewer[name] = sorted(fewer.get(name, []) + some)
        what = f'"{columns.label}" mixes types ({listed}); all are taken as text, so that 1, 1.0 and "1" are one class'
        _find(findings, "mixed_types", rows, fewer, what)
    elif "number" in kinds:
        what = f'"{columns.label}" holds numbers, taken as names of classes without order'
        _find(findings, "number_label", rows, kinds["number"], what)


def _drop_unusable(splits: dict[str, Table], columns: Columns, rows: dict[str, _Rows], findings: list[Finding]) -> None:
    empty = {name: [row for row in split.kept if not split.keys[row]] for name, split in rows.items()}
    bare = {
        name: [row for row in split.kept if split.keys[row] and not split.labels[row]] for name, split in rows.items()
    }
    for name, split in rows.items():
        gone = set(empty[name]) | set(bare[name])
        split.kept = [row for row in split.kept if row not in gone]
    _find(findings, "empty_text", rows, empty, f'"{columns.text}" is empty; dropped')
    _find(findings, "missing_label", rows, bare, f'"{columns.label}" is empty; dropped')
    if columns.group is not None:
        groups = splits["train"].columns[columns.group]
        alone = {"train": [row for row in rows["train"].kept if groups[row] in (None, "")]}
        what = f'"{columns.group}" is empty; each such row is a group of its own'
        _find(findings, "missing_group", rows, alone, what)
    for name in [name for name, split in rows.items() if name != "train" and not split.kept]:
        size = len(splits[name])
        message = f"{name}: none of the {_rows(size)} of {splits[name].path} can be used, so it is left out"
        findings.append(Finding("unused_split", size, message, tuple(rows[name].places(range(size)))))
        del rows[name]


def _report_repeats(rows: dict[str, _Rows], findings: list[Finding]) -> None:
    repeated: dict[str, list[int]] = {}
    classes: dict[str, set[str]] = {}
    for name, split in rows.items():
        seen: set[tuple[str, str]] = set()
        repeated[name] = []
        for row in split.kept:
            pair = (split.keys[row], split.labels[row])
            if pair in seen:
                repeated[name].append(row)
            seen.add(pair)
            classes.setdefault(split.keys[row], set()).add(split.labels[row])
    _find(findings, "duplicate", rows, repeated, "repeats the text and label of an earlier row of its split; kept")
    torn = {name: [row for row in split.kept if len(classes[split.keys[row]]) > 1] for name, split in rows.items()}
    texts = [key for key, labels in classes.items() if len(labels) > 1]
    if texts:
        labels = ", ".join(f'"{label}"' for label in sorted(classes[texts[0]])[:4])
        number = "1 text has" if len(texts) == 1 else f"{len(texts)} texts have"
        what = f'{number} more than one label, such as "{shown(texts[0], 40)}" with {labels}; kept'
        _find(findings, "conflict", rows, torn, what)


def _drop_leaks(rows: dict[str, _Rows], leaks: str, findings: list[Finding]) -> None:
    keys = {name: {split.keys[row] for row in split.kept} for name, split in rows.items()}
    train = rows["train"]
    held = set().union(*(found for name, found in keys.items() if name != "train"))
    leaked = [row for row in train.kept if train.keys[row] in held]
    done = "dropped from train" if leaks == "drop" else "kept as asked, which flatters the result"
    _find(findings, "leak", rows, {"train": leaked}, f"the text is also in validation or test; {done}")
    if leaks == "drop":
        gone = set(leaked)
        train.kept = [row for row in train.kept if row not in gone]
    if "validation" in rows and "test" in rows:
        split = rows["validation"]
        shared = [row for row in split.kept if split.keys[row] in keys["test"]]
        what = "the text of a validation row is also in test; kept, as it is not trained on"
        _find(findings, "leak_validation", rows, {"validation": shared}, what)


def _check_labels(rows: dict[str, _Rows], columns: Columns, problems: Problems, findings: list[Finding]) -> None:
    counts = {name: Counter(split.labels[row] for row in split.kept) for name, split in rows.items()}
    train, path = counts["train"], rows["train"].table.path
    total = sum(sum(found.values()) for found in counts.values())
    if total < FEWEST_ROWS or not train:
        read = sum(len(split.table) for split in rows.values())
        left = f"{_rows(total)} of {read} can be used" + ("" if train else ", none of them for training")
        why = "; ".join(finding.message for finding in findings if "dropped" in finding.message)
        problems.add(f"{path}: {left}, and at least {FEWEST_ROWS} are needed; add rows{f' ({why})' if why else ''}")
        return
    values = many_values(train, path, columns.label)
    if values:
        problems.add(values)
        return
    for problem in (one_class(train, path, columns.label), *unseen(counts, _label_places(rows), path)):
        if problem:
            problems.add(problem)
    if decimals(train):
        what = f'"{columns.label}" holds numbers with decimals, taken as names of classes without order'
        _find(findings, "decimal_label", rows, _train_rows(rows, set(train)), what)
    alike: dict[str, list[str]] = {}
    for label in train:
        alike.setdefault(text_key(label), []).append(label)
    twins = [sorted(found) for found in alike.values() if len(found) > 1]
    fewer = {min(found, key=lambda label: (train[label], label)) for found in twins}
    what = "labels differ only in case or spacing, and are kept as classes of their own: "
    what += "; ".join(" / ".join(f'"{label}"' for label in found) for found in twins[:10])
    _find(findings, "label_case", rows, _train_rows(rows, fewer), what)
    rare = {label for label, count in train.items() if count == 1}
    named = ", ".join(f'"{shown(label, 40)}"' for label in sorted(rare)[:20]) + (", ..." if len(rare) > 20 else "")
    what = f"the only training row of its class, which cannot be both learned and checked: {named}; kept"
    _find(findings, "rare_class", rows, _train_rows(rows, rare), what)


def _train_rows(rows: dict[str, _Rows], labels: set[str]) -> dict[str, list[int]]:
    return {"train": [row for row in rows["train"].kept if rows["train"].labels[row] in labels]}


def _label_places(rows: dict[str, _Rows]) -> dict[str, dict[str, list[str]]]:
    places: dict[str, dict[str, list[str]]] = {name: {} for name in rows}
    for name, split in rows.items():
        for row in split.kept:
            places[name].setdefault(split.labels[row], []).append(split.table.place(row))
    return places


def _find(findings: list[Finding], kind: str, rows: dict[str, _Rows], found: dict[str, list[int]], what: str) -> None:
    """Adds one finding for rows of any splits, or nothing where there are none."""
    count = sum(map(len, found.values()))
    if not count:
        return
    by_split = ", ".join(f"{name} {len(some)}" for name, some in found.items() if some)
    places = [place for name, some in found.items() if some for place in rows[name].places(some)][:SHOWN_PLACES]
    findings.append(Finding(kind, count, f"{_rows(count)} ({by_split}): {what}", tuple(places)))


def _result(split: _Rows, columns: Columns) -> Table:
    whole = {**split.table.columns, columns.text: split.texts, columns.label: split.labels}
    return Table(split.table.path, whole, split.table.lines).take(split.kept)


def _kind(value: Any) -> str:
    return "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"
