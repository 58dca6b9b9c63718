"""Batches of so many tokens: every row once an epoch, none above the bound, and a pure function of (seed, step)."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.encode import Example
from tunesmith.data.order import LengthOrder
from tunesmith.data.token_order import TokenOrder
from tunesmith.training.source import FixedRows

ORDERS = st.builds(
    TokenOrder,
    st.lists(st.integers(1, 60), min_size=1, max_size=300).map(tuple),
    st.integers(1, 200),
    st.integers(0, 5),
    st.booleans(),
)


def _epoch(order: TokenOrder, epoch: int) -> list[tuple[int, ...]]:
    return [order.batch(step) for step in range(order.first(epoch), order.first(epoch + 1))]


def _padded(order: TokenOrder | LengthOrder, rows: tuple[int, ...]) -> int:
    return len(rows) * max(order.lengths[row] for row in rows)


@given(ORDERS, st.integers(0, 3))
def test_every_row_once_an_epoch_and_no_batch_above_the_bound(order: TokenOrder, epoch: int) -> None:
    batches = _epoch(order, epoch)
    assert sorted(row for batch in batches for row in batch) == list(range(len(order.lengths)))
    above = [batch for batch in batches if _padded(order, batch) > order.tokens]
    assert all(len(batch) == 1 for batch in above)
    assert len(above) == order.longer == sum(length > order.tokens for length in order.lengths)


@given(ORDERS, st.integers(0, 3))
def test_what_is_said_of_all_batches_holds_of_each(order: TokenOrder, epoch: int) -> None:
    worst = order.longest()
    for batch in _epoch(order, epoch):
        assert len(batch) <= order.most_rows
        assert len(batch) == 1 or _padded(order, batch) <= order.most_tokens
        assert _padded(order, worst) >= _padded(order, batch)
    assert len(worst) <= order.most_rows
    rest = set(range(len(order.lengths))) - set(worst)
    assert all(order.lengths[row] <= order.lengths[kept] for row in rest for kept in worst)


@given(ORDERS, st.lists(st.integers(0, 300), min_size=1, max_size=10))
def test_a_pure_function_of_seed_and_step(order: TokenOrder, steps: list[int]) -> None:
    """Asked in any order, by any copy of it: a resumed run begins in the middle."""
    expected = {step: order.batch(step) for step in sorted(steps)}
    again = TokenOrder(order.lengths, order.tokens, order.seed, order.similar)
    assert all(again.batch(step) == expected[step] for step in steps)


@given(ORDERS)
def test_epochs_are_counted_by_their_own_batches(order: TokenOrder) -> None:
    for epoch in range(4):
        first, last = order.first(epoch), order.first(epoch + 1)
        assert order.epoch_of(first) == order.epoch_of(last - 1) == epoch
        assert (order.progress(first), order.progress(last)) == (epoch, epoch + 1)
        assert all(order.progress(step) < order.progress(step + 1) for step in range(first, last))
    assert order.first(0) == 0


@pytest.mark.parametrize("similar", [True, False])
def test_epochs_and_seeds_differ(similar: bool) -> None:
    draw = random.Random(0)
    order = TokenOrder(tuple(draw.randint(1, 40) for _ in range(300)), 100, 0, similar)
    epochs = [_epoch(order, epoch) for epoch in range(3)]
    together = [{frozenset(batch) for batch in epoch if len(batch) > 1} for epoch in epochs]
    assert len(together[0] & together[1]) < 0.2 * len(together[0]), (
        "other rows meet, not the same ones in another order"
    )
    assert len({len(epoch) for epoch in epochs}) > 1, "which is why steps are counted"
    assert _epoch(replace(order, seed=1), 0) != epochs[0]


def test_batches_of_similar_length_are_full() -> None:
    """A long-tailed table of several windows: little filler, and one batch of an epoch at most that is far from full."""
    draw = random.Random(0)
    lengths = tuple(5 + int(draw.expovariate(0.05)) for _ in range(4000))
    order = TokenOrder(lengths, 512, 0)
    batches = _epoch(order, 0)
    assert sum(lengths) > 0.94 * sum(_padded(order, batch) for batch in batches)
    longest = max(lengths)
    assert sum(_padded(order, batch) + longest < order.tokens for batch in batches) <= 1
    assert len(batches) < 0.8 * len(_epoch(replace(order, similar=False), 0))
    rows = [len(batch) for batch in batches]
    assert max(rows) > 4 * min(rows)


@given(ORDERS, st.integers(1, 40), st.integers(1, 200) | st.none())
def test_the_trial_takes_as_much_as_any_part_of_a_step(
    order: TokenOrder, micro_batch: int, at_once: int | None
) -> None:
    examples = [Example(row, {"input_ids": [1] * length}, 0) for row, length in enumerate(order.lengths)]
    rows = FixedRows(examples, order, micro_batch, {"input_ids": 0}, "cpu", None, at_once)
    worst = rows.longest()
    assert len(rows.longest_rows) == len(worst.rows)
    for step in range(order.first(2)):
        batches = rows.batch(step)
        assert [row for batch in batches for row in batch.rows] == list(order.batch(step))
        assert rows.several or len(batches) == 1
        for batch in batches:
            assert len(batch.rows) <= micro_batch and worst.tokens >= batch.tokens
            assert at_once is None or len(batch.rows) == 1 or batch.tokens <= at_once


def test_what_never_happens_is_not_said_to() -> None:
    lengths = (300,) * 40
    examples = [Example(row, {"input_ids": [1] * length}, 0) for row, length in enumerate(lengths)]

    def rows(tokens: int, micro_batch: int, at_once: int) -> FixedRows:
        return FixedRows(examples, TokenOrder(lengths, tokens, 0), micro_batch, {"input_ids": 0}, "cpu", None, at_once)

    assert rows(2048, 6, 2048).order.most_rows == 6
    assert not rows(2048, 6, 2048).divides and not rows(2048, 6, 2048).several
    assert rows(2400, 8, 2048).divides and rows(2400, 8, 2048).several
    assert rows(2048, 3, 2048).several and not rows(2048, 3, 2048).divides
