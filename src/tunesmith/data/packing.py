"""Several short rows in one window, each as if it stood alone: no filler is computed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from tunesmith.data.encode import Example
from tunesmith.data.words import Window

SEGMENTS, POSITIONS = "segments", "position_ids"
PAD = {SEGMENTS: 0, POSITIONS: 0}  # fillers of what packed rows have besides


def packed(examples: Sequence[Example], limit: int) -> list[Example]:
    """Windows of at most `limit` tokens that hold every example once: best fit, the longest first.

    In each window `segments` numbers the examples from 1, by which a model keeps them apart, and `position_ids` begin
    anew with each. A window's source is that of its first example.
    """
    free: list[tuple[int, int]] = []  # (tokens left, window), ascending
    windows: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: (-example.length, example.row)):
        place = bisect_left(free, (example.length, -1))
        if place < len(free):
            left, window = free.pop(place)
        else:
            left, window = limit, len(windows)
            windows.append([])
        windows[window].append(example)
        insort(free, (left - example.length, window))
    return [_joined(row, members) for row, members in enumerate(windows)]


def _joined(row: int, members: Sequence[Example]) -> Example:
    inputs: dict[str, list[int]] = {name: [] for name in (*members[0].inputs, SEGMENTS, POSITIONS)}
    target: list[int] = []
    places: list[int] = []
    for number, example in enumerate(members, 1):
        start, size = len(target), example.length
        for name, values in example.inputs.items():
            inputs[name] += values
        inputs[SEGMENTS] += [number] * size
        inputs[POSITIONS] += range(size)
        target += example.target
        places += [start + place for place in (example.window.places if example.window is not None else ())]
    return Example(row, inputs, target, window=Window(members[0].source, "", tuple(places)))
