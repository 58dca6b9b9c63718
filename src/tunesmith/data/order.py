"""Which rows make up step t: a pure function of (seed, step), so order needs no saving."""

from __future__ import annotations

import heapq
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from tunesmith.seeds import seed_of

WINDOW_BATCHES = 50  # batches drawn together: enough to find texts of like length, few enough to keep batches varied


class Order(ABC):
    """The batches of a run, epoch after epoch."""

    lengths: tuple[int, ...]  # tokens of each row

    @abstractmethod
    def first(self, epoch: int) -> int:
        """The step (from 0) that an epoch begins with; of the number of epochs, how many steps these take."""

    @abstractmethod
    def epoch_of(self, step: int) -> int:
        """Which epoch (from 0) step `step` (from 0) is in."""

    @abstractmethod
    def progress(self, steps: int) -> float:
        """Epochs that are done after so many steps."""

    @abstractmethod
    def batch(self, step: int) -> tuple[int, ...]:
        """Rows of optimizer step `step` (from 0), longest first where they are of similar length."""

    @abstractmethod
    def longest(self) -> tuple[int, ...]:
        """Rows that take at least what the most expensive batch takes that could be drawn: the longest ones."""

    @property
    @abstractmethod
    def usual_rows(self) -> float:
        """Rows of a batch; the mean of the first epoch where these differ."""

    @property
    @abstractmethod
    def most_rows(self) -> int:
        """Rows that no batch has more of."""

    @property
    @abstractmethod
    def most_tokens(self) -> int:
        """Tokens, filler included, that no batch of several rows has more of; 0 where each has one."""


class SteadyOrder(Order):
    """Epochs of as many steps each, of as many rows."""

    batch_size: int

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int: ...

    @property
    def usual_rows(self) -> float:
        return self.batch_size

    def first(self, epoch: int) -> int:
        return epoch * self.steps_per_epoch

    def epoch_of(self, step: int) -> int:
        return step // self.steps_per_epoch

    def progress(self, steps: int) -> float:
        return steps / self.steps_per_epoch

    @property
    def most_tokens(self) -> int:
        return self.most_rows * max(self.lengths) if self.most_rows > 1 else 0


@dataclass(frozen=True, eq=False)  # told apart as objects: hashing a million lengths took 15 ms a step
class LengthOrder(SteadyOrder):
    """Batches of texts of similar length, drawn from shuffled windows.

    Each epoch is a new shuffle of all rows, cut into windows of `WINDOW_BATCHES` batches; a window is sorted by length
    and cut into batches, and the batches of the epoch are then shuffled, so that the model never sees lengths in
    order. Rows of one length stay shuffled: in the order of the file, which is often that of the classes, a batch of
    pictures (all of one length) would hold one class. Every row is in exactly one batch of each epoch; the last batch of
    an epoch may be smaller.
    """

    lengths: tuple[int, ...]  # tokens of each row
    batch_size: int
    seed: int
    similar: bool = True  # False: as shuffled

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def batch(self, step: int) -> tuple[int, ...]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return _epoch(self, epoch)[place]

    def longest(self) -> tuple[int, ...]:
        return longest_rows(self.lengths, self.batch_size)

    @property
    def most_rows(self) -> int:
        return min(self.batch_size, len(self.lengths))


@dataclass(frozen=True, eq=False)
class PairedOrder(SteadyOrder):
    """Batches of two rows a class, so that each row has another one to be near to; every class as often as any other.

    The classes take turns in shuffled rounds, and the rows of a class in shuffled rounds of their own. An epoch is a
    fixed number of rows, however many pairs the rows could make: a class with few rows gives each of them several times.
    An odd batch size takes one row less, and an odd number of rows one more.
    """

    lengths: tuple[int, ...]  # tokens of each row
    classes: tuple[int, ...]  # of each row
    batch_size: int
    rows: int  # of an epoch
    seed: int

    @property
    def pairs(self) -> int:
        """Of a batch."""
        return max(1, self.batch_size // 2)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // (2 * self.pairs))

    def batch(self, step: int) -> tuple[int, ...]:
        epoch, place = divmod(step, self.steps_per_epoch)
        return _paired_epoch(self, epoch)[place]

    def longest(self) -> tuple[int, ...]:
        """The longest rows, some more than once where there are fewer than a batch takes."""
        ranked = longest_rows(self.lengths, self.batch_size)
        return (ranked * -(-self.batch_size // len(ranked)))[: self.batch_size]

    @property
    def most_rows(self) -> int:
        return self.batch_size


@lru_cache(maxsize=4)
def _paired_epoch(order: PairedOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    draw = random.Random(seed_of(order.seed, "pairs", epoch))
    of_class: dict[int, list[int]] = {}
    for row, name in enumerate(order.classes):
        of_class.setdefault(name, []).append(row)
    rounds: dict[int, list[int]] = {name: [] for name in of_class}
    found: list[int] = []
    while len(found) < order.rows:
        for name in draw.sample(sorted(of_class), len(of_class)):
            for second in (False, True):
                if not rounds[name]:
                    rounds[name] = draw.sample(of_class[name], len(of_class[name]))
                    if second and rounds[name][-1] == found[-1]:  # a row is no other one to itself
                        rounds[name].reverse()
                found.append(rounds[name].pop())
    return tuple(tuple(part) for part in split_evenly(found[: order.rows + order.rows % 2], 2 * order.pairs))


@lru_cache(maxsize=4)
def _epoch(order: LengthOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    draw = random.Random(seed_of(order.seed, "order", epoch))
    rows = list(range(len(order.lengths)))
    draw.shuffle(rows)
    if not order.similar:
        return tuple(tuple(part) for part in split_evenly(rows, order.batch_size))
    span = WINDOW_BATCHES * order.batch_size
    batches: list[tuple[int, ...]] = []
    for start in range(0, len(rows), span):
        window = sorted(rows[start : start + span], key=lambda row: -order.lengths[row])  # stable: ties stay shuffled
        batches += [tuple(part) for part in split_evenly(window, order.batch_size)]
    # Only the epoch's last window can hold a short batch; its place in the epoch does not matter once shuffled.
    draw.shuffle(batches)
    return tuple(batches)


def longest_rows(lengths: Sequence[int], count: int) -> tuple[int, ...]:
    """The longest rows, the first ones first of those of one length; all where there are fewer."""
    return tuple(heapq.nsmallest(count, range(len(lengths)), key=lambda row: (-lengths[row], row)))


def split_evenly(rows: Sequence[int], size: int) -> list[Sequence[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def by_tokens(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """All rows in batches for a forward without training, longest first: padding is least, and memory peaks early.

    lengths: tokens of each row. A padded batch (rows * longest) holds at most `budget` tokens, unless it is one row.
    """
    return filled(sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)), lengths, budget)


def filled(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows in batches, in the order given: each takes as many as hold at most `budget` tokens, filler included."""
    batches: list[list[int]] = []
    longest = 0
    for row in rows:
        longest = max(longest, lengths[row])
        if batches and (len(batches[-1]) + 1) * longest <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
            longest = lengths[row]
    return batches
