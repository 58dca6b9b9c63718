"""Rows held out: by label, in whole groups where asked, and never the same text on two sides."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.audit import either_order, row_key
from tunesmith.data.columns import Columns
from tunesmith.data.passages import PART
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.numbers import Numbers
from tunesmith.errors import DataError, Problems
from tunesmith.seeds import seed_of

SIDES = ("test", "validation")  # held out in this order; the rest trains


@dataclass(frozen=True)
class Splits:
    """Three tables, and for each how it came about."""

    train: Table
    validation: Table
    test: Table
    why: dict[str, str]  # "train", "validation", "test" -> such as "10 % of train, stratified by label, seed 0"
    given: frozenset[str] = frozenset()  # which of validation and test were tables of their own


@dataclass(frozen=True)
class _Unit:
    """Rows that stay together: of one text, or of one group."""

    rows: tuple[int, ...]
    labels: Counter[str]


def make_splits(
    tables: dict[str, Table], columns: Columns, target: Target, validation: float, test: float, seed: int
) -> Splits:
    """Training, validation and test rows from cleaned tables; the given ones are left as they are.

    `validation` and `test` are shares of the rows of `tables["train"]`, and are used only where that table is not
    given. Stratified by what `target` counts a row for: each class gives its share, to the nearest row over all classes,
    and keeps at least one training row. With `columns.group`, rows of one group stay together, and shares and strata are
    met as nearly as whole groups allow: a side that would stay empty takes the smallest group that can be spared. Rows
    of the same text (case and white space set aside) stay together always, and where the target `swaps` so do rows of the
    same two texts in either order. A function of the rows and the seed alone.
    Raises DataError where a share above 0 cannot hold out one row.
    """
    train = tables["train"]
    shares = {"test": test, "validation": validation}
    asked = {side: shares[side] for side in SIDES if side not in tables and shares[side] > 0}
    if sum(asked.values()) >= 1:
        raise DataError("data.validation and data.test together hold out every row; lower them to below 1 in all")
    side_of, filled = (
        _allocate(train, columns, target, asked, seed) if asked else (["train"] * len(train), frozenset[str]())
    )
    problems = Problems()
    made: dict[str, Table] = {}
    for side in ("train", "validation", "test"):
        if side in tables and side != "train":
            made[side] = tables[side]
            continue
        made[side] = train.take([row for row, its in enumerate(side_of) if its == side])
        if side in asked and not len(made[side]):
            problems.add(_nothing_held_out(train, columns, target, side, asked[side]))
    problems.raise_as(DataError)
    why = {side: _why(side, tables, columns, target, asked, seed) for side in made}
    for side in filled:
        share = _percent(len(made[side]) / len(train))
        why[side] += f"; it is the smallest {_kind(columns)} that can be spared, {share}"
    return Splits(made["train"], made["validation"], made["test"], why, frozenset(tables) - {"train"})


def strata_of_test(splits: Splits, columns: Columns, target: Target) -> list[int] | None:
    """The class that each test row counts for, numbered; None where the rows were not held out by label.

    So that an interval may know that every class has its share of such rows: in a table of its own (`Splits.given`), or
    where whole groups were held out, it has by chance what it has. A row of several labels counts for the rarest of them,
    as it did when it was drawn. None of numbers either: of 200 rows held out of 1,000 by value, intervals of a correlation
    that knew the tenths covered 91 to 92 %, those that did not 95 to 96 %, since the 1,000 vary themselves.
    """
    by_value = isinstance(target, Numbers)
    if "test" in splits.given or columns.group is not None or by_value or not len(splits.test):
        return None
    labels = target.strata(splits.test.columns[columns.label])
    total = Counter(label for names in labels for label in names)
    names = [min(of, key=lambda label: (total[label], label), default="") for of in labels]
    number = {name: place for place, name in enumerate(sorted(set(names)))}
    return [number[name] for name in names] if len(number) > 1 else None


def _allocate(
    train: Table, columns: Columns, target: Target, asked: dict[str, float], seed: int
) -> tuple[list[str], frozenset[str]]:
    """The side of each row, and the sides that no whole unit was small enough for."""
    strata = target.strata(train.columns[columns.label])
    keys = [row_key(row) for row in zip(*(train.columns[name] for name in columns.texts), strict=True)]
    links = [[either_order(key) for key in keys] if target.swaps else keys]
    if columns.group is not None:
        links.append(["" if value is None else f"{value}" for value in train.columns[columns.group]])
    units = [
        _Unit(rows, Counter(name for row in rows for name in strata[row])) for rows in _components(links, len(train))
    ]
    place = _by_label if columns.group is None else _by_group
    side_of_unit = place(units, asked, seed)
    _return_lost_classes(units, side_of_unit)
    filled = frozenset(side for side in asked if side not in side_of_unit and _fill(units, side_of_unit, side, seed))
    side_of = ["train"] * len(train)
    for unit, side in zip(units, side_of_unit, strict=True):
        for row in unit.rows:
            side_of[row] = side
    return side_of, filled


def _components(links: list[list[str]], rows: int) -> list[tuple[int, ...]]:
    """Rows joined by an equal value in any of `links` ("" joins nothing), in order of their first row."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for values in links:
        first: dict[str, int] = {}
        for row, value in enumerate(values):
            if value:
                one, other = root(first.setdefault(value, row)), root(row)
                parent[max(one, other)] = min(one, other)
    together: dict[int, list[int]] = {}
    for row in range(rows):
        together.setdefault(root(row), []).append(row)
    return [tuple(found) for found in together.values()]


