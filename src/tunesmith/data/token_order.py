"""Batches of so many tokens, whatever number of rows that is."""

from __future__ import annotations

import random
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from tunesmith.data.order import WINDOW_BATCHES, Order, filled, longest_rows
from tunesmith.seeds import seed_of


@dataclass(frozen=True, eq=False)
class TokenOrder(Order):
    """Batches of as many rows as hold at most `tokens`, filler included: rows times the longest of them.

    So do fairseq's --max-tokens and AllenNLP's MaxTokensBatchSampler count. fairseq makes its batches once and shuffles
    these; here each epoch has batches of its own, drawn in windows as those of `LengthOrder`. A row that is longer by
    itself is a batch of its own. Every row is in exactly one batch of each epoch. Epochs may differ by a few steps, which
    are counted from the batches themselves. A step learns the mean over what it holds: one row among few weighs more than
    one among many.
    """

    lengths: tuple[int, ...]  # tokens of each row
    tokens: int
    seed: int
    similar: bool = True  # False: as shuffled
    _firsts: list[int] = field(default_factory=lambda: [0], init=False, repr=False)  # of the epochs counted so far

    def first(self, epoch: int) -> int:
        while len(self._firsts) <= epoch:
            self._firsts.append(self._firsts[-1] + len(_token_epoch(self, len(self._firsts) - 1)))
        return self._firsts[epoch]

    def epoch_of(self, step: int) -> int:
        while self._firsts[-1] <= step:
            self.first(len(self._firsts))
        return bisect_right(self._firsts, step) - 1

    def progress(self, steps: int) -> float:
        if steps == 0:
            return 0.0
        epoch = self.epoch_of(steps - 1)  # of the last step that is done: no epoch after it is looked at
        first = self._firsts[epoch]
        return epoch + (steps - first) / (self._firsts[epoch + 1] - first)

    def batch(self, step: int) -> tuple[int, ...]:
        epoch = self.epoch_of(step)
        return _token_epoch(self, epoch)[step - self._firsts[epoch]]

    def longest(self) -> tuple[int, ...]:
        """As many of the longest rows as hold at least `tokens`: shorter ones may fill a batch better."""
        most = max(self.lengths)
        return longest_rows(self.lengths, min(-(-self.tokens // max(1, most)), self.most_rows))

    @property
    def usual_rows(self) -> float:
        return len(self.lengths) / self.first(1)

    @property
    def most_rows(self) -> int:
        return self._most[0]

    @property
    def most_tokens(self) -> int:
        return self._most[1]

    @property
    def longer(self) -> int:
        """Rows that hold more than `tokens` by themselves."""
        return sum(length > self.tokens for length in self.lengths)

    @cached_property
    def _most(self) -> tuple[int, int]:
        """Of the batches that end with a row and hold the shortest ones beside it: the most rows, and the most tokens."""
        rows, tokens = 1, 0
        for place, length in enumerate(sorted(self.lengths)):
            fitting = min(place + 1, self.tokens // max(1, length))
            rows = max(rows, fitting)
            tokens = max(tokens, fitting * length if fitting > 1 else 0)
        return rows, tokens


@lru_cache(maxsize=4)
def _token_epoch(order: TokenOrder, epoch: int) -> tuple[tuple[int, ...], ...]:
    draw = random.Random(seed_of(order.seed, "order", epoch))
    rows = list(range(len(order.lengths)))
    draw.shuffle(rows)
    if not order.similar:
        return tuple(map(tuple, filled(rows, order.lengths, order.tokens)))
    span = WINDOW_BATCHES * max(1, order.tokens * len(rows) // max(1, sum(order.lengths)))
    batches: list[tuple[int, ...]] = []
    rest: list[int] = []
    for start in range(0, len(rows), span):
        window = sorted([*rest, *rows[start : start + span]], key=lambda row: -order.lengths[row])
        *full, rest = filled(window, order.lengths, order.tokens)  # its shortest rows fill a batch with the next one's
        batches += map(tuple, full)
    batches.append(tuple(rest))
    draw.shuffle(batches)
    return tuple(batches)
