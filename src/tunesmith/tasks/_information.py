"""How much there is to learn in the training rows, in bits: a rough reckoning, by which adapters are sized."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tunesmith.data.encode import Example

TOKEN_BITS = 1.0  # Schulman and Thinking Machines, "LoRA Without Regret" (2025): what a token of usual text teaches
STEPS = 10  # a number is known well enough to a tenth of its standard deviation: 99 % of the variance is then told
SAMPLE = 10_000  # rows that are counted, of more than that


class Information(NamedTuple):
    bits: float
    why: str  # how it was reckoned, in words


def entropy(counts: Iterable[int]) -> float:
    """Bits that it takes on average to name one of some things that occur so often (Shannon 1948)."""
    found = [count for count in counts if count > 0]
    total = sum(found)
    return sum(count / total * math.log2(total / count) for count in found)


def of_counts(counts: Sequence[int], what: str, names: str) -> Information:
    """Of `what` each of which has one of `names`: their number times the entropy of the names."""
    total, each = sum(counts), entropy(counts)
    return Information(total * each, f"{total:,} {what} x {each:.2g} bits, the entropy of their {names}")


def of_shares(counts: Sequence[int], rows: int) -> Information:
    """Of labels that a row has or has not: the sum of each one's entropy, for every row."""
    each = sum(entropy((count, rows - count)) for count in counts)
    return Information(rows * each, f"{rows:,} rows x {each:.2g} bits, the entropies of {len(counts)} labels")


def of_numbers(rows: Sequence[Sequence[float]]) -> Information:
    """Of numbers, told to a tenth of their standard deviation: 5.4 bits where they are normally distributed, or fewer."""
    import numpy as np

    values = np.array(rows, dtype=np.float64)  # [rows, numbers]
    steps = np.round(values / np.maximum(values.std(axis=0), 1e-12) * STEPS).astype(np.int64)
    each = sum(entropy(Counter(column.tolist()).values()) for column in steps.T)
    said = f"{len(values):,} rows x {each:.2g} bits, the entropy of their numbers in tenths of a standard deviation"
    return Information(len(values) * each, said)


def of_choices(choices: Sequence[int], said: str) -> Information:
    """Of rows each of which is one of so many possible ones, all as likely. `said`: which, in words."""
    return Information(sum(math.log2(max(1, count)) for count in choices), f"{len(choices):,} rows, {said}")


def of_tokens(examples: Sequence[Example]) -> Information:
    """Of texts that are learned token by token: a bit for each that is."""
    step = max(1, len(examples) // SAMPLE)
    counted = examples[::step]
    tokens = round(sum(example.units for example in counted) / max(1, len(counted)) * len(examples))
    return Information(tokens * TOKEN_BITS, f"{tokens:,} learned tokens x about {TOKEN_BITS:g} bit")


def of_values(truth: Sequence[Any]) -> Information:
    """Of targets of any kind: the entropy of which there are."""
    return of_counts(list(Counter(map(repr, truth)).values()), "rows", "targets")
