"""Which units are held out: shares of every class, drawn by what each unit holds and not by where it stands."""

from __future__ import annotations

import math
from collections import Counter

from tunesmith.data.units import Unit

ROWS_WEIGHT = 10  # of how many rows a side of groups has, beside what each class has
PLAY = 1.0  # roots of a class's share that groups may go beyond it
MOST_REPAIRS = 100  # of a side of groups
NEAR_EDGE = 100  # groups on either side of the last that was drawn, that may be exchanged
ROUNDING = 1e-9  # 0.29 of 100 rows are 29, and not the 28.999... that floating point makes of it


def main_classes(units: list[Unit]) -> list[str]:
    """The class that each unit counts for: that which most of its rows have, and of equals the rarest."""
    total: Counter[str] = Counter()
    for unit in units:
        total.update(unit.labels)
    return [min(unit.labels, key=lambda label: (-unit.labels[label], total[label], label)) for unit in units]


def hold_out(units: list[Unit], sides: list[str], side: str, share: float, seed: int) -> None:
    """Moves units from "train" to `side`, so that `share` of all rows, and nearly that of the rows of each class, is there.

    In the order of their draws each class gives what it must; what is then missing comes from the units next in order of
    all classes, as long as none gives more than it may, and at last of any. No class gives its last training unit. A class
    must give its share rounded down and may give it rounded up. From a share of 5 rows on there is play, of about the
    share's root less 1: of 17 rows a class gives 14 to 20. That is less than rows drawn without classes vary by, and more
    than the edge of a class mostly moves when rows are added (measured on Banking77, 13 test rows a class, with a tenth of
    the rows added: 2.0 % of the test rows leave; without play 3.2 %).
    """
    classes = main_classes(units)
    sizes: Counter[str] = Counter()
    for unit, label in zip(units, classes, strict=True):
        sizes[label] += len(unit.rows)
    wanted = {label: share * size for label, size in sizes.items()}
    play = {label: max(0, math.isqrt(max(0, math.floor(exact) - 1)) - 1) for label, exact in wanted.items()}
    least = {label: math.floor(exact + ROUNDING) - play[label] for label, exact in wanted.items()}
    most = {label: math.ceil(exact - ROUNDING) + play[label] for label, exact in wanted.items()}
    order = _in_order(units, sides, side, seed)
    left = Counter(classes[index] for index in order)
    have: Counter[str] = Counter()
    missing = max(1, round(share * sum(sizes.values())))
    # A repeated text that does not fit in any class's share may bring all together nearer to theirs.
    for bound, last in ((least, False), (most, False), (None, False), (None, True)):
        for index in order:
            label, size = classes[index], len(units[index].rows)
            fits = bound is None or have[label] + size <= bound[label]
            room = 2 * missing - 1 if last else missing
            if sides[index] == "train" and left[label] > 1 and size <= room and fits:
                sides[index] = side
                have[label] += size
                left[label] -= 1
                missing -= size


def hold_out_groups(units: list[Unit], sides: list[str], side: str, share: float, seed: int) -> None:
    """Moves groups of many rows from "train" to `side`, as `hold_out` does, where each may be of several classes.

    Groups are taken in the order of their draws, while that brings the side nearer to its share of rows. Only where it then
    differs from what it should have by more than rows drawn one by one would (chi-squared, over rows and classes, above
    their number) are groups at the edge added, taken back or exchanged, those that help most first.
    """
    order = _in_order(units, sides, side, seed)
    balance = _Balance(units, share)
    for balanced in (True, False):
        for index in order:
            if index not in balance.held and balance.fits(index, balanced):
                balance.move(index)
    for _ in range(MOST_REPAIRS):
        if balance.distance() <= len(balance.wanted) or not _repair(balance, order):
            break
    for index in balance.held:
        sides[index] = side


