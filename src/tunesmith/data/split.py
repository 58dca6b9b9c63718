"""Rows held out: by label, in whole groups or by time where asked, and never the same text on two sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.columns import Columns
from tunesmith.data.findings import Finding, counted
from tunesmith.data.near import CROWDED, nearest
from tunesmith.data.passages import PART
from tunesmith.data.shares import fill, folds_of, hold_out, hold_out_groups, return_lost_classes
from tunesmith.data.table import Table, shown
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.times import Times, newest, times_of
from tunesmith.data.units import MOST_NEAR, Units, group_names, read_texts, text_keys, units_of
from tunesmith.errors import DataError, Problems

SIDES = ("test", "validation")  # held out in this order; the rest trains
RULE = 2  # counts up whenever the same rows and settings would be split otherwise


@dataclass(frozen=True)
class Splits:
    """Three tables, and for each how it came about."""

    train: Table
    validation: Table
    test: Table
    why: dict[str, str]  # "train", "validation", "test" -> such as "10 % of train, stratified by label, seed 0"
    given: frozenset[str] = frozenset()  # which of validation and test were tables of their own
    findings: tuple[Finding, ...] = ()  # what was left out in splitting, and what could not be kept together


def make_splits(
    tables: dict[str, Table], columns: Columns, target: Target, validation: float, test: float, seed: int
) -> Splits:
    """Training, validation and test rows from cleaned tables; the given ones are left as they are.

    `validation` and `test` are shares of the rows of `tables["train"]`, and are used only where that table is not
    given. Stratified by what `target` counts a row for: all classes together give their share to the row, each gives its
    own to the row or, where that is 5 rows or more, nearly so (see `hold_out`), and keeps at least one training row. Rows
    of the same text (case and white space set aside) stay together always, and where the target `swaps` so do rows of the
    same two texts in either order. So do rows that say nearly the same (see near.py), but for those that would make a unit
    of more than a twentieth of the rows: a finding counts these. With `columns.group`, rows of one group stay together,
    and shares and strata are met as nearly as whole groups allow: a side that would stay empty takes the smallest group
    that can be spared.

    A function of what the rows hold and of the seed, whatever their order. A row is drawn by its text (or group) alone,
    and each class gives the rows that are drawn first. Added rows so move an old one only by standing on the other side of
    an edge: with n rows held out of a class and a share a of rows added, the edge moves by about sqrt(a n) rows, where a
    fresh drawing would move n. Measured on Banking77 with a tenth of the rows added: 98 % of the test rows (a tenth, 13 a
    class) stay test rows, 96 % of the validation rows (6 a class) stay so, and of whole groups of 6 rows of mixed classes
    95 %. A row moves too where an added one joins it to another unit.

    With `columns.time` the newest rows are held out instead: see `_by_time`. Raises DataError where a share above 0 cannot
    hold out one row, and as `times_of` does.
    """
    train = tables["train"]
    shares = {"test": test, "validation": validation}
    asked = {side: shares[side] for side in SIDES if side not in tables and shares[side] > 0}
    if sum(asked.values()) >= 1:
        raise DataError("data.validation and data.test together hold out every row; lower them to below 1 in all")
    if not asked:
        parts = {"train": train} | {side: tables[side] if side in tables else train.take([]) for side in SIDES}
        return _splits(parts, _reasons(tables, columns, target, asked, seed), tables)
    if columns.time is not None:
        return _by_time(tables, columns, target, asked)
    units = units_of(train, columns, target, seed)
    sides = ["train"] * len(units.all)
    for side, share in asked.items():
        draw = hold_out if columns.group is None else hold_out_groups
        draw(units.all, sides, side, share, seed)
    return_lost_classes(units.all, sides, seed)
    filled = [side for side in asked if side not in sides and fill(units.all, sides, side, seed)]
    parts = _parts(tables, units, sides)
    _check_held_out(parts, train, columns, target, asked)
    why = _reasons(tables, columns, target, asked, seed)
    for side in filled:
        share = _percent(len(parts[side]) / len(train))
        why[side] += f"; it is the smallest {_kind(columns)} that can be spared, {share}"
    why["train"] += _near_said(units)
    return _splits(parts, why, tables, _apart(train, units))


def make_fold(
    train: Table, columns: Columns, target: Target, fold: int, folds: int, validation: float, seed: int
) -> Splits:
    """Fold `fold` (from 0) of `folds`: its test rows, and validation rows out of the rest.

    The test sides of all folds share no row and hold every one, but for units that are the only one of a class: these
    train in every fold and are never tested, which `why` says. Units are whole and drawn as `make_splits` does, each class
    cut into `folds` runs of its order, whose lengths differ by one unit at most; so added rows move old ones over the edges
    of runs alone. `validation` is the share of all rows; 0 for none. Raises DataError where a fold, its training rows or its
    validation rows would be empty, and for rows that are split by time, which have no folds.
    """
    if columns.time is not None:
        raise DataError(
            f'data.time: rows in order of "{columns.time}" have one newest part, and no folds; leave one out'
        )
    if not 0 <= fold < folds or folds < 2:
        raise ValueError(
            f"fold {fold} of {folds}: a fold is from 0 to one less than the folds, of which there are 2 or more"
        )
    units = units_of(train, columns, target, seed)
    tested = folds_of(units.all, folds, seed)
    empty = [str(place + 1) for place in range(folds) if place not in tested]
    if empty:
        raise DataError(
            f"{train.path}: {len(units.all)} {_kinds(columns)} make no {folds} folds (empty: {', '.join(empty)}); "
            "ask for fewer folds, or add rows"
        )
    held = Counter(label for unit in units.all for label in set(unit.labels) if label)
    alone = [target.classes and any(held[label] == 1 for label in unit.labels if label) for unit in units.all]
    sides = ["test" if at == fold and not one else "train" for at, one in zip(tested, alone, strict=True)]
    if "test" not in sides:
        raise DataError(
            f"{train.path}: fold {fold + 1} of {folds} would test no row, since each of its rows is the only one of a class; "
            "ask for fewer folds, or add rows"
        )
    asked = {"validation": validation} if validation > 0 else {}
    for side, share in asked.items():
        rest = [unit for unit, its in zip(units.all, sides, strict=True) if its == "train"]
        inner = ["train"] * len(rest)
        hold_out(rest, inner, side, share * len(train) / sum(len(unit.rows) for unit in rest), seed)
        return_lost_classes(rest, inner, seed)
        again = iter(inner)
        sides = [next(again) if its == "train" else its for its in sides]
    parts = _parts({"train": train}, units, sides)
    _check_held_out(parts, train, columns, target, asked)
    why = _reasons({"train": train}, columns, target, asked, seed)
    why["test"] = f"fold {fold + 1} of {folds} of {Path(train.path).name}, {_how(columns, target)}, seed {seed}"
    why["train"] = f"the other rows of {Path(train.path).name}{_near_said(units)}"
    untested = sum(len(unit.rows) for unit, one in zip(units.all, alone, strict=True) if one)
    if untested:
        why["train"] += (
            f"; {counted(untested)} of classes that have no other text train in every fold, and are never tested"
        )
    return _splits(parts, why, {"train": train}, _apart(train, units))


def _by_time(tables: dict[str, Table], columns: Columns, target: Target, asked: dict[str, float]) -> Splits:
    """The newest rows test, those before them validation, the oldest train; rows of one instant stay together.

    A group stands where its newest row does, and its rows that are not newer than all of the sides before are left out: they
    would test on the past. Nothing is stratified. Rows without a time are left out, as they could be newer
    than any. So are held-out rows of the same or nearly the same text as a row of a side before (training rows, and for test
    validation rows too), which the model was shown or chosen by; and those of a class that no training row has, which no
    model could name. Each is counted.
    """
    assert columns.time is not None
    whole = tables["train"]
    times = times_of(whole, columns.time)
    findings = []
    dated = [row for row, rank in enumerate(times.ranks) if rank is not None]
    if len(dated) < len(whole):
        gone = [row for row, rank in enumerate(times.ranks) if rank is None]
        findings.append(_finding("missing_time", whole, gone, f'"{columns.time}" is empty; dropped'))
    train = whole.take(dated)
    ranks = [rank for rank in times.ranks if rank is not None]
    side_of = newest(_newest_of_group(train, columns, ranks), asked)
    parts = {side: [row for row, its in enumerate(side_of) if its == side] for side in ("train", *asked)}
    findings += _leave_out_past(train, columns, ranks, parts)
    edges = {
        side: (min(ranks[row] for row in rows), max(ranks[row] for row in rows)) for side, rows in parts.items() if rows
    }
    findings += _leave_out_copies(train, columns, target, parts)
    findings += _leave_out_unknown(train, columns, target, parts)
    made = {side: train.take(rows) for side, rows in parts.items()}
    made |= {side: tables[side] if side in tables else train.take([]) for side in SIDES if side not in made}
    _check_held_out(made, train, columns, target, asked)
    why = _reasons(tables, columns, target, asked, 0)
    for side, (first, last) in edges.items():
        why[side] = _when(side, columns, times, first, last, Path(whole.path).name, asked)
    return _splits(made, why, tables, tuple(findings))


def _newest_of_group(train: Table, columns: Columns, ranks: list[int]) -> list[int]:
    """Each row's rank, or that of the newest row of its group."""
    latest: dict[str, int] = {}
    groups = group_names(train, columns)
    for name, rank in zip(groups, ranks, strict=True):
        latest[name] = max(rank, latest.get(name, rank))
    return [latest[name] if name else rank for name, rank in zip(groups, ranks, strict=True)]


