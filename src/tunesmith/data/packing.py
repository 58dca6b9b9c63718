"""Several short rows in one window, each as if it stood alone: no filler is computed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence

from tunesmith.data.encode import Example
from tunesmith.data.stored import MeasuredExamples, Measures, measures
from tunesmith.data.words import Window

SEGMENTS, POSITIONS = "segments", "position_ids"
PAD = {SEGMENTS: 0, POSITIONS: 0}  # fillers of what packed rows have besides


class PackedExamples(MeasuredExamples):
    """Windows that hold several examples each, joined when they are asked for.

    In each `segments` numbers the examples from 1, by which a model keeps them apart, and `position_ids` begin anew with
    each. A window's source is that of its first example; `sources_of` has them all.
    """

    def __init__(self, examples: Sequence[Example], members: Sequence[Sequence[int]], of: Measures) -> None:
        """members: the places in `examples` of each window's own; of: their measures."""
        import numpy as np

        self._examples, self._members, self._sources = examples, members, of.sources
        lengths, cuts = (
            np.array([sum(values[place] for place in window) for window in members], dtype=np.int64)
            for values in (of.lengths.tolist(), of.cuts.tolist())
        )
        self.measures = Measures(lengths, cuts, np.array([of.sources[window[0]] for window in members], dtype=np.int64))

    def row(self, row: int) -> Example:
        return _joined(row, [self._examples[place] for place in self._members[row]])

    def sources_of(self, row: int) -> tuple[int, ...]:
        """The rows of the table in a window, each once."""
        return tuple(dict.fromkeys(int(self._sources[place]) for place in self._members[row]))


def packed(examples: Sequence[Example], limit: int) -> PackedExamples:
    """Windows of at most `limit` tokens that hold every example once: best fit, the longest first."""
    of = measures(examples)
    lengths: list[int] = of.lengths.tolist()
    free: list[tuple[int, int]] = []  # (tokens left, window), ascending
    windows: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        fit = bisect_left(free, (lengths[place], -1))
        if fit < len(free):
            left, window = free.pop(fit)
        else:
            left, window = limit, len(windows)
            windows.append([])
        windows[window].append(place)
        insort(free, (left - lengths[place], window))
    return PackedExamples(examples, windows, of)


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
