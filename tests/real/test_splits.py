"""Splits of real questions: near-duplicates that were looked at, and sides that hold when rows are added."""

from __future__ import annotations

import csv
import os
import random
from pathlib import Path

import pytest

from tunesmith.data.columns import Columns
from tunesmith.data.near import near_groups, near_pairs
from tunesmith.data.split import make_fold, make_splits
from tunesmith.data.table import Table
from tunesmith.data.targets.one_class import OneClass

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "banking77" / "train.csv"
COLUMNS = Columns("text", "category")
pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def questions() -> Table:
    if not DATA.exists():
        said = "the data folder ../shared/data/banking77 is absent"
        assert not os.environ.get("CI"), said
        pytest.skip(said)
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in ("text", "category")}
    return Table("train.csv", columns, tuple(range(2, len(rows) + 2)))


def test_the_near_duplicates_are_those_that_were_looked_at(questions: Table) -> None:
    pairs, crowded = near_pairs(questions.columns["text"])
    assert not crowded
    assert len(pairs) == 196  # the docstring of near.THRESHOLD speaks of them
    labels = questions.columns["category"]
    assert sum(labels[pair.one] == labels[pair.other] for pair in pairs) >= 185
    assert max(map(len, near_groups(questions.columns["text"]))) <= 6


def test_a_tenth_more_rows_leave_the_sides_as_they_are(questions: Table) -> None:
    tested = stayed = 0
    for seed in range(3):
        old = questions.take(random.Random(seed).sample(range(len(questions)), 9_094))
        before, after = (make_splits({"train": t}, COLUMNS, OneClass(), 0.05, 0.1, seed) for t in (old, questions))
        assert (len(before.test), len(before.validation)) == (909, 455)
        tested += len(before.test)
        stayed += len({*before.test.lines} & {*after.test.lines})
        side = {
            text: name for name in ("train", "validation", "test") for text in getattr(before, name).columns["text"]
        }
        assert all(
            len({side[old.columns["text"][row]] for row in group}) == 1 for group in near_groups(old.columns["text"])
        )
    assert stayed >= 0.97 * tested


def test_folds_hold_every_question_once(questions: Table) -> None:
    folds = [make_fold(questions, COLUMNS, OneClass(), fold, 4, 0.05, 0) for fold in range(4)]
    assert sorted(line for splits in folds for line in splits.test.lines) == [*questions.lines]
    assert all(abs(len(splits.test) - len(questions) / 4) < 40 for splits in folds)