def _leave_out_past(train: Table, columns: Columns, ranks: list[int], parts: dict[str, list[int]]) -> list[Finding]:
    """Takes held-out rows away that are not newer than every row of the sides before; only rows of groups can be."""
    latest, findings = -1, []
    for side in ("train", *(side for side in reversed(SIDES) if side in parts)):
        past = [row for row in parts[side] if ranks[row] <= latest]
        if past:
            what = f'older than rows that the model learns from or is chosen by, though of a newer "{columns.group}"; dropped'
            findings.append(_finding("time_past", train, past, f"{what} from {side}"))
            parts[side] = sorted(set(parts[side]) - set(past))
        latest = max((ranks[row] for row in parts[side]), default=latest)
    return findings


def _leave_out_copies(train: Table, columns: Columns, target: Target, parts: dict[str, list[int]]) -> list[Finding]:
    texts, keys = read_texts(train, columns, target), text_keys(train, columns, target)
    before: list[int] = []
    gone, crowded = dict[str, list[int]](), False
    for side in ("train", *(side for side in reversed(SIDES) if side in parts)):
        rows = parts[side]
        known = {keys[row] for row in before}
        near, missed = nearest([texts[row] for row in rows], [texts[row] for row in before]) if before else ({}, False)
        crowded = crowded or missed
        copies = [row for place, row in enumerate(rows) if place in near or (keys[row] and keys[row] in known)]
        if copies:
            gone[side] = copies
            parts[side] = sorted(set(rows) - set(copies))
        before += parts[side]
    what = "the text, or nearly the same, stands in older rows that the model learns from or is chosen by; dropped from"
    found = [_finding("time_copy", train, rows, f"{what} {side}") for side, rows in gone.items()]
    return [*found, _crowded(train)] if crowded else found


