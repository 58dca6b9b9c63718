"""The rows of works that read a table, written as one."""

from __future__ import annotations

import csv
import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from _contenders import SEED, sample

from tunesmith.data.readers import read_data

Pair = tuple[str, str]  # text, label


def training_rows(data: Path, count: int) -> list[Pair]:
    """So many of the data's training rows (0: all), the label in their last column."""
    table = read_data(str(data))["train"]
    taken = sample(table, count if count else len(table))
    columns = list(taken.columns.values())
    return [(str(text), str(label)) for text, label in zip(columns[0], columns[-1], strict=True)]


def repeated(rows: Sequence[Pair], count: int) -> list[Pair]:
    """So many rows; where there are not as many, again from the first one on with a number appended to each text."""
    whole = -(-count // len(rows))
    found = ((f"{text} {turn}" if turn else text, label) for turn in range(whole) for text, label in rows)
    return list(itertools.islice(found, count))


def lengthened(rows: Sequence[Pair], pool: Sequence[Pair], words: int) -> list[Pair]:
    """Each text with drawn texts of its label in `pool` after it, up to so many words; rows share few of these.

    Not the same ones in another order: copies of a text are kept on one side of a split, and none could be held out.
    """
    by_label: dict[str, list[str]] = {}
    for text, label in pool:
        by_label.setdefault(label, []).append(text)
    draw, found = random.Random(SEED), []
    for text, label in rows:
        joined = text.split()
        while len(joined) < words:
            joined += draw.choice(by_label[label]).split()
        found.append((" ".join(joined[:words]), label))
    return found


def write_rows(rows: Iterable[Pair], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