def _by_label(units: list[_Unit], asked: dict[str, float], seed: int) -> list[str]:
    """Sides by quotas of each class; a unit counts for the class most of its rows have, and of equals the rarest."""
    classes: dict[str, list[int]] = {}
    total: Counter[str] = Counter()
    for unit in units:
        total.update(unit.labels)
    for index, unit in enumerate(units):
        main = min(unit.labels, key=lambda label: (-unit.labels[label], total[label], label))
        classes.setdefault(main, []).append(index)
    sizes = {label: sum(len(units[index].rows) for index in found) for label, found in classes.items()}
    spare = {label: len(found) - 1 for label, found in classes.items()}
    quotas: dict[str, dict[str, int]] = {}
    for side, share in asked.items():
        quotas[side] = _quotas(sizes, spare, share, random.Random(seed_of(seed, "quota", side)))
        spare = {label: spare[label] - quotas[side][label] for label in spare}
    sides = ["train"] * len(units)
    over = dict.fromkeys(asked, 0)  # rows that a class could not give, its texts being repeated: the next one may
    for label in sorted(classes):
        waiting = classes[label]
        random.Random(seed_of(seed, "split", label)).shuffle(waiting)
        left = len(waiting)
        for side in asked:
            room, later = over[side] + quotas[side][label], []
            for index in waiting:
                if len(units[index].rows) <= room and left > 1:
                    sides[index] = side
                    room -= len(units[index].rows)
                    left -= 1
                else:
                    later.append(index)
            waiting, over[side] = later, room
    return sides


def _quotas(sizes: dict[str, int], spare: dict[str, int], share: float, draw: random.Random) -> dict[str, int]:
    """Rows to hold out of each class: largest remainders, so that the sum is right although classes are small."""
    wanted = max(1, round(share * sum(sizes.values())))
    exact = {label: share * size for label, size in sorted(sizes.items())}
    quotas = {label: min(math.floor(value), max(spare[label], 0)) for label, value in exact.items()}
    # Ties are drawn, or the first classes of the alphabet would give more than others under every seed.
    order = sorted(exact, key=lambda label: (-(exact[label] - math.floor(exact[label])), draw.random()))
    for label in order:
        if sum(quotas.values()) < wanted and quotas[label] < spare[label]:
            quotas[label] += 1
    return quotas