def _crowded(train: Table) -> Finding:
    what = f"{CROWDED}: some that say nearly the same may stand on two sides, which may flatter the result"
    return Finding("near_crowded", len(train), what, ())


def _leave_out_unknown(train: Table, columns: Columns, target: Target, parts: dict[str, list[int]]) -> list[Finding]:
    if not target.classes:
        return []
    strata = target.strata(train.columns[columns.label])
    known = {"", *(label for row in parts["train"] for label in strata[row])}
    findings = []
    for side in [side for side in SIDES if side in parts]:
        lost = [row for row in parts[side] if not known.issuperset(strata[row])]
        if lost:
            new = {label for row in lost for label in strata[row]} - known
            what = f"no training row, which are older, has {_classes(new)}; dropped from {side}"
            findings.append(_finding("time_class", train, lost, what))
            parts[side] = sorted(set(parts[side]) - set(lost))
    return findings


def _parts(tables: dict[str, Table], units: Units, sides: list[str]) -> dict[str, Table]:
    train = tables["train"]
    rows: dict[str, list[int]] = {side: [] for side in ("train", *SIDES)}
    for unit, side in zip(units.all, sides, strict=True):
        rows[side] += unit.rows
    return {
        side: tables[side] if side in tables and side != "train" else train.take(sorted(rows[side])) for side in rows
    }


def _splits(
    parts: dict[str, Table], why: dict[str, str], tables: dict[str, Table], findings: tuple[Finding, ...] = ()
) -> Splits:
    return Splits(parts["train"], parts["validation"], parts["test"], why, frozenset(tables) - {"train"}, findings)


def _finding(kind: str, table: Table, rows: list[int], what: str) -> Finding:
    places = tuple(table.place(row) for row in rows)
    return Finding(kind, len(rows), f"{counted(len(rows))}: {what}", places)


def _apart(train: Table, units: Units) -> tuple[Finding, ...]:
    found = []
    if units.crowded:
        found.append(_crowded(train))
    if not units.apart:
        return tuple(found)
    most = _percent(MOST_NEAR)
    what = (
        f"says nearly the same as others, of which too many hang together (over {most} of all rows) to stay on one side; "
        "kept, which may flatter the result"
    )
    return (*found, _finding("near_apart", train, list(units.apart), what))


def _near_said(units: Units) -> str:
    return f"; {units.near} rows that say nearly the same as others stay with them" if units.near else ""