class _Balance:
    """What a side has of rows and of each class, and what it should have."""

    def __init__(self, units: list[Unit], share: float) -> None:
        self._counts = [{None: len(unit.rows), **unit.labels} for unit in units]  # by class; None for all rows
        total: Counter[str | None] = Counter()
        for counts in self._counts:
            total.update(counts)
        self.wanted = {key: share * count for key, count in total.items()}
        self._weight = {key: ROWS_WEIGHT if key is None else 1 for key in total}
        self._have = dict.fromkeys(self.wanted, 0)
        self.held: set[int] = set()

    def fits(self, index: int, balanced: bool) -> bool:
        """Whether the unit brings all rows nearer to their share, and with `balanced` no class beyond its own and play."""
        counts = self._counts[index]
        if _growth(self._have[None], counts[None], self.wanted[None]) >= 0:
            return False
        return not balanced or all(
            self._have[key] + count <= math.ceil(self.wanted[key]) + PLAY * math.sqrt(self.wanted[key])
            for key, count in counts.items()
        )

    def distance(self) -> float:
        """Chi-squared, that of the rows weighted."""
        return sum(self._weight[key] * (self._have[key] - wanted) ** 2 / wanted for key, wanted in self.wanted.items())

    def change(self, index: int) -> float:
        """By how much the distance grows when the unit is added, or taken back where it is held."""
        sign = -1 if index in self.held else 1
        return sum(
            self._weight[key] * _growth(self._have[key], sign * count, self.wanted[key])
            for key, count in self._counts[index].items()
        )

    def exchange(self, one: int, other: int) -> float:
        """By how much it grows when one of the two is added and the other is taken back."""
        counts = self._counts[other]
        shared = sum(
            self._weight[key] * count * counts[key] / self.wanted[key]
            for key, count in self._counts[one].items()
            if key in counts
        )
        return self.change(one) + self.change(other) - 2 * shared

    def move(self, index: int) -> None:
        """Adds the unit, or takes it back where it is held."""
        sign = -1 if index in self.held else 1
        self.held ^= {index}
        for key, count in self._counts[index].items():
            self._have[key] += sign * count


def _repair(balance: _Balance, order: list[int]) -> bool:
    """Adds, takes back or exchanges the units that lessen the distance most; whether any do."""
    inside = [index for index in reversed(order) if index in balance.held][:NEAR_EDGE]
    outside = [index for index in order if index not in balance.held][:NEAR_EDGE]
    ways: list[tuple[float, tuple[int, ...]]] = [(balance.change(index), (index,)) for index in (*outside, *inside)]
    ways += [(balance.exchange(one, other), (one, other)) for one in outside for other in inside]
    growth, moved = min(ways, key=lambda way: way[0])
    if growth >= -ROUNDING:
        return False
    for index in moved:
        balance.move(index)
    return True


def _in_order(units: list[Unit], sides: list[str], side: str, seed: int) -> list[int]:
    draws = {index: unit.draw(seed, side) for index, unit in enumerate(units) if sides[index] == "train"}
    return sorted(draws, key=lambda index: (draws[index], index))


def _growth(have: int, more: int, wanted: float) -> float:
    return ((have + more - wanted) ** 2 - (have - wanted) ** 2) / wanted


def return_lost_classes(units: list[Unit], sides: list[str], seed: int) -> None:
    """Moves the smallest held-out unit of every class without a training row back to train."""
    kept = {label for unit, side in zip(units, sides, strict=True) if side == "train" for label in unit.labels}
    for label in sorted({label for unit in units for label in unit.labels}):
        if label in kept:
            continue
        with_label = [index for index, unit in enumerate(units) if label in unit.labels]
        index = min(with_label, key=lambda index: (len(units[index].rows), units[index].draw(seed, "kept"), index))
        sides[index] = "train"
        kept |= set(units[index].labels)


def fill(units: list[Unit], sides: list[str], side: str, seed: int) -> bool:
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
    sides[min(spare, key=lambda index: (len(units[index].rows), units[index].draw(seed, side), index))] = side
    return True


def folds_of(units: list[Unit], folds: int, seed: int) -> list[int]:
    """For each unit the fold, from 0, in which it is tested: each class is cut into as many runs of its order of draws.

    The order is that of `hold_out` for "test". Where a class's runs begin is drawn by its name, so that classes smaller
    than the number of folds do not all leave out the same ones.
    """
    classes = main_classes(units)
    of_class: dict[str, list[int]] = {}
    for index, label in enumerate(classes):
        of_class.setdefault(label, []).append(index)
    found = [0] * len(units)
    for label, members in of_class.items():
        start = Unit((), Counter(), label).draw(seed, "fold") % folds
        rows, before = sum(len(units[index].rows) for index in members), 0
        for index in sorted(members, key=lambda index: (units[index].draw(seed, "test"), index)):
            size = len(units[index].rows)
            # By the unit's middle: one that lies across an edge goes where more of it lies.
            found[index] = (folds * (2 * before + size) // (2 * rows) + start) % folds
            before += size
    return found
