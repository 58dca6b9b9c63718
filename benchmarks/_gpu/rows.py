"""Rows of random token numbers, as long as real ones are, as both sides take them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tunesmith.data.encode import IGNORED, Example
from tunesmith.data.packing import POSITIONS, packed
from tunesmith.data.words import Window
from tunesmith.seeds import seed_of

from .works import ENCODER, Amount, Shape

CLASSES = 77
SEED = 0
# Of Banking77's 10,003 training texts, by MiniLM's tokenizer: from 4 tokens on, how many texts are so long.
LENGTHS = (
    3, 15, 48, 124, 349, 680, 865, 966, 1036, 991, 818, 693, 561, 405, 314, 259, 184, 148, 127, 99, 93, 72, 83, 65, 63,
    95, 42, 47, 57, 50, 57, 46, 46, 37, 38, 41, 41, 22, 22, 29, 28, 25, 26, 28, 18, 14, 11, 13, 6, 10, 8, 15, 4, 6, 8,
    5, 3, 4, 7, 0, 3, 2, 5, 2, 1, 1, 2, 1, 1, 5, 1, 0, 0, 1, 0, 2, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0,
    0, 1,
)  # fmt: skip
SHORTEST = 4
# Of a decoder's texts: lognormal, median 400 tokens, as instructions with their answers are.
MEDIAN, SPREAD = 400, 0.8
LEAST = 8


def examples(shape: Shape, amount: Amount, count: int) -> list[Example]:
    """So many rows of an encoder with a class each; so many full windows of a decoder's texts, packed."""
    draw = random.Random(seed_of(SEED, "rows", count))
    if shape.kind == ENCODER:
        return [
            classified(row, token_numbers(draw, length, shape), draw)
            for row, length in enumerate(_short(draw, count, amount))
        ]
    return windows(texts(shape, amount, count, draw), amount.limit)[:count]


def texts(shape: Shape, amount: Amount, count: int, draw: random.Random) -> list[Example]:
    """A decoder's texts, enough for so many windows."""
    found, tokens = list[Example](), 0
    median = min(MEDIAN, amount.limit / 4)
    while tokens < (count + 1) * amount.limit:
        length = round(median * math.exp(draw.gauss(0, SPREAD)))
        found.append(learned(len(found), token_numbers(draw, max(LEAST, min(length, amount.limit)), shape), draw))
        tokens += found[-1].length
    return found


def windows(rows: Sequence[Example], limit: int) -> list[Example]:
    """The fullest first."""
    found = packed(rows, limit)
    joined = sorted((found.row(place) for place in range(len(found))), key=lambda window: -window.length)
    return [Example(place, one.inputs, one.target, window=one.window) for place, one in enumerate(joined)]


def real_tokens(rows: Sequence[Example]) -> int:
    """Without filler."""
    return sum(row.length for row in rows)


def squares(rows: Sequence[Example]) -> int:
    """The sum of the squared lengths of all texts: pairs of tokens that attention compares, each way."""
    total = 0
    for row in rows:
        starts = [place for place, position in enumerate(row.inputs.get(POSITIONS, [0])) if position == 0]
        ends = [*starts[1:], row.length]
        total += sum((end - start) ** 2 for start, end in zip(starts, ends, strict=True))
    return total


def plain(row: Example) -> dict[str, Any]:
    """The same row as transformers' models take it."""
    inputs = {name: row.inputs[name] for name in ("input_ids", "token_type_ids", POSITIONS) if name in row.inputs}
    return {**inputs, "labels": row.target}


def _short(draw: random.Random, count: int, amount: Amount) -> list[int]:
    sizes = range(SHORTEST, SHORTEST + len(LENGTHS))
    found = draw.choices(sizes, cum_weights=list(accumulate(LENGTHS)), k=count)
    return [min(length, amount.limit) for length in found]


def token_numbers(draw: random.Random, length: int, shape: Shape) -> list[int]:
    """Frequent tokens are frequent: the chance of number n is about 1 / n, as of words by their rank. 0 is filler."""
    return [max(1, int(shape.vocabulary ** draw.random())) for _ in range(length)]


def classified(row: int, ids: list[int], draw: random.Random) -> Example:
    """Of a drawn class."""
    inputs = {"input_ids": ids, "token_type_ids": [0] * len(ids), "attention_mask": [1] * len(ids)}
    return Example(row, inputs, draw.randrange(CLASSES))


def learned(row: int, ids: list[int], draw: random.Random) -> Example:
    """Every token but the first."""
    inputs = {"input_ids": ids, "attention_mask": [1] * len(ids)}
    return Example(row, inputs, [IGNORED, *ids[1:]], window=Window(row, "", tuple(range(1, len(ids)))))