def _classes(names: set[str]) -> str:
    listed = ", ".join(f'"{shown(name, 40)}"' for name in sorted(names)[:10]) + (", ..." if len(names) > 10 else "")
    return f"class {listed}" if len(names) == 1 else f"any of {len(names)} classes ({listed})"


def _kind(columns: Columns) -> str:
    if columns.group == PART:
        return "file, or part of one"
    return "group of equal texts" if columns.group is None else f'group of "{columns.group}"'


def _kinds(columns: Columns) -> str:
    if columns.group == PART:
        return "files and parts of files"
    return "different texts" if columns.group is None else f'groups of "{columns.group}"'


def _how(columns: Columns, target: Target) -> str:
    how = target.balance if columns.group is None else f'whole groups of "{columns.group}"'
    return "whole files, or consecutive parts of one" if columns.group == PART else how


def _reasons(
    tables: dict[str, Table], columns: Columns, target: Target, asked: dict[str, float], seed: int
) -> dict[str, str]:
    name = Path(tables["train"].path).name
    why = {"train": f"the other {_percent(1 - sum(asked.values()))} of {name}" if asked else _given("train", tables)}
    for side in reversed(SIDES):
        if side in tables:
            why[side] = _given(side, tables)
        elif side in asked:
            why[side] = f"{_percent(asked[side])} of {name}, {_how(columns, target)}, seed {seed}"
        else:
            why[side] = "none: no file of it is given, and its share is 0"
    return why


def _when(side: str, columns: Columns, times: Times, first: int, last: int, name: str, asked: dict[str, float]) -> str:
    share = _percent(1 - sum(asked.values()) if side == "train" else asked[side])
    groups = "" if columns.group is None else f', whole groups of "{columns.group}" by their newest row'
    span = times.written[first] if first == last else f"{times.written[first]} to {times.written[last]}"
    place = "oldest" if side == "train" else "newest" if side == next(iter(asked)) else "next newest"
    return f'the {place} {share} of {name} by "{columns.time}"{groups}: {span}'


def _given(side: str, tables: dict[str, Table]) -> str:
    name = Path(tables[side].path).name
    shared = [table.path for table in tables.values()].count(tables[side].path) > 1
    return f'given: {name}, column "split"' if shared else f"given: {name}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _check_held_out(
    parts: dict[str, Table], train: Table, columns: Columns, target: Target, asked: dict[str, float]
) -> None:
    problems = Problems()
    for side in reversed(SIDES):
        if side in asked and len(parts[side]) == 0:
            problems.add(_nothing_held_out(train, columns, target, side, asked[side]))
    problems.raise_as(DataError)


def _nothing_held_out(train: Table, columns: Columns, target: Target, side: str, share: float) -> str:
    if columns.time is not None:
        reason = f'their times in "{columns.time}" are too few, or no held-out row has a text and a class of its own'
        rule = "rows of one time stay on one side, and rows whose text is older, or whose class is new, are left out"
    elif columns.group is not None:
        groups = len({str(value) for value in train.columns[columns.group]})
        parts = f"{groups} parts" if columns.group == PART else f'{groups} groups of "{columns.group}"'
        reason = f"its {len(train)} rows fall into {parts}"
        rule = "every class must keep a training row, with equal texts on one side"
    else:
        classes = len({name for names in target.strata(train.columns[columns.label]) for name in names})
        reason = f"its {len(train)} rows have {classes} classes"
        rule = "every class must keep a training row, with equal texts on one side"
    return (
        f"{train.path}: no row can be held out for {side} ({_percent(share)} asked for): {reason}, and {rule}; "
        f"add rows, give a {side} file, or --set data.{side}=0"
    )


def strata_of_test(splits: Splits, columns: Columns, target: Target) -> list[int] | None:
    """The class that each test row counts for, numbered; None where the rows were not held out by label.

    So that an interval may know that every class has its share of such rows: in a table of its own (`Splits.given`), or
    where whole groups or the newest rows were held out, it has by chance what it has. A row of several labels counts for
    the rarest of them, as it did when it was drawn. None of numbers either: of 200 rows held out of 1,000 by value,
    intervals of a correlation that knew the tenths covered 91 to 92 %, those that did not 95 to 96 %, since the 1,000 vary
    themselves.
    """
    by_value = isinstance(target, Numbers)
    drawn_apart = columns.group is not None or columns.time is not None
    if "test" in splits.given or drawn_apart or by_value or not len(splits.test):
        return None
    labels = target.strata(splits.test.columns[columns.label])
    total = Counter(label for names in labels for label in names)
    names = [min(of, key=lambda label: (total[label], label), default="") for of in labels]
    number = {name: place for place, name in enumerate(sorted(set(names)))}
    return [number[name] for name in names] if len(number) > 1 else None
