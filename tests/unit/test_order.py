"""Order: every row exactly once an epoch, and a pure function of (seed, step)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.order import LengthOrder, by_tokens, split_evenly

ORDERS = st.builds(
    LengthOrder,
    st.lists(st.integers(1, 60), min_size=1, max_size=400).map(tuple),
    st.integers(1, 9),
    st.integers(0, 5),
)


@given(ORDERS, st.integers(0, 3))
def test_every_row_exactly_once_an_epoch(order: LengthOrder, epoch: int) -> None:
    first = epoch * order.steps_per_epoch
    batches = [order.batch(step) for step in range(first, first + order.steps_per_epoch)]
    assert sorted(row for batch in batches for row in batch) == list(range(len(order.lengths)))
    assert sum(len(batch) < order.batch_size for batch in batches) == (len(order.lengths) % order.batch_size > 0)
    assert all(batch for batch in batches)


def test_rows_of_one_length_are_mixed() -> None:
    """A file of pictures, sorted by class: 1,920 rows of ten classes, in batches of 32. At random about one is missing."""
    order = LengthOrder((197,) * 1920, 32, 0)
    classes = [len({row // 192 for row in order.batch(step)}) for step in range(order.steps_per_epoch)]
    assert len(classes) == 60 and min(classes) >= 7


@given(ORDERS, st.lists(st.integers(0, 200), min_size=1, max_size=10))
def test_a_pure_function_of_seed_and_step(order: LengthOrder, steps: list[int]) -> None:
    """Asked in any order, by any copy of it."""
    expected = {step: order.batch(step) for step in sorted(steps)}
    again = LengthOrder(order.lengths, order.batch_size, order.seed)
    assert all(again.batch(step) == expected[step] for step in steps)


def test_epochs_and_seeds_differ() -> None:
    lengths = tuple(range(1, 101))
    order = LengthOrder(lengths, 10, 0)
    epochs = [[order.batch(step) for step in range(start, start + 10)] for start in (0, 10)]
    assert epochs[0] != epochs[1]
    assert [LengthOrder(lengths, 10, 1).batch(step) for step in range(10)] != epochs[0]


def test_batches_hold_texts_of_like_length() -> None:
    """Padding of a long-tailed table stays below a tenth of what batches drawn at random would carry."""
    import random

    draw = random.Random(0)
    lengths = tuple(1 + int(draw.expovariate(0.05)) for _ in range(2000))
    order = LengthOrder(lengths, 20, 0)

    def padding(batches: list[tuple[int, ...]]) -> int:
        return sum(sum(max(lengths[row] for row in batch) - lengths[row] for row in batch) for batch in batches)

    rows = list(range(2000))
    draw.shuffle(rows)
    at_random = [tuple(part) for part in split_evenly(rows, 20)]
    assert padding([order.batch(step) for step in range(order.steps_per_epoch)]) < 0.1 * padding(at_random)


@given(ORDERS)
def test_longest(order: LengthOrder) -> None:
    longest = order.longest()
    assert len(longest) == min(order.batch_size, len(order.lengths))
    rest = set(range(len(order.lengths))) - set(longest)
    assert all(order.lengths[row] <= min(order.lengths[kept] for kept in longest) for row in rest)


@given(st.lists(st.integers(1, 60), max_size=400), st.integers(1, 900))
def test_by_tokens_holds_its_budget_and_fills_it(lengths: list[int], budget: int) -> None:
    batches = by_tokens(lengths, budget)
    ranked = [row for batch in batches for row in batch]
    assert sorted(ranked) == list(range(len(lengths)))
    assert [lengths[row] for row in ranked] == sorted(lengths, reverse=True)
    longest = [lengths[batch[0]] for batch in batches]
    assert all(len(batch) == 1 or len(batch) * most <= budget for batch, most in zip(batches, longest, strict=True))
    assert all((len(batch) + 1) * most > budget for batch, most in zip(batches[:-1], longest, strict=False))


def test_one_long_row_does_not_make_short_rows_wait_for_it() -> None:
    assert by_tokens([2, 500, 2, 3, 2], 6) == [[1], [3, 0], [2, 4]]
    assert by_tokens([], 6) == []
