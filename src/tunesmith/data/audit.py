"""What is wrong with rows that could be read: put right and counted, or refused with every reason at once."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.columns import Columns
from tunesmith.data.findings import Finding, Rows, counted, find, instance
from tunesmith.data.images import Picture, Pictures
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.one_class import OneClass
from tunesmith.data.words import words_of
from tunesmith.errors import DataError, Problems, did_you_mean

FEWEST_ROWS = 4
ON_ONE_SIDE = "keep such rows on one side, so that the result is about texts that are new to the model"
JOINT = "\x1f"  # between the texts of a row in its key: no text key holds one, since it counts as white space


def text_key(text: str) -> str:
    """Texts with the same key count as the same text: case and white space set aside."""
    return " ".join(text.casefold().split())


def row_key(texts: Sequence[str]) -> str:
    """`text_key` of a row of one text or several; "" where one of them is empty."""
    keys = [text.digest if isinstance(text, Picture) else text_key(text) for text in texts]
    return JOINT.join(keys) if all(keys) else ""


def either_order(key: str) -> str:
    """The same for two texts in both orders, from the key of their row; that of one text, or of more than two, as it is."""
    texts = key.split(JOINT)
    return JOINT.join(sorted(texts)) if len(texts) == 2 else key


def clean(
    splits: dict[str, Table],
    columns: Columns,
    target: Target,
    leaks: str = "drop",
    known: Sequence[str] | None = None,
) -> tuple[dict[str, Table], list[Finding]]:
    """The same splits with str texts and the label column as `target` reads it, less what cannot be used, and findings.

    Rows with an empty text or no label are dropped; when `leaks` is "drop", so are training rows whose text (or group) is
    in validation or test, and validation rows whose text is in test; by a target that `swaps`, also in the other order. Each
    is counted. A validation or test table without
    any label left is left out, and that is said. With `known`, the outputs of a finished model, there are no training
    rows: the others are only to be measured on. Raises DataError with every problem: a missing column, values that cannot
    be read, fewer than 4 rows, and what `target` says nothing can be learned from.
    """
    problems = Problems()
    _check_columns(splits, columns, known is not None, problems)
    problems.raise_as(DataError)
    findings: list[Finding] = []
    rows = {name: _converted(table, columns, target, problems) for name, table in splits.items()}
    unread = problems.some  # what cannot be read is no row yet: how many there will be is not known
    _report_numbers(rows, findings)
    target.notice(columns.label, rows, findings)
    _drop_unreadable(columns, rows, findings)
    _drop_unusable(columns, rows, findings)
    _report_repeats(rows, target, findings)
    if "train" in rows:
        _drop_leaks(columns, rows, target, leaks, findings)
    if known is not None or _enough(rows, Problems() if unread else problems, findings):
        target.check(columns.label, rows, known, problems, findings)
    problems.raise_as(DataError)
    return {name: _result(split, columns) for name, split in rows.items()}, findings


def _check_columns(splits: dict[str, Table], columns: Columns, measured: bool, problems: Problems) -> None:
    if "train" not in splits and not measured:
        there = ", ".join(table.path for table in splits.values())
        problems.add(f"there are no training rows, only {there}; add a file called train, or name the training table")
    asked = [("text", columns.text), ("label", columns.label), ("pair", columns.pair), ("group", columns.group)]
    asked += [("negative", name) for name in columns.more]
    for table in splits.values():
        for role, name in asked:
            if name is None or (role == "group" and table is not splits.get("train")):
                continue  # groups matter only where rows are still to be split
            if name not in table.columns:
                near = did_you_mean(name, table.columns)
                problems.add(f'{table.path}: there is no column "{name}" (the {role} of the other rows); {near}')


def _converted(table: Table, columns: Columns, target: Target, problems: Problems) -> Rows:
    texts: dict[str, list[str]] = {}
    for column in columns.texts:
        values = table.columns[column]
        lists = [row for row, value in enumerate(values) if isinstance(value, list)]
        if target.pictures:
            read_one = Pictures(table.path).of
            texts[column] = [
                "" if value is None or value == "" else read_one(value if isinstance(value, str) else str(value))
                for value in values
            ]
            continue
        if target.words:
            texts[column] = _texts_or_words(table, column, problems)
            continue
        if lists:
            listed = ", ".join(table.place(row) for row in lists[:10])
            problems.add(
                f'{table.path}: column "{column}" holds a list in {counted(len(lists))} ({listed}), and one text a row is '
                "expected; make it one text, or name another column with --text"
            )
        texts[column] = ["" if value is None else str(value) for value in values]
    keys = [row_key(row) for row in zip(*texts.values(), strict=True)]
    read = target.read(table, columns.label, problems)
    targets = target.located(table, columns.label, texts[columns.text], read, problems)
    return Rows(table, texts, targets, keys, list(range(len(table))))


def _texts_or_words(table: Table, column: str, problems: Problems) -> list[str]:
    found = [
        words_of(value) if isinstance(value, list) else "" if value is None else str(value)
        for value in table.columns[column]
    ]
    wrong = [row for row, text in enumerate(found) if text is None]
    if wrong:
        listed = ", ".join(f"{table.place(row)} {shown(table.columns[column][row], 40)}" for row in wrong[:10])
        problems.add(
            f'{table.path}: column "{column}" holds an empty word, or a word that is no text, in {counted(len(wrong))} '
            f"({listed}); take it out together with its tag"
        )
    return ["" if text is None else text for text in found]


def _report_numbers(rows: dict[str, Rows], findings: list[Finding]) -> None:
    for column in next(iter(rows.values())).texts:
        numbers = {
            name: [row for row, value in enumerate(split.table.columns[column]) if isinstance(value, int | float)]
            for name, split in rows.items()
        }
        find(findings, "number_text", rows, numbers, f'"{column}" holds a number, taken as its text')


def _drop_unreadable(columns: Columns, rows: dict[str, Rows], findings: list[Finding]) -> None:
    """Rows whose picture is not there or does not decode."""
    lost = [
        (name, row, text)
        for name, split in rows.items()
        for row, text in enumerate(split.texts[columns.text])
        if isinstance(text, Picture) and text.fault
    ]
    if not lost:
        return
    by_split = ", ".join(f"{name} {sum(1 for one, _, _ in lost if one == name)}" for name in rows)
    named = ", ".join(f"{shown(str(text), 100)} ({shown(text.fault, 80)})" for _, _, text in lost[:3])
    what = f"the picture cannot be read, dropped: {named}{', ...' if len(lost) > 3 else ''}"
    places = tuple(f"{rows[name].table.place(row)} {text}" for name, row, text in lost)
    examples = tuple(instance(rows[name].table.place(row), str(text), text.fault) for name, row, text in lost[:3])
    message, advice = f"{counted(len(lost))} ({by_split}): {what}", "put the files back, or take the rows out"
    findings.append(Finding("unreadable_picture", len(lost), message, places, examples, advice))
    for name, split in rows.items():
        gone = {row for one, row, _ in lost if one == name}
        split.kept = [row for row in split.kept if row not in gone]


def _drop_unusable(columns: Columns, rows: dict[str, Rows], findings: list[Finding]) -> None:
    empty = {name: [row for row in split.kept if not split.keys[row]] for name, split in rows.items()}
    bare = {
        name: [row for row in split.kept if split.keys[row] and split.targets[row] is None]
        for name, split in rows.items()
    }
    for name, split in rows.items():
        gone = set(empty[name]) | set(bare[name])
        split.kept = [row for row in split.kept if row not in gone]
    named = " or ".join(f'"{column}"' for column in columns.sources or columns.texts)
    find(findings, "empty_text", rows, empty, f"{named} is empty; dropped")
    find(findings, "missing_label", rows, bare, f'"{columns.label}" is empty; dropped')
    if columns.group is not None and "train" in rows:
        groups = rows["train"].table.columns[columns.group]
        alone = {"train": [row for row in rows["train"].kept if groups[row] in (None, "")]}
        what = f'"{columns.group}" is empty; each such row is a group of its own'
        find(findings, "missing_group", rows, alone, what)
    for name in [name for name, split in rows.items() if name != "train" and not split.kept]:
        table = rows[name].table
        message = f"{name}: none of the {counted(len(table))} of {table.path} can be used, so it is left out"
        findings.append(Finding("unused_split", len(table), message, tuple(rows[name].places(range(len(table))))))
        del rows[name]


def _report_repeats(rows: dict[str, Rows], target: Target, findings: list[Finding]) -> None:
    repeated: dict[str, list[int]] = {}
    turned: dict[str, list[int]] = {}
    said: dict[str, dict[str, object]] = {}  # key -> the different targets of its rows, by name
    for name, split in rows.items():
        seen: set[tuple[str, str]] = set()
        repeated[name], turned[name] = [], []
        orders: dict[str, str] = {}  # two texts in either order -> the order that they came in first
        for row in split.kept:
            if target.swaps and orders.setdefault(either_order(split.keys[row]), split.keys[row]) != split.keys[row]:
                turned[name].append(row)
            pair = (split.keys[row], target.name(split.targets[row]))
            if pair in seen:
                repeated[name].append(row)
            seen.add(pair)
            said.setdefault(split.keys[row], {})[pair[1]] = split.targets[row]
    what = "repeats the text and label of an earlier row of its split; kept"
    find(findings, "duplicate", rows, repeated, what, "keep one of each: repeated rows count more than others")
    what = "holds the two texts of an earlier row of its split, swapped; kept on its side"
    find(findings, "swapped", rows, turned, what)
    torn_keys = {key: names for key, names in said.items() if len(names) > 1 and target.disagree([*names.values()])}
    if torn_keys:
        order = {key: place for place, key in enumerate(torn_keys)}  # rows of one text beside each other
        torn = {
            name: sorted(
                (row for row in split.kept if split.keys[row] in order), key=lambda row: order[split.keys[row]]
            )
            for name, split in rows.items()
        }
        first, names = next(iter(torn_keys.items()))
        labels = ", ".join(f'"{name}"' for name in sorted(names)[:4])
        number = "1 text has" if len(torn_keys) == 1 else f"{len(torn_keys)} texts have"
        what = f'{number} more than one label, such as "{shown(first.replace(JOINT, " / "), 40)}" with {labels}; kept'
        several = ", or learn several with --task multilabel" if isinstance(target, OneClass) else ""
        find(findings, "conflict", rows, torn, what, f"decide which label is right{several}")


def _drop_leaks(columns: Columns, rows: dict[str, Rows], target: Target, leaks: str, findings: list[Finding]) -> None:
    done = "dropped" if leaks == "drop" else "kept as asked, which flatters the result"
    if "validation" in rows and "test" in rows:
        for kind, said, shared in _shared(rows, "validation", ("test",), target):
            what = f"the text of a validation row is also in test{said}; {done}"
            find(findings, f"leak_validation{kind}", rows, shared, what, ON_ONE_SIDE)
            _leave_out(rows, shared, leaks)
    held = {name: split for name, split in rows.items() if name != "train"}
    train = rows["train"]
    for kind, said, leaked in _shared(rows, "train", tuple(held), target):
        what = f"the text is also in validation or test{said}; {done} from train"
        find(findings, f"leak{kind}", rows, leaked, what, ON_ONE_SIDE)
        _leave_out(rows, leaked, leaks)
    if columns.group is None:
        return
    groups = {
        split.table.columns[columns.group][row]
        for split in held.values()
        if columns.group in split.table.columns
        for row in split.kept
    } - {None, ""}
    own = train.table.columns[columns.group]
    crossed = {"train": [row for row in train.kept if own[row] in groups]}
    what = f'the "{columns.group}" is also in validation or test; {done} from train'
    find(findings, "leak_group", rows, crossed, what, ON_ONE_SIDE)
    _leave_out(rows, crossed, leaks)


def _shared(
    rows: dict[str, Rows], side: str, others: tuple[str, ...], target: Target
) -> list[tuple[str, str, dict[str, list[int]]]]:
    """Rows of `side` whose texts are among the others', as they are and, of a target that swaps, in the other order.

    For both: the end of the finding's kind, words for its message, and the rows.
    """
    known = {rows[name].keys[row] for name in others for row in rows[name].kept}
    split = rows[side]
    same = [row for row in split.kept if split.keys[row] in known]
    found = [("", "", same)]
    if target.swaps:
        either, told = {either_order(key) for key in known}, set(same)
        turned = [row for row in split.kept if row not in told and either_order(split.keys[row]) in either]
        found.append(("_swapped", ", its two texts swapped", turned))
    return [(kind, said, {side: some}) for kind, said, some in found if some]


def _leave_out(rows: dict[str, Rows], found: dict[str, list[int]], leaks: str) -> None:
    for name, some in found.items() if leaks == "drop" else ():
        gone = set(some)
        rows[name].kept = [row for row in rows[name].kept if row not in gone]
        if not rows[name].kept and name != "train":
            del rows[name]


def _enough(rows: dict[str, Rows], problems: Problems, findings: list[Finding]) -> bool:
    """Whether there are rows to learn from; a problem says why not."""
    total = sum(len(split.kept) for split in rows.values())
    if total >= FEWEST_ROWS and rows["train"].kept:
        return True
    read = sum(len(split.table) for split in rows.values())
    left = f"{counted(total)} of {read} can be used" + ("" if rows["train"].kept else ", none of them for training")
    why = "; ".join(finding.message for finding in findings if "dropped" in finding.message)
    path = rows["train"].table.path
    problems.add(f"{path}: {left}, and at least {FEWEST_ROWS} are needed; add rows{f' ({why})' if why else ''}")
    return False


def _result(split: Rows, columns: Columns) -> Table:
    whole = {**split.table.columns, **split.texts, columns.label: split.targets}
    return Table(split.table.path, whole, split.table.lines).take(split.kept)
