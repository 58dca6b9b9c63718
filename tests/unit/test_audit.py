"""What is found in the rows, and what is done about it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.data.audit import Finding, clean, either_order, row_key, text_key
from tunesmith.data.columns import Columns
from tunesmith.data.table import Table
from tunesmith.data.targets.answers import Answers
from tunesmith.data.targets.label_set import LabelSet
from tunesmith.data.targets.numbers import Numbers
from tunesmith.data.targets.one_class import OneClass
from tunesmith.data.targets.related import Related
from tunesmith.errors import DataError

CLASSES = OneClass()
COLUMNS = Columns("text", "label")


def table(rows: list[tuple[Any, Any]], path: str = "train.csv") -> Table:
    columns = {"text": [row[0] for row in rows], "label": [row[1] for row in rows], "id": list(range(len(rows)))}
    return Table(path, columns, tuple(range(2, len(rows) + 2)))


def rows(count: int) -> list[tuple[Any, Any]]:
    return [(f"text {i}", "ab"[i % 2]) for i in range(count)]


def one(findings: list[Finding], kind: str) -> Finding:
    (found,) = [finding for finding in findings if finding.kind == kind]
    return found


def test_good_rows_pass_untouched_and_unremarked() -> None:
    train, test = table(rows(6)), table([("new", "a"), ("newer", "b")], "test.csv")
    cleaned, findings = clean({"train": train, "test": test}, COLUMNS, CLASSES)
    assert cleaned == {"train": train, "test": test}
    assert findings == []


def test_unusable_rows_are_dropped_counted_and_placed() -> None:
    bad = [(None, "a"), ("  \n", "b"), ("fine", None), ("good", "  ")]
    cleaned, findings = clean({"train": table(rows(4) + bad)}, COLUMNS, CLASSES)
    assert cleaned["train"] == table(rows(4))
    assert [finding.kind for finding in findings] == ["empty_text", "missing_label"]
    assert one(findings, "empty_text").places == ("train.csv:6", "train.csv:7")
    assert one(findings, "empty_text").message == '2 rows: "text" is empty; dropped'
    assert one(findings, "missing_label").places == ("train.csv:8", "train.csv:9")


def test_other_columns_and_lines_follow_the_kept_rows() -> None:
    cleaned, _ = clean({"train": table([("", "a"), *rows(4)])}, COLUMNS, CLASSES)
    assert cleaned["train"].columns["id"] == [1, 2, 3, 4]
    assert cleaned["train"].lines == (3, 4, 5, 6)


def test_labels_lose_spaces_and_types() -> None:
    labels = ["a ", 1, "1", 1.0, 2.5, True, "a"]
    cleaned, findings = clean({"train": table([(f"t{i}", label) for i, label in enumerate(labels)])}, COLUMNS, CLASSES)
    assert cleaned["train"].columns["label"] == ["a", "1", "1", "1", "2.5", "True", "a"]
    assert one(findings, "label_space").places == ("train.csv:2",)
    mixed = one(findings, "mixed_types")
    assert mixed.count == 4
    assert "1 bool, 3 number, 3 text" in mixed.message


def test_numbers_as_labels_and_texts_are_said() -> None:
    cleaned, findings = clean({"train": table([(i, i % 2) for i in range(4)])}, COLUMNS, CLASSES)
    assert cleaned["train"].columns["text"] == ["0", "1", "2", "3"]
    assert cleaned["train"].columns["label"] == ["0", "1", "0", "1"]
    assert [finding.kind for finding in findings] == ["number_text", "number_label"]
    _, findings = clean({"train": table([(f"t{i}", ["4.5", "3"][i % 2]) for i in range(4)])}, COLUMNS, CLASSES)
    assert one(findings, "decimal_label").count == 4


def test_repeats_are_kept_and_contradictions_listed() -> None:
    extra = [("Text  0", "a"), ("TEXT 1", "a")]
    cleaned, findings = clean({"train": table(rows(4) + extra)}, COLUMNS, CLASSES)
    assert len(cleaned["train"]) == 6
    assert one(findings, "duplicate").places == ("train.csv:6",)
    conflict = one(findings, "conflict")
    assert conflict.places == ("train.csv:3", "train.csv:7")
    assert '1 text has more than one label, such as "text 1" with "a", "b"; kept' in conflict.message


def test_contradictions_across_splits_count_too() -> None:
    splits = {"train": table(rows(4)), "test": table([("text 0", "b"), ("x", "a")], "test.csv")}
    _, findings = clean(splits, COLUMNS, CLASSES, leaks="keep")
    assert one(findings, "conflict").places == ("train.csv:2", "test.csv:2")


@pytest.mark.parametrize(("leaks", "left"), [("drop", 5), ("keep", 7)])
def test_training_rows_that_are_also_held_out(leaks: str, left: int) -> None:
    splits = {
        "train": table(rows(7)),
        "validation": table([(" Text 2", "a"), ("v", "b")], "dev.csv"),
        "test": table([("text 4", "a"), ("v", "b")], "test.csv"),
    }
    cleaned, findings = clean(splits, COLUMNS, CLASSES, leaks=leaks)
    assert len(cleaned["train"]) == left
    leak = one(findings, "leak")
    assert leak.places == ("train.csv:4", "train.csv:6")
    assert ("dropped from train" in leak.message) is (leaks == "drop")
    assert one(findings, "leak_validation").places == ("dev.csv:3",)
    assert len(cleaned["validation"]) == (1 if leaks == "drop" else 2)


def test_a_class_of_one_row_and_labels_alike_are_warned_of() -> None:
    cleaned, findings = clean({"train": table([*rows(4), ("t", "rare"), ("u", "B"), ("v", "B")])}, COLUMNS, CLASSES)
    assert len(cleaned["train"]) == 7
    assert one(findings, "rare_class").places == ("train.csv:6",)
    assert '"rare"' in one(findings, "rare_class").message
    assert '"B" / "b"' in one(findings, "label_case").message


def test_a_split_without_labels_is_left_out_and_said() -> None:
    splits = {"train": table(rows(6)), "test": table([("x", None), ("y", None)], "test.csv")}
    cleaned, findings = clean(splits, COLUMNS, CLASSES)
    assert list(cleaned) == ["train"]
    assert one(findings, "unused_split").count == 2


def test_rows_without_a_group_are_said() -> None:
    train = Table("t.csv", {"text": list("abcd"), "label": list("xyxy"), "g": ["1", None, "", "2"]}, (2, 3, 4, 5))
    _, findings = clean({"train": train}, Columns("text", "label", "g"), CLASSES)
    assert one(findings, "missing_group").places == ("t.csv:3", "t.csv:4")


def test_every_problem_is_in_one_error() -> None:
    splits = {
        "train": table([(f"text {i}", "a") for i in range(5)]),
        "validation": table([("x", "c"), ("y", "c"), ("z", "a")], "dev.csv"),
        "test": table([("w", "d")], "test.csv"),
    }
    with pytest.raises(DataError) as caught:
        clean(splits, COLUMNS, CLASSES)
    first, second, third = caught.value.problems
    assert 'one class only ("a", 5 rows)' in first
    assert 'validation: label "c" (2 rows: dev.csv:2, dev.csv:3) is in no training row of train.csv' in second
    assert 'test: label "d" (1 row: test.csv:2)' in third


def test_labels_joined_in_one_cell_are_recognised() -> None:
    with pytest.raises(DataError) as caught:
        clean(
            {"train": table(rows(6)), "test": table([("new", "a|b"), ("newer", "c|b")], "test.csv")}, COLUMNS, CLASSES
        )
    assert len(caught.value.problems) == 3
    assert '1 of these, such as "a|b", join labels that training rows have' in caught.value.problems[-1]


def test_refused_tables() -> None:
    with pytest.raises(DataError, match=r"3 rows of 4 can be used, and at least 4 are needed.*is empty; dropped"):
        clean({"train": table([*rows(3), ("", "a")])}, COLUMNS, CLASSES)
    with pytest.raises(
        DataError, match="numbers to be predicted as values, not classes; learn them with --task regression"
    ):
        clean({"train": table([(f"t{i}", str(i - i % 3 // 2)) for i in range(21)])}, COLUMNS, CLASSES)
    with pytest.raises(DataError, match="it looks like text, not classes; name the right column by --label"):
        clean({"train": table([(f"t{i}", f"word {i}") for i in range(21)])}, COLUMNS, CLASSES)
    strange = [("a", "NaN"), ("b", "inf"), ("c", "abc")]
    with pytest.raises(
        DataError, match=r'3 rows \(train.csv:42 "NaN", train.csv:43 "inf", train.csv:44 "abc"\); put .* --task reg'
    ):
        clean({"train": table([*((f"t{i}", str(i)) for i in range(40)), *strange])}, COLUMNS, CLASSES)
    with pytest.raises(DataError, match=r'"label" holds a list in 1 row \(train.csv:2\)'):
        clean({"train": table([("t", ["a", "b"]), *rows(4)])}, COLUMNS, CLASSES)
    with pytest.raises(DataError, match=r"there are no training rows, only test\.csv"):
        clean({"test": table(rows(4), "test.csv")}, COLUMNS, CLASSES)
    other = Table("test.csv", {"text": ["a"], "labels": ["a"]}, (2,))
    with pytest.raises(DataError, match=r'test\.csv: there is no column "label".*did you mean "labels"'):
        clean({"train": table(rows(4)), "test": other}, COLUMNS, CLASSES)


TEXT = st.sampled_from(["a", "A ", " b", "b  c", "B c", "", " ", "d", "e", None, 7])
LABEL = st.sampled_from(["x", "y", " x", "y ", "", None, 1, 1.0, "1", True])


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, LABEL), max_size=12), st.lists(st.tuples(TEXT, LABEL), max_size=6))
def test_every_row_is_kept_or_counted_and_no_text_is_on_both_sides(train: list, test: list) -> None:
    splits = {"train": table(train), "test": table(test, "test.csv")}
    try:
        cleaned, findings = clean(splits, COLUMNS, CLASSES)
    except DataError:
        return
    dropped = sum(f.count for f in findings if "dropped" in f.message)
    kept = sum(len(found) for found in cleaned.values())
    assert kept + dropped == len(train) + len(test)
    keys = {name: {text_key(text) for text in found.columns["text"]} for name, found in cleaned.items()}
    assert not keys["train"] & keys.get("test", set())
    assert clean(cleaned, COLUMNS, CLASSES)[0] == cleaned
    for finding in findings:
        assert "\n" not in finding.message
        assert len(finding.places) == finding.count


def test_groups_that_are_also_held_out() -> None:
    def grouped(count: int, groups: list[str], path: str) -> Table:
        texts = [f"{path} {place}" for place in range(count)]
        columns = {"text": texts, "label": ["a", "b"] * (count // 2), "by": groups}
        return Table(path, columns, tuple(range(2, count + 2)))

    splits = {
        "train": grouped(8, ["x", "x", "y", "y", "z", "z", "", "w"], "train.csv"),
        "test": grouped(4, ["y", "q", "", "w"], "test.csv"),
    }
    by = Columns("text", "label", "by")
    cleaned, findings = clean(splits, by, CLASSES)
    assert cleaned["train"].columns["by"] == ["x", "x", "z", "z", ""]
    assert one(findings, "leak_group").places == ("train.csv:4", "train.csv:5", "train.csv:9")
    assert "dropped" in one(findings, "leak_group").message
    kept, findings = clean(splits, by, CLASSES, leaks="keep")
    assert len(kept["train"]) == 8 and "flatters" in one(findings, "leak_group").message


def test_labels_that_a_finished_model_does_not_know_are_named_with_those_that_it_does() -> None:
    with pytest.raises(DataError) as caught:
        clean({"test": table([("t", "1"), ("u", "good")], "new.csv")}, COLUMNS, CLASSES, known=("bad", "good"))
    assert caught.value.problems == (
        'new.csv: the model does not know the label "1" (1 row, first at new.csv:2); it knows "bad", "good"; correct it, or '
        "remove these rows",
    )
    with pytest.raises(DataError) as caught:
        clean({"test": table([("t", "1"), ("u", "2")], "new.csv")}, COLUMNS, CLASSES, known=("bad", "good"))
    assert caught.value.problems == (
        'new.csv: the model does not know the labels "1" (1 row, first at new.csv:2), "2" (1 row, first at new.csv:3); it '
        'knows "bad", "good"; correct them, or remove these rows',
    )


def pairs(rows: list[tuple[str, str, Any]], path: str = "train.csv") -> Table:
    columns = {"one": [row[0] for row in rows], "two": [row[1] for row in rows], "label": [row[2] for row in rows]}
    return Table(path, columns, tuple(range(2, len(rows) + 2)))


PAIRS = Columns("one", "label", pair="two")


@pytest.mark.parametrize(("leaks", "left"), [("drop", ([0, 2, 4, 5], [0])), ("keep", ([0, 1, 2, 3, 4, 5], [0, 1]))])
def test_two_texts_swapped_are_a_leak_too(leaks: str, left: tuple[list[int], list[int]]) -> None:
    """Their own line, beside that of the rows that leak as they are; a label that differs contradicts nothing."""
    train = [("a", "b", 0.1), ("T2", " t1", 0.2), ("c", "d", 0.3), ("t1", "t2", 0.3), ("d", "c", 0.5), ("e", "f", 0.6)]
    splits = {
        "train": pairs(train),
        "validation": pairs([("g", "h", 0.1), ("t2", "t1", 0.2)], "dev.csv"),
        "test": pairs([("t1", "t2", 0.3)], "test.csv"),
    }
    cleaned, findings = clean(splits, PAIRS, Numbers(("label",)), leaks=leaks)
    assert cleaned["train"].columns["one"] == [train[row][0] for row in left[0]]
    assert len(cleaned["validation"]) == len(left[1])
    assert one(findings, "leak_validation_swapped").places == ("dev.csv:3",)
    if leaks == "drop":  # kept as asked, the validation row that train repeats as it is stays there
        assert one(findings, "leak").places == ("train.csv:5",)
        said = "1 row (train 1): the text is also in validation or test, its two texts swapped; dropped from train"
        assert (one(findings, "leak_swapped").message, one(findings, "leak_swapped").places) == (said, ("train.csv:3",))
    assert one(findings, "swapped").places == ("train.csv:5", "train.csv:6")
    assert not [finding for finding in findings if finding.kind == "conflict"]


def test_a_question_and_its_context_keep_their_order() -> None:
    """Only targets of which two texts are read alike swap; more than two texts never do."""
    kinds = {OneClass(): True, Numbers(("label",)): True, LabelSet(None): True, Related(): True, Answers(): False}
    assert {type(kind).__name__: kind.swaps for kind in kinds} == {
        type(kind).__name__: its for kind, its in kinds.items()
    }
    assert either_order(row_key(("b", "A"))) == either_order(row_key(("a", "B"))) == row_key(("a", "b"))
    assert either_order(row_key(("b", "a", "c"))) == row_key(("b", "a", "c"))
    assert either_order("") == "" and either_order("b a") == "b a"


def test_a_finding_shows_up_to_three_rows_with_their_texts_and_what_can_be_done() -> None:
    first = rows(8)
    _, findings = clean({"train": table([*first, *first[:5], ("text 0", "b")])}, COLUMNS, CLASSES)
    repeated, torn = one(findings, "duplicate"), one(findings, "conflict")
    assert [(example.place, example.text, example.detail) for example in repeated.examples] == [
        ("train.csv:10", "text 0", "a"),
        ("train.csv:11", "text 1", "b"),
        ("train.csv:12", "text 2", "a"),
    ]
    assert [example.detail for example in torn.examples] == ["a", "a", "b"]  # rows of one text beside each other
    assert repeated.advice and torn.advice
    long = table([(f"{'a' * 300}\x1b[31m{row}", "ab"[row % 2]) for row in range(4)] + [("", "a")])
    _, findings = clean({"train": long}, COLUMNS, CLASSES)
    assert one(findings, "empty_text").examples[0].text == ""
    assert all(len(example.text) <= 80 for finding in findings for example in finding.examples)
