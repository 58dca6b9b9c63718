"""Held-out rows: shares, strata, groups, and no text on two sides."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audit import text_key
from tunesmith.data.columns import Columns
from tunesmith.data.near import near_pairs
from tunesmith.data.split import Splits, make_fold, make_splits, strata_of_test
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
    splits = make_splits({"train": plain({"a": 40, "b": 20, "c": 10})}, COLUMNS, CLASSES, 0.1, 0.1, 0)
    assert labels_of(splits.test) == labels_of(splits.validation) == {"a": 4, "b": 2, "c": 1}
    assert labels_of(splits.train) == {"a": 32, "b": 16, "c": 8}
    assert splits.why["test"] == "10 % of train.csv, stratified by label, seed 0"


def test_large_classes_meet_their_shares_but_for_some_play() -> None:
    splits = make_splits({"train": plain({"a": 100, "b": 50, "c": 10})}, COLUMNS, CLASSES, 0.1, 0.2, 0)
    for found, share in ((splits.test, 0.2), (splits.validation, 0.1)):
        assert len(found) == 160 * share  # all together to the row
        for label, count in (("a", 100), ("b", 50)):
            assert abs(labels_of(found)[label] - share * count) <= math.sqrt(share * count - 1) - 1
        assert labels_of(found)["c"] == 10 * share
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


TALK = "card top up money transfer bank account why how can my pending fee cash app today lost new order refund"
WORDS = TALK.split()


def talk(count: int, classes: int, groups: int = 0, seed: int = 0) -> Table:
    """Sentences of many words that hardly repeat, of classes of different sizes."""
    draw = random.Random(seed)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(8, 20))) for _ in range(count)]
    labels = [f"c{int(classes * draw.random() ** 1.5)}" for _ in range(count)]
    named: list[str | None] = [f"g{draw.randrange(groups)}" for _ in range(count)] if groups else []
    return table(texts, labels, named or None)


def lines(splits: Splits) -> dict[str, set[int]]:
    return {
        "train": set(splits.train.lines),
        "validation": set(splits.validation.lines),
        "test": set(splits.test.lines),
    }


@settings(deadline=None, max_examples=30)
@given(
    st.lists(ROW, min_size=6, max_size=40), st.integers(0, 5), st.sampled_from(["rows", "groups", "time"]), st.randoms()
)
def test_the_order_of_rows_decides_nothing(rows: list, seed: int, how: str, draw: random.Random) -> None:
    """The same contents in another order: the same texts are held out, however many rows have each."""
    columns = {"rows": COLUMNS, "groups": GROUPED, "time": replace(COLUMNS, time="time")}[how]
    whole = table(
        [f"{row[0]} {place}" for place, row in enumerate(rows)], [row[1] for row in rows], [row[2] for row in rows]
    )
    whole.columns["time"] = [row[2] and int(row[2]) for row in rows]
    turned = list(range(len(rows)))
    draw.shuffle(turned)

    def made(train: Table) -> object:
        try:
            return lines(make_splits({"train": train}, columns, CLASSES, 0.2, 0.2, seed))
        except DataError as error:
            return len(error.problems)

    assert made(whole) == made(whole.take(turned))


def test_numbers_are_binned_whatever_the_order_of_rows() -> None:
    values = [(float(place % 7),) for place in range(300)]
    whole = Table("rows.csv", {"text": [f"row {place}" for place in range(300)], "label": values}, tuple(range(300)))
    turned = whole.take(random.Random(1).sample(range(300), 300))
    one, other = (make_splits({"train": t}, COLUMNS, Numbers(("label",)), 0.1, 0.2, 0) for t in (whole, turned))
    assert lines(one) == lines(other)


@pytest.mark.parametrize(("groups", "kept"), [(0, 0.97), (800, 0.93)])
def test_added_rows_hardly_move_old_ones(groups: int, kept: float) -> None:
    columns = GROUPED if groups else COLUMNS
    stayed, tested, moved = 0, 0, 0
    for seed in range(3):
        whole = talk(4400, 12, groups, seed)
        old = whole.take(random.Random(seed).sample(range(4400), 4000))
        before, after = (
            lines(make_splits({"train": found}, columns, CLASSES, 0.1, 0.1, seed)) for found in (old, whole)
        )
        tested += len(before["test"])
        stayed += len(before["test"] & after["test"])
        moved += sum(len(before[side] - after[side]) for side in before)
    assert stayed >= kept * tested
    assert moved <= 2 * 3 * (1 - kept) * 4000 * 0.2  # over the edges of the two sides, and in from train as well as out
    other = lines(make_splits({"train": old}, columns, CLASSES, 0.1, 0.1, 7))  # the control: another seed draws afresh
    assert len(before["test"] & other["test"]) < 0.3 * len(before["test"])


def test_a_larger_share_holds_out_the_same_rows_and_more() -> None:
    whole = {"train": plain({"a": 200, "b": 100})}
    small, large = (lines(make_splits(whole, COLUMNS, CLASSES, 0.0, share, 0))["test"] for share in (0.1, 0.2))
    assert len(small & large) >= 28


def test_near_duplicates_stay_on_one_side() -> None:
    base = talk(600, 3)
    texts = base.columns["text"] + [
        f"{text}{('!', ' a')[place % 2]}" for place, text in enumerate(base.columns["text"])
    ]
    pairs, _ = near_pairs(texts)
    assert len(pairs) >= 600
    whole = table(texts, base.columns["label"] * 2)
    splits = make_splits({"train": whole}, COLUMNS, CLASSES, 0.1, 0.2, 0)
    side = {line: name for name, found in lines(splits).items() for line in found}
    assert all(side[whole.lines[pair.one]] == side[whole.lines[pair.other]] for pair in pairs)
    assert [len(found) for found in sides(splits)] == [840, 120, 240]
    assert (
        splits.why["train"]
        == "the other 70 % of train.csv; 1200 rows that say nearly the same as others stay with them"
    )
    assert splits.findings == ()


def test_a_chain_of_near_duplicates_is_said_and_not_joined() -> None:
    words = [f"{word}{place}" for place in "abcdefg" for word in WORDS]
    chain = [" ".join(words[start : start + 20]) for start in range(100)]
    whole = table([*chain, "alone in this", "and here too"], ["a", "b"] * 51)
    splits = make_splits({"train": whole}, COLUMNS, CLASSES, 0.1, 0.2, 0)
    assert [len(found) for found in sides(splits)] == [72, 10, 20]
    (finding,) = splits.findings
    assert (finding.kind, finding.count, finding.places[0]) == ("near_apart", 100, "train.csv:2")
    assert "nearly the same" not in splits.why["train"]


TIMED = replace(COLUMNS, time="when")


def timed(when: list, texts: list[str] | None = None, labels: list[str] | None = None, **more: list) -> Table:
    count = len(when)
    texts = texts or [f"text {place}" for place in range(count)]
    return Table(
        "log.csv",
        {"text": texts, "label": labels or ["a", "b"] * (count // 2), "when": when, **more},
        tuple(range(2, count + 2)),
    )


def test_the_newest_rows_are_tested_and_the_oldest_train() -> None:
    days = [f"2024-{month:02d}-{day:02d}" for day in (5, 20) for month in range(1, 11)]
    splits = make_splits({"train": timed(days)}, TIMED, CLASSES, 0.1, 0.2, 0)
    assert sorted(splits.test.columns["when"]) == ["2024-09-05", "2024-09-20", "2024-10-05", "2024-10-20"]
    assert sorted(splits.validation.columns["when"]) == ["2024-08-05", "2024-08-20"]
    assert len(splits.train) == 14
    assert splits.why == {
        "train": 'the oldest 70 % of log.csv by "when": 2024-01-05 to 2024-07-20',
        "validation": 'the next newest 10 % of log.csv by "when": 2024-08-05 to 2024-08-20',
        "test": 'the newest 20 % of log.csv by "when": 2024-09-05 to 2024-10-20',
    }


@pytest.mark.parametrize("seed", range(2))
def test_rows_of_one_instant_stay_together(seed: int) -> None:
    years = [2015 + place // 6 for place in range(60)]
    random.Random(seed).shuffle(years)
    splits = make_splits({"train": timed(years)}, TIMED, CLASSES, 0.17, 0.12, seed)
    assert [set(found.columns["when"]) for found in sides(splits)[1:]] == [{2022, 2023}, {2024}]


def test_groups_stand_where_their_newest_row_does() -> None:
    groups = [f"g{place % 10}" for place in range(40)]
    whole = timed([float(place) for place in range(40)], group=groups)
    splits = make_splits({"train": whole}, replace(TIMED, group="group"), CLASSES, 0.1, 0.2, 0)
    assert set(splits.test.columns["group"]) == {"g8", "g9"}
    assert set(splits.validation.columns["group"]) == {"g7"}
    assert 'whole groups of "group" by their newest row: 38.0 to 39.0' in splits.why["test"]


def test_held_out_rows_of_newer_groups_are_left_out_where_older_than_what_is_learned() -> None:
    groups = [f"g{place % 10}" for place in range(40)]
    whole = timed([float(place) for place in range(40)], group=groups)
    splits = make_splits({"train": whole}, replace(TIMED, group="group"), CLASSES, 0.1, 0.2, 0)
    train, validation, test = ([*map(float, found.columns["when"])] for found in sides(splits))
    assert max(train) == 36.0 and (validation, test) == ([37.0], [38.0, 39.0])
    assert [finding.count for finding in splits.findings if finding.kind == "time_past"] == [3, 6]


def test_copies_new_classes_and_rows_without_a_time_are_left_out_and_counted() -> None:
    said = [f"{chr(97 + place) * 9} {chr(98 + place) * 7} on its own" for place in range(20)]
    texts = [*said[:18], said[0].upper() + "!", said[17]]
    labels = ["a", "b"] * 9 + ["a", "new"]
    whole = timed([None, *range(1, 20)], [*texts[:16], said[1] + " now", *texts[17:]], labels)
    splits = make_splits({"train": whole}, TIMED, CLASSES, 0.0, 0.3, 0)
    found = {finding.kind: (finding.count, finding.places) for finding in splits.findings}
    assert found == {
        "missing_time": (1, ("log.csv:2",)),
        "time_copy": (1, ("log.csv:18",)),  # nearly the text of line 3; line 20 repeats the row that has no time
        "time_class": (1, ("log.csv:21",)),
    }
    assert [*splits.test.lines] == [15 + place for place in (1, 2, 4, 5)]
    assert 'class "new"' in splits.findings[-1].message
    assert [len(found) for found in sides(splits)] == [13, 0, 4]


@pytest.mark.parametrize(
    ("when", "problem"),
    [
        (
            ["2024-01-01", "soon", "2024-01-03", "31/12/2024"],
            r"no time in 2 rows \(log.csv:3 soon, log.csv:5 31/12/2024\)",
        ),
        ([2024, "2024-01-01", 2023, 2022], r"numbers in 3 rows .*, and dates without one in 1 row"),
        (
            ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00", "2024-01-01", "2024-01-02"],
            "dates with a time zone in 1 row",
        ),
        ([True, False, True, False], "no time in 4 rows"),
        ([None, "", None, ""], "is empty in every row"),
        (["2024", "2024", "2024", "2024"], "no row can be held out for test"),
    ],
)
def test_times_that_cannot_be_ordered_are_named(when: list, problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        make_splits({"train": timed(when)}, TIMED, CLASSES, 0.0, 0.25, 0)


def test_times_are_compared_as_instants() -> None:
    when = [
        "2024-05-01T01:00:00+02:00",
        "2024-04-30T23:30:00Z",
        "2024-05-01T00:00:00+00:00",
        "2024-04-30T20:00:00-05:00",
    ]
    splits = make_splits({"train": timed(when)}, TIMED, CLASSES, 0.25, 0.25, 0)
    assert [found.lines for found in sides(splits)] == [(2, 3), (4,), (5,)]
    months = ["2024-02", "2023-12", "2024-01-15", "2024-03"]
    splits = make_splits({"train": timed(months)}, TIMED, CLASSES, 0.25, 0.25, 0)
    assert [found.lines for found in sides(splits)] == [(3, 4), (2,), (5,)]


def test_given_tables_are_not_split_by_time() -> None:
    train, held = timed([1, 2, 3, 4]), timed([9, 9])
    splits = make_splits({"train": train, "test": held, "validation": held}, TIMED, CLASSES, 0.5, 0.4, 0)
    assert (splits.train, splits.test) == (train, held)


@settings(deadline=None, max_examples=40)
@given(st.lists(ROW, min_size=10, max_size=40), st.integers(2, 5), st.integers(0, 3), st.booleans(), st.randoms())
def test_folds_are_disjoint_and_hold_every_row(
    rows: list, folds: int, seed: int, grouped: bool, draw: random.Random
) -> None:
    whole = table([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
    columns = GROUPED if grouped else COLUMNS
    try:
        made = [make_fold(whole, columns, CLASSES, fold, folds, 0.0, seed) for fold in range(folds)]
    except DataError as error:
        assert "make no" in error.problems[0] or "would test no row" in error.problems[0]
        return
    tested = [line for splits in made for line in splits.test.lines]
    assert len(tested) == len(set(tested))
    untested = set(whole.lines) - set(tested)
    label_of = dict(zip(whole.lines, whole.columns["label"], strict=True))
    assert not untested or {label_of[line] for line in untested} - {label_of[line] for line in tested}
    turned = whole.take(draw.sample(range(len(whole)), len(whole)))
    for fold, splits in enumerate(made):
        assert sorted([*splits.train.lines, *splits.test.lines]) == list(whole.lines)
        assert not {*map(text_key, splits.train.columns["text"])} & {*map(text_key, splits.test.columns["text"])}
        assert lines(make_fold(turned, columns, CLASSES, fold, folds, 0.0, seed)) == lines(splits)


def test_folds_are_stratified_and_hardly_move() -> None:
    whole = talk(2200, 6)
    old = whole.take(random.Random(0).sample(range(2200), 2000))
    counts, moved = Counter(old.columns["label"]), 0
    for fold in range(5):
        before, after = (make_fold(found, COLUMNS, CLASSES, fold, 5, 0.1, 0) for found in (old, whole))
        assert all(abs(labels_of(before.test)[label] - counts[label] / 5) <= 1 for label in counts)
        assert len(before.validation) == 200
        assert not lines(before)["validation"] & lines(before)["test"]
        moved += len(lines(before)["test"] - lines(after)["test"])
        assert before.why["test"] == f"fold {fold + 1} of 5 of train.csv, stratified by label, seed 0"
    assert moved < 0.12 * 2000  # each class has four edges, of 20 to 200 rows between them


def test_small_classes_do_not_all_miss_the_same_folds() -> None:
    whole = plain({f"c{place:02d}": 2 for place in range(60)})
    sizes = [len(make_fold(whole, COLUMNS, CLASSES, fold, 5, 0.0, 0).test) for fold in range(5)]
    assert sum(sizes) == 120
    assert min(sizes) > 12


def test_folds_that_cannot_be_are_refused_and_lost_classes_said() -> None:
    whole = plain({"a": 8, "b": 8, "one": 1})
    said = [make_fold(whole, COLUMNS, CLASSES, fold, 3, 0.0, 0).why["train"] for fold in range(3)]
    assert all(
        "1 row of classes that have no other text train in every fold, and are never tested" in line for line in said
    )
    with pytest.raises(DataError, match="17 different texts make no 20 folds"):
        make_fold(whole, COLUMNS, CLASSES, 0, 20, 0.0, 0)
    with pytest.raises(DataError, match="no folds"):
        make_fold(timed([1, 2, 3, 4]), TIMED, CLASSES, 0, 2, 0.0, 0)
    with pytest.raises(ValueError, match="fold 2 of 2"):
        make_fold(whole, COLUMNS, CLASSES, 2, 2, 0.0, 0)


def test_rows_without_any_label_are_no_new_class() -> None:
    labels = [("x",), ("y",), ("x", "y"), ("x",), ("y",), (), ("x", "z"), ("y",)]
    whole = timed(list(range(8)), labels=labels)  # type: ignore[arg-type]
    splits = make_splits({"train": whole}, TIMED, LabelSet(None), 0.0, 0.4, 0)
    assert [*splits.test.lines] == [7, 9]
    assert splits.findings[0].message.endswith('has class "z"; dropped from test')
