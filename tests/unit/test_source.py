"""The parts of a step: every row in one of them, none above its tokens, and the preflight tries the worst."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.encode import Example
from tunesmith.data.order import LengthOrder
from tunesmith.training.source import FixedRows, tokens_at_once

PAD = {"input_ids": 0}


def source(lengths: list[int], micro_batch: int, at_once: int | None) -> FixedRows:
    examples = [Example(row, {"input_ids": [1] * length}, 0) for row, length in enumerate(lengths)]
    return FixedRows(examples, LengthOrder(tuple(lengths), 8, 0), micro_batch, PAD, "cpu", None, at_once)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    micro_batch=st.integers(1, 8),
    at_once=st.integers(1, 200),
)
def test_parts_hold_their_bounds_and_every_row(lengths: list[int], micro_batch: int, at_once: int) -> None:
    rows = source(lengths, micro_batch, at_once)
    seen: list[int] = []
    worst = rows.longest()
    for step in range(rows.order.first(1)):
        batches = rows.batch(step)
        assert [row for batch in batches for row in batch.rows] == list(rows.order.batch(step))
        for batch in batches:
            assert len(batch.rows) == 1 or (len(batch.rows) <= micro_batch and batch.tokens <= at_once)
            longest = batch.tokens // len(batch.rows)
            assert worst.tokens // len(worst.rows) >= longest and worst.tokens >= batch.tokens
            seen += batch.rows
        assert rows.several or len(batches) == 1
    assert sorted(seen) == list(range(len(lengths)))


def test_without_a_bound_rows_alone_count() -> None:
    lengths = [50] * 7 + [3]
    assert [len(part) for part in source(lengths, 4, None).parts(range(8))] == [4, 4]
    assert [len(part) for part in source(lengths, 8, 100).parts(range(8))] == [2, 2, 2, 2]
    assert [len(part) for part in source(lengths, 8, 150).parts(range(8))] == [3, 3, 2], "of about as many rows each"
    assert source(lengths, 8, 150).divides and not source(lengths, 8, 400).divides
    assert tokens_at_once("cuda", PAD) is None and tokens_at_once("cpu", {"pixel_values": 0}) is None