def _by_group(units: list[_Unit], asked: dict[str, float], seed: int) -> list[str]:
    """Sides by the least growth of chi-squared, over classes and over rows, between what a side has and should have.

    Large groups are placed first, while every side has room to balance them with later ones.
    """
    shares = {"train": 1 - sum(asked.values()), **asked}
    totals: Counter[str] = Counter()
    for unit in units:
        totals.update(unit.labels)
    rows = sum(totals.values())
    have: dict[str, Counter[str]] = {side: Counter() for side in shares}
    size = dict.fromkeys(shares, 0)
    order = list(range(len(units)))
    random.Random(seed_of(seed, "split")).shuffle(order)
    order.sort(key=lambda index: -len(units[index].rows).bit_length())
    sides = ["train"] * len(units)
    for index in order:
        unit, growth = units[index], {}
        for side, share in shares.items():
            growth[side] = _growth(size[side], len(unit.rows), share * rows)
            growth[side] += sum(_growth(have[side][k], n, share * totals[k]) for k, n in unit.labels.items())
        best = min(growth, key=lambda side: growth[side])
        sides[index] = best
        have[best].update(unit.labels)
        size[best] += len(unit.rows)
    return sides


def _growth(have: int, more: int, wanted: float) -> float:
    return ((have + more - wanted) ** 2 - (have - wanted) ** 2) / wanted


def _return_lost_classes(units: list[_Unit], sides: list[str]) -> None:
    """Moves the smallest held-out unit of every class without a training row back to train."""
    kept = {label for unit, side in zip(units, sides, strict=True) if side == "train" for label in unit.labels}
    for label in sorted({label for unit in units for label in unit.labels}):
        if label in kept:
            continue
        with_label = [index for index, unit in enumerate(units) if label in unit.labels]
        index = min(with_label, key=lambda index: (len(units[index].rows), index))
        sides[index] = "train"
        kept |= set(units[index].labels)


def _fill(units: list[_Unit], sides: list[str], side: str, seed: int) -> bool:
    """Gives an empty side the smallest training unit without which train keeps every class; whether there is one."""
    having = Counter(
        label for unit, its in zip(units, sides, strict=True) if its == "train" for label in set(unit.labels)
    )
    spare = [
        index
        for index, unit in enumerate(units)
        if sides[index] == "train" and all(having[label] > 1 for label in unit.labels)
    ]
    if len(spare) == 0 or sides.count("train") < 2:
        return False
    random.Random(seed_of(seed, "fill", side)).shuffle(spare)
    sides[min(spare, key=lambda index: len(units[index].rows))] = side
    return True


def _kind(columns: Columns) -> str:
    if columns.group == PART:
        return "file, or part of one"
    return "group of equal texts" if columns.group is None else f'group of "{columns.group}"'


def _why(
    side: str, tables: dict[str, Table], columns: Columns, target: Target, asked: dict[str, float], seed: int
) -> str:
    if side in tables and side != "train":
        return _given(side, tables)
    if side == "train":
        rest = 1 - sum(asked.values())
        return f"the other {_percent(rest)} of {Path(tables['train'].path).name}" if asked else _given(side, tables)
    if side not in asked:
        return "none: no file of it is given, and its share is 0"
    how = target.balance if columns.group is None else f'whole groups of "{columns.group}"'
    how = "whole files, or consecutive parts of one" if columns.group == PART else how
    return f"{_percent(asked[side])} of {Path(tables['train'].path).name}, {how}, seed {seed}"


def _given(side: str, tables: dict[str, Table]) -> str:
    name = Path(tables[side].path).name
    shared = [table.path for table in tables.values()].count(tables[side].path) > 1
    return f'given: {name}, column "split"' if shared else f"given: {name}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _nothing_held_out(train: Table, columns: Columns, target: Target, side: str, share: float) -> str:
    if columns.group is not None:
        groups = len({str(value) for value in train.columns[columns.group]})
        parts = f"{groups} parts" if columns.group == PART else f'{groups} groups of "{columns.group}"'
        reason = f"its {len(train)} rows fall into {parts}"
    else:
        classes = len({name for names in target.strata(train.columns[columns.label]) for name in names})
        reason = f"its {len(train)} rows have {classes} classes"
    return (
        f"{train.path}: no row can be held out for {side} ({_percent(share)} asked for): {reason}, and every class "
        f"must keep a training row, with equal texts on one side; add rows, give a {side} file, or --set data.{side}=0"
    )
