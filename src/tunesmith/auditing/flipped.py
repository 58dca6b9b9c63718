"""Whether what a column misses looks like labels that were flipped by chance, rather than like a column that only helps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tunesmith.auditing.folds import FOLDS

RIGHT = 0.8  # share of the rows that such a column tells, and
TAKEN = (
    0.5  # share that it takes of the mistakes of saying the most frequent class, both at the low end of their intervals
)
FEWEST = 10  # rows of a value that is looked at by itself
COVERED = 0.9  # share of the rows whose values have so many
UNEVEN = 0.01  # chance below which the values miss unequally often
CONFIDENCE = 0.99

Reader = Callable[[], Sequence[str] | None]


def by_flips_alone(keys: Sequence[str], guesses: Sequence[str], truth: Sequence[str], read: Reader) -> bool:
    """Whether a column that tells a label in at least `RIGHT` of the rows would tell all, had none been flipped.

    keys: the value of each row as it was looked up; guesses: the label that it tells; read: what a classifier by the text
    says of each row that it did not learn from, None where there is no such classifier. Asked last: it takes time.

    Flips by chance are as frequent at one value as at another (Pearson's chi-squared test of misses by value). A column
    that only goes with the label misses more at some values. And where the two differ, the text does not side with the
    label more often than with the column.
    """
    from tunesmith.evaluation.intervals import binomial

    hits = sum(map(str.__eq__, guesses, truth))
    if binomial(hits, len(truth), CONFIDENCE).low < RIGHT or not takes_away(hits, truth, TAKEN):
        return False
    return _even(keys, guesses, truth) and not _text_sides_with_label(guesses, truth, read())


def takes_away(hits: int, truth: Sequence[str], share: float) -> bool:
    """Whether so many hits take away that share of the mistakes that saying the most frequent class makes."""
    from tunesmith.evaluation.intervals import binomial

    most = Counter(truth).most_common(1)[0][1] / len(truth)
    return most < 1 and (binomial(hits, len(truth), CONFIDENCE).low - most) / (1 - most) >= share


def _even(keys: Sequence[str], guesses: Sequence[str], truth: Sequence[str]) -> bool:
    from scipy.stats import chi2_contingency

    rows = Counter(keys)
    wrong = Counter(key for key, guess, label in zip(keys, guesses, truth, strict=True) if guess != label)
    looked = [key for key, count in rows.items() if count >= FEWEST]
    if len(looked) < 2 or sum(rows[key] for key in looked) < COVERED * len(keys):
        return False
    table = [[rows[key] - wrong[key], wrong[key]] for key in looked]
    if any(sum(row[side] for row in table) == 0 for side in (0, 1)):
        return True
    found: Any = chi2_contingency(table, correction=False)
    return bool(found.pvalue > UNEVEN)


def _text_sides_with_label(guesses: Sequence[str], truth: Sequence[str], said: Sequence[str] | None) -> bool:
    from tunesmith.evaluation.intervals import binomial

    if said is None:
        return False
    torn = [(guess, label, by) for guess, label, by in zip(guesses, truth, said, strict=True) if guess != label]
    decided = [by == label for guess, label, by in torn if by in (guess, label)]
    return bool(decided) and binomial(sum(decided), len(decided), 0.9).low > 0.5


def read_by_words(texts: Sequence[str | tuple[str, ...]], truth: Sequence[str], seed: int) -> Sequence[str] | None:
    """What TF-IDF with logistic regression says of each row from the others; None of too few rows."""
    import numpy as np

    from tunesmith.auditing.folds import cross_validated_words

    classes, target = np.unique(np.array(truth, dtype=object).astype(str), return_inverse=True)
    if len(target) < 2 * FOLDS or len(classes) < 2:
        return None
    return classes[cross_validated_words(texts, target, FOLDS, seed).argmax(axis=1)].tolist()
