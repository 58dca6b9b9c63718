"""Rows packed into windows: each once and whole, in few windows."""

from __future__ import annotations

import random

from tunesmith.data.encode import IGNORED, Example, collate
from tunesmith.data.packing import PAD, POSITIONS, SEGMENTS, packed
from tunesmith.data.words import Window


def _rows(sizes: list[int]) -> list[Example]:
    made = []
    for row, size in enumerate(sizes):
        ids = [1000 * row + place for place in range(size)]
        inputs = {"input_ids": ids, "attention_mask": [1] * size}
        made.append(Example(row, inputs, [IGNORED, *ids[1:]], window=Window(row, "", tuple(range(1, size)))))
    return made


def _parts(window: Example) -> list[tuple[list[int], list[int], list[int]]]:
    """(tokens, targets, places) of each segment of a window, in order."""
    found: dict[int, tuple[list[int], list[int], list[int]]] = {}
    columns = (window.inputs["input_ids"], window.target, window.inputs[POSITIONS])
    for segment, *values in zip(window.inputs[SEGMENTS], *columns, strict=True):
        for column, value in zip(found.setdefault(segment, ([], [], [])), values, strict=True):
            column.append(value)
    return [found[segment] for segment in sorted(found)]


def test_every_row_is_once_whole_in_a_window() -> None:
    draw = random.Random(1)
    for limit in (8, 32, 100):
        rows = _rows([draw.randint(1, limit) for _ in range(200)])
        windows = packed(rows, limit)
        assert [window.row for window in windows] == list(range(len(windows)))
        assert all(window.length <= limit for window in windows)
        parts = [part for window in windows for part in _parts(window)]
        wanted = [(row.inputs["input_ids"], row.target, list(range(row.length))) for row in rows]
        assert sorted(parts) == sorted(wanted)
        for window in windows:
            assert window.window is not None
            learned = [place for place, token in enumerate(window.target) if token != IGNORED]
            assert list(window.window.places) == learned
        least = sum(row.length for row in rows) / limit
        assert len(windows) <= 1.25 * least + 1, "best fit, the longest first, wastes less than a quarter"


def test_filler_is_of_no_segment() -> None:
    batch = collate(packed(_rows([5, 3, 9]), 9), {"input_ids": 7, "attention_mask": 0, **PAD})
    filler = batch.inputs["attention_mask"] == 0
    assert filler.sum() == 1
    assert (batch.inputs[SEGMENTS][filler] == 0).all()
    assert (batch.inputs[SEGMENTS][~filler] > 0).all()
    assert batch.target is not None
    assert (batch.target[filler] == IGNORED).all()


def test_packing_is_a_function_of_its_rows() -> None:
    rows = _rows([4, 4, 7, 2, 9, 4])
    assert packed(rows, 10) == packed(rows, 10)
    assert packed(rows, 10) == packed(list(reversed(rows)), 10)
