"""Held-out rows: shares, strata, groups, and no text on two sides."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audit import text_key
from tunesmith.data.columns import Columns
from tunesmith.data.split import Splits, make_splits, strata_of_test
from tunesmith.data.table import Table
from tunesmith.data.targets.label_set import LabelSet
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.targets.one_class import OneClass
from tunesmith.data.targets.plain_text import PlainText
from tunesmith.errors import DataError

CLASSES = OneClass()
COLUMNS = Columns("text", "label")
GROUPED = Columns("text", "label", "group")


def table(texts: list[str], labels: list[str], groups: list[str | None] | None = None) -> Table:
    columns: dict[str, list] = {"text": texts, "label": labels}
    if groups is not None:
        columns["group"] = groups
    return Table("train.csv", columns, tuple(range(2, len(texts) + 2)))


def plain(counts: dict[str, int]) -> Table:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return table([f"text {i}" for i in range(len(labels))], labels)


def sides(splits: Splits) -> list[Table]:
    return [splits.train, splits.validation, splits.test]


def labels_of(found: Table) -> Counter[str]:
    return Counter(found.columns["label"])


def test_shares_are_met_in_every_class() -> None:
    splits = make_splits({"train": plain({"a": 100, "b": 50, "c": 10})}, COLUMNS, CLASSES, 0.1, 0.2, 0)
    assert labels_of(splits.test) == {"a": 20, "b": 10, "c": 2}
    assert labels_of(splits.validation) == {"a": 10, "b": 5, "c": 1}
    assert labels_of(splits.train) == {"a": 70, "b": 35, "c": 7}
    assert splits.why == {
        "train": "the other 70 % of train.csv",
        "validation": "10 % of train.csv, stratified by label, seed 0",
        "test": "20 % of train.csv, stratified by label, seed 0",
    }


def test_small_classes_give_the_right_total_together() -> None:
    counts = {f"c{i:02d}": 3 for i in range(40)}
    splits = make_splits({"train": plain(counts)}, COLUMNS, CLASSES, 0.1, 0.1, 0)
    assert len(splits.test) == len(splits.validation) == 12
    assert min(labels_of(splits.train).values()) >= 1
    # The classes that give a row are drawn, not the first by name.
    assert set(labels_of(splits.test)) != {f"c{i:02d}" for i in range(12)}


def test_a_class_of_one_or_two_rows_keeps_a_training_row() -> None:
    splits = make_splits({"train": plain({"a": 30, "two": 2, "one": 1})}, COLUMNS, CLASSES, 0.4, 0.4, 3)
    assert labels_of(splits.train)["one"] == 1
    assert labels_of(splits.train)["two"] >= 1


def test_the_fewest_rows_that_can_be_split() -> None:
    splits = make_splits({"train": plain({"a": 2, "b": 2})}, COLUMNS, CLASSES, 0.1, 0.1, 0)
    assert [len(found) for found in sides(splits)] == [2, 1, 1]
    assert set(splits.train.columns["label"]) == {"a", "b"}


def test_given_tables_are_left_alone() -> None:
    held = Table("dir/dev.csv", {"text": ["x"], "label": ["a"]}, (2,))
    splits = make_splits({"train": plain({"a": 10, "b": 10}), "validation": held}, COLUMNS, CLASSES, 0.5, 0.1, 0)
    assert splits.validation is held
    assert splits.why["validation"] == "given: dev.csv"
    assert [len(found) for found in sides(splits)] == [18, 1, 2]
    both = {"train": plain({"a": 2, "b": 2}), "validation": held, "test": held}
    splits = make_splits(both, COLUMNS, CLASSES, 0.5, 0.5, 0)
    assert splits.train == both["train"]
    assert splits.why["train"] == "given: train.csv"


def test_a_share_of_zero_holds_nothing_out() -> None:
    train = plain({"a": 3, "b": 3})
    splits = make_splits({"train": train}, COLUMNS, CLASSES, 0.0, 0.0, 0)
    assert splits.train == train
    assert len(splits.validation) == len(splits.test) == 0
    assert list(splits.test.columns) == ["text", "label"]
    assert splits.why["test"] == "none: no file of it is given, and its share is 0"


def test_seeds_differ_and_repeat() -> None:
    train = {"train": plain({"a": 40, "b": 40})}
    once, again = (make_splits(train, COLUMNS, CLASSES, 0.2, 0.2, seed=5) for _ in range(2))
    assert once == again
    assert make_splits(train, COLUMNS, CLASSES, 0.2, 0.2, seed=6).test != once.test


def test_nothing_to_hold_out_is_an_error_for_each_split() -> None:
    with pytest.raises(DataError) as caught:
        make_splits({"train": plain({"a": 1, "b": 1, "c": 1, "d": 1})}, COLUMNS, CLASSES, 0.1, 0.1, 0)
    assert len(caught.value.problems) == 2
    assert "no row can be held out for validation (10 % asked for)" in caught.value.problems[0]
    assert "--set data.test=0" in caught.value.problems[1]
    with pytest.raises(DataError, match="hold out every row"):
        make_splits({"train": plain({"a": 5, "b": 5})}, COLUMNS, CLASSES, 0.5, 0.5, 0)


def test_groups_that_are_classes_cannot_be_split() -> None:
    labels = ["a"] * 10 + ["b"] * 10
    train = table([f"t{i}" for i in range(20)], labels, list(labels))
    with pytest.raises(DataError, match='20 rows fall into 2 groups of "group"'):
        make_splits({"train": train}, GROUPED, CLASSES, 0.1, 0.1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_groups_come_near_the_shares_and_the_strata(seed: int) -> None:
    groups = [f"g{i % (20 + i % 61)}" for i in range(2000)]
    labels = ["abc"[int(group[1:]) % 3] if i % 4 else "d" for i, group in enumerate(groups)]
    splits = make_splits(
        {"train": table([f"t{i}" for i in range(2000)], labels, groups)}, GROUPED, CLASSES, 0.1, 0.2, seed
    )
    assert 0.17 <= len(splits.test) / 2000 <= 0.23
    assert 0.07 <= len(splits.validation) / 2000 <= 0.13
    whole = Counter(labels)
    for label, count in labels_of(splits.test).items():
        assert abs(count / len(splits.test) - whole[label] / 2000) < 0.08
    assert splits.why["test"] == f'20 % of train.csv, whole groups of "group", seed {seed}'


@pytest.mark.parametrize("seed", range(5))
def test_few_equal_groups_give_one_of_them_to_a_side_that_would_stay_empty(seed: int) -> None:
    """A tenth of 60 rows is half of the smallest group: it was said that no row can be held out, though one group can."""
    authors: list[str | None] = [f"author {i % 5}" for i in range(60)]
    train = table([f"t{i}" for i in range(60)], ["a" if i % 2 else "b" for i in range(60)], authors)
    held = Table("test.csv", {"text": ["x", "y"], "label": ["a", "b"], "group": ["q", "q"]}, (2, 3))
    splits = make_splits({"train": train, "test": held}, GROUPED, CLASSES, 0.1, 0.1, seed)
    assert [len(found) for found in sides(splits)] == [48, 12, 2]
    assert len(set(splits.validation.columns["group"])) == 1
    assert splits.why["validation"].endswith('it is the smallest group of "group" that can be spared, 20 %')


def test_a_group_that_alone_holds_a_class_is_not_taken_to_fill_a_side() -> None:
    groups: list[str | None] = [*("p" * 4), *("q" * 4), *("r" * 8)]
    labels = [*"aaaa", *"bbbb", *"cdcdcdcd"]
    texts = [f"t{i}" for i in range(16)]
    train = table(texts, labels, groups)
    with pytest.raises(DataError, match="every class must keep a training row"):
        make_splits({"train": train}, GROUPED, CLASSES, 0.1, 0.0, 0)
    labels[8], labels[9] = "a", "b"  # now p and q can each be spared, r cannot
    train = table(texts, labels, groups)
    splits = make_splits({"train": train}, GROUPED, CLASSES, 0.05, 0.05, 0)
    assert sorted([*set(splits.validation.columns["group"]), *set(splits.test.columns["group"])]) == ["p", "q"]
    assert set(splits.train.columns["label"]) == set("abcd")


def test_repeated_texts_still_give_their_share() -> None:
    texts = [f"text {i // 2}" for i in range(80)]
    splits = make_splits({"train": table(texts, [f"c{i // 8}" for i in range(80)])}, COLUMNS, CLASSES, 0.1, 0.1, 0)
    assert [len(found) for found in sides(splits)] == [64, 8, 8]


ROW = st.tuples(
    st.sampled_from(["a", "A", " a", "b", "B ", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]),
    st.sampled_from("xyz"),
    st.sampled_from(["1", "2", "3", "4", "5", None]),
)


@settings(deadline=None)
@given(
    st.lists(ROW, min_size=4, max_size=40),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.0, 0.2, 0.4]),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_split_is_a_partition_without_leaks(
    rows: list, share: float, test: float, seed: int, grouped: bool
) -> None:
    train = table([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    try:
        splits = make_splits({"train": train}, GROUPED if grouped else COLUMNS, CLASSES, share, test, seed)
    except DataError as error:
        assert all("no row can be held out" in problem for problem in error.problems)
        return
    assert sorted(line for found in sides(splits) for line in found.lines) == list(train.lines)
    assert all(list(found.lines) == sorted(found.lines) for found in sides(splits))
    assert set(splits.train.columns["label"]) == set(train.columns["label"])
    for one in range(3):
        for other in range(one):
            left, right = sides(splits)[one], sides(splits)[other]
            assert not {text_key(t) for t in left.columns["text"]} & {text_key(t) for t in right.columns["text"]}
            if grouped:
                assert not (set(left.columns["group"]) & set(right.columns["group"])) - {None}


def test_two_texts_stand_on_one_side_in_either_order() -> None:
    count = 60
    one = [f"one {place}" for place in range(count)] + [f"TWO {place}" for place in range(count)]
    two = [f"two {place}" for place in range(count)] + [f"one  {place}" for place in range(count)]
    whole = Table("train.csv", {"text": one, "pair": two, "label": ["a", "b"] * count}, tuple(range(2, 2 * count + 2)))
    columns = Columns("text", "label", pair="pair")
    told = [
        {frozenset(map(text_key, row)) for row in zip(side.columns["text"], side.columns["pair"], strict=True)}
        for side in sides(make_splits({"train": whole}, columns, CLASSES, 0.2, 0.2, 0))
    ]
    assert [len(found) for found in told] == [36, 12, 12]
    assert not (told[0] & told[1] or told[0] & told[2] or told[1] & told[2])
    ordered = make_splits({"train": whole}, columns, PlainText(), 0.2, 0.2, 0)  # the control: this one tells them apart
    assert {text_key(text) for text in ordered.train.columns["text"]} & {
        text_key(text) for text in ordered.test.columns["pair"]
    }


def test_the_strata_of_test_rows_are_known_where_they_were_held_out_by_label() -> None:
    train = plain({"a": 40, "b": 20})
    held = make_splits({"train": train}, COLUMNS, CLASSES, 0.1, 0.2, 0)
    found = strata_of_test(held, COLUMNS, CLASSES)
    assert found is not None
    assert list(zip(held.test.columns["label"], found, strict=True)).count(("a", 0)) == 8 == found.count(0)
    assert found.count(1) == 4 == len(found) - 8
    given = make_splits({"train": train, "test": plain({"a": 4, "b": 4})}, COLUMNS, CLASSES, 0.1, 0.0, 0)
    assert strata_of_test(given, COLUMNS, CLASSES) is None
    grouped = table([f"t{i}" for i in range(60)], ["a", "b"] * 30, [str(i // 3) for i in range(60)])
    assert strata_of_test(make_splits({"train": grouped}, GROUPED, CLASSES, 0.1, 0.2, 0), GROUPED, CLASSES) is None
    assert (
        strata_of_test(make_splits({"train": train}, COLUMNS, PlainText(), 0.1, 0.2, 0), COLUMNS, PlainText()) is None
    )
    assert strata_of_test(make_splits({"train": train}, COLUMNS, CLASSES, 0.1, 0.0, 0), COLUMNS, CLASSES) is None


def test_a_row_of_several_labels_counts_for_the_rarest_and_one_without_for_itself() -> None:
    said = [("a",)] * 30 + [("a", "b")] * 10 + [()] * 10
    rows = Table("train.csv", {"text": [f"t{i}" for i in range(50)], "label": said}, tuple(range(2, 52)))
    target = LabelSet(",")
    held = make_splits({"train": rows}, COLUMNS, target, 0.0, 0.2, 0)
    found = strata_of_test(held, COLUMNS, target)
    assert found is not None
    names = {(): 0, ("a",): 1, ("a", "b"): 2}
    assert found == [names[labels] for labels in held.test.columns["label"]]


def test_numbers_have_no_strata() -> None:
    rows = Table(
        "train.csv",
        {"text": [f"t{i}" for i in range(50)], "label": [(float(i),) for i in range(50)]},
        tuple(range(2, 52)),
    )
    target = Numbers(("label",))
    assert strata_of_test(make_splits({"train": rows}, COLUMNS, target, 0.0, 0.2, 0), COLUMNS, target) is None
