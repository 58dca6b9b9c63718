"""How label columns of several labels and of numbers are read, refused and balanced, and which task a column means."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunesmith.choosing import checked_target, meant
from tunesmith.data.audit import clean
from tunesmith.data.columns import Columns, find_columns, gathered
from tunesmith.data.split import make_splits
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import LabelSet, as_list, is_flag, separator_of
from tunesmith.data.targets.numbers import Numbers, number_of
from tunesmith.errors import DataError, Problems
from tunesmith.recipe import Recipe
from tunesmith.tasks.multilabel import Multilabel
from tunesmith.tasks.regression import Regression

RECIPE = Recipe.parse({"model": "m", "data": "d"})
COLUMNS = Columns("text", "label")
NAMES = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=5)


def table(labels: list[Any], **more: list[Any]) -> Table:
    texts = [f"some text, number {i}" for i in range(len(labels))]
    return Table("rows.csv", {"text": texts, "label": labels, **more}, tuple(range(2, len(labels) + 2)))


def read(target: Target, labels: list[Any]) -> tuple[list[Any], list[str]]:
    """Targets, and the problems found."""
    problems = Problems()
    found = target.read(table(labels), "label", problems)
    try:
        problems.raise_as(DataError)
    except DataError as error:
        return found, list(error.problems)
    return found, []


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        (LabelSet(None), ["b", "a", "b"], ("a", "b")),
        (LabelSet(None), '["b", "a"]', ("a", "b")),
        (LabelSet(None), "['b', 'a']", ("a", "b")),
        (LabelSet(None), '["it\'s", 2, 3.0, true]', ("2", "3", "True", "it's")),
        (LabelSet(None), "['a' 'b']", ("['a' 'b']",)),  # as numpy writes it: to Python that is the one name "ab"
        (LabelSet(None), "[CLS]", ("[CLS]",)),
        (LabelSet("|"), "[1]|b", ("[1]", "b")),
        (LabelSet(None), [], ()),
        (LabelSet(None), "[]", ()),
        (LabelSet(None), "", None),
        (LabelSet(None), None, None),
        (LabelSet("|"), " b | a||a ", ("a", "b")),
        (LabelSet(";"), "Arts, Crafts; Music", ("Arts, Crafts", "Music")),
        (LabelSet(None), "Arts, Crafts", ("Arts, Crafts",)),
        (LabelSet(None), 4.0, ("4",)),
        (LabelSet(None, ("x", "y")), [1, 0], ("x",)),
        (LabelSet(None, ("x", "y")), ["true", "FALSE"], ("x",)),
        (LabelSet(None, ("x", "y")), [1.0, True], ("x", "y")),
        (LabelSet(None, ("x", "y")), [0, 0], ()),
        (LabelSet(None, ("x", "y")), [None, ""], None),
    ],
)
def test_labels_are_read_however_they_are_written(target: LabelSet, value: Any, expected: Any) -> None:
    assert read(target, [value]) == ([expected], [])


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        (LabelSet(None), [["a", None], ["a", ["b"]], '["a", null]', "[NaN]", '[{"a": 1}]']),
        (LabelSet(None, ("x", "y")), [[1, None], [1, ""], [2, 0], ["yes", "no"], [-1, 0], [0.5, 1]]),
        (Numbers(("label",)), ["n/a", "nan", float("inf"), "inf", "-Infinity", True, "1,5", "1_000", "0x1F", 10**400]),
        (Numbers(("label",)), ["1e400", "3 stars", "--3", "."]),
        (Numbers(("up", "down")), [["n/a", 1], "[true, 1]", [None, "x"]]),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_rows(target: Target, wrong: list[Any]) -> None:
    good = ["3"] if isinstance(target, Numbers) and len(target.names) == 1 else [[1, 0]]
    found, (problem,) = read(target, [*good, *wrong])
    assert found[1:] == [None] * len(wrong) and found[0] is not None
    assert f"in {len(wrong)} row" in problem
    assert all(f"rows.csv:{line}" in problem for line in range(3, 3 + len(wrong)))


@pytest.mark.parametrize(
    ("names", "value", "expected"),
    [
        (1, " 3 ", (3.0,)),
        (1, "-.5e-3", (-0.0005,)),
        (1, [3], (3.0,)),
        (1, "", None),
        (1, None, None),
        (2, [1, "2.5"], (1.0, 2.5)),
        (2, "[1, 2.5]", (1.0, 2.5)),
        (2, [None, 2], None),
    ],
)
def test_numbers_are_read_however_they_are_written(names: int, value: Any, expected: Any) -> None:
    assert read(Numbers(("up", "down")[:names]), [value]) == ([expected], [])


def test_rows_of_other_than_the_first_rows_size_are_named() -> None:
    found, (problem,) = read(Numbers(("up", "down")), [[1, 2], [1], [1, 2, 3], 7])
    assert found == [(1.0, 2.0), None, None, None]
    assert "other than 2 numbers in 3 rows" in problem and "rows.csv:3" in problem and "rows.csv:5" in problem


@given(st.floats(allow_nan=True, allow_infinity=True) | st.integers() | st.text(max_size=8) | st.booleans())
def test_a_number_is_finite_or_none(value: Any) -> None:
    found = number_of(value)
    assert found is None or math.isfinite(found)
    if isinstance(value, float) and math.isfinite(value):
        assert found == value and number_of(repr(value)) == value
    if isinstance(value, bool):
        assert found is None


@example([0.0, -0.0])
@example([1.0000001, 1.0000002])
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=2))
def test_numbers_have_equal_names_only_when_they_are_equal(pair: list[float]) -> None:
    one, other = (Numbers(("label",)).name((number,)) for number in pair)
    assert (one == other) == (pair[0] == pair[1])
    assert float(one) == pair[0]


@given(st.lists(NAMES, max_size=5))
def test_a_list_written_by_json_or_python_is_read_back(names: list[str]) -> None:
    assert as_list(json.dumps(names)) == as_list(str(names)) == as_list(names) == names
    expected = tuple(sorted(set(names)))
    assert [read(LabelSet(None), [form]) for form in (names, json.dumps(names), str(names))] == [([expected], [])] * 3


@given(st.lists(st.sets(NAMES, min_size=1, max_size=4), min_size=1, max_size=8), st.sampled_from("|;,"))
def test_joined_labels_are_read_back_and_their_separator_is_found(rows: list[set[str]], separator: str) -> None:
    texts = [separator.join(sorted(row)) for row in rows]
    assert read(LabelSet(separator), texts) == ([tuple(sorted(row)) for row in rows], [])
    alone = sorted(set().union(*rows))  # each label also has a row of its own, as in most sets
    found = separator_of([*texts, *alone])
    assert found == (separator if any(len(row) > 1 for row in rows) else None)


@pytest.mark.parametrize(
    ("texts", "separator"),
    [
        (["Arts, Crafts", "Music", "Film"], None),
        (["Arts, Crafts", "Music", "Arts, Crafts"], None),
        (["New York, NY", "Buffalo, NY", "Albany, NY"], None),
        (["Arts, Crafts|Music", "Music", "Arts, Crafts"], "|"),
        (["Arts, Crafts;Music", "Music", "Film;Music", "Film", "Arts, Crafts"], ";"),
        (["a,b", "b,c", "c,a"], ","),
        (["yes", "no"], None),
        ([], None),
        ([1, None, ["a", "b"]], None),
    ],
)
def test_a_comma_inside_a_name_is_no_separator(texts: list[Any], separator: str | None) -> None:
    assert separator_of(texts) == separator


def test_flags() -> None:
    assert all(is_flag(value) for value in (0, 1, 1.0, True, "0", " TRUE ", "false"))
    assert not any(is_flag(value) for value in (2, -1, 0.5, "yes", "", None, "01"))


WHOLE = "one column of whole numbers; --task regression takes them as numbers"


@pytest.mark.parametrize(
    ("labels", "task", "reason"),
    [
        ([["a", "b"], [], ["b"]] * 4, "multilabel", "lists of labels"),
        (['["a", "b"]', "[]", '["b"]'] * 4, "multilabel", "lists of labels, each written as a text"),
        (["['a', 'b']", "[]", "['b']"] * 4, "multilabel", "lists of labels, each written as a text"),
        ([[3], [4, 7], [1]] * 4, "multilabel", "lists of numbers, not equally many a row: numbers of labels"),
        ([[3, 0.5], [4, 7], [1, 1]] * 4, "regression", "lists of numbers"),
        (["[3, 0.5]", "[4, 7]", "[1, 1]"] * 4, "regression", "lists of numbers, each written as a text"),
        ([["1", "2"], ["2", "1"], ["3"]] * 4, "multilabel", "lists of labels"),
        ([0.5, 1, 2] * 4, "regression", "numbers with decimals; --task classification takes them as names"),
        (["0.5", "1", ""] * 4, "regression", "numbers with decimals; --task classification takes them as names"),
        (list(range(24)), "regression", "24 different numbers in 24 rows"),
        (list(range(20)), "classification", WHOLE),
        ([1, 2, 3] * 8, "classification", WHOLE),
        ([0, 1] * 6, "classification", "one column of labels"),
        ([True, False] * 6, "classification", "one column of labels"),
        (["a|b", "a", "b"] * 4, "multilabel", 'labels joined by "|"; --task classification takes each as one name'),
        (["Arts, Crafts", "Music", "Film"] * 4, "classification", "one column of labels"),
        (["[a]", "b", "c"] * 4, "classification", "one column of labels"),
        ([10**400, 1, 2] * 4, "classification", "one column of labels"),
        ([None] * 12, "classification", "one column of labels"),
    ],
)  # fmt: skip
def test_the_task_that_a_column_means(labels: list[Any], task: str, reason: str) -> None:
    chosen, why = meant([labels], COLUMNS)
    assert (chosen.part_name(), why) == (task, f"one text column and {reason}")


def test_the_task_that_several_columns_mean() -> None:
    flags = table([0, 1] * 6, spam=[1, 0] * 6)
    columns = find_columns(flags, label=("label", "spam"))
    values = gathered(flags, columns).columns[columns.label]
    task, why = meant([values], columns)
    target = checked_target(RECIPE, task, [values], columns)
    assert (task.part_name(), why) == ("multilabel", "one text column and 2 columns of 0 and 1")
    assert target == LabelSet(None, ("label", "spam"))
    assert target.read(gathered(flags, columns), columns.label, Problems())[:2] == [("spam",), ("label",)]
    scores = table([0.5, 1.5] * 6, spam=[1, 0] * 6)
    values = gathered(scores, columns).columns[columns.label]
    task, why = meant([values], columns)
    target = checked_target(RECIPE, task, [values], columns)
    assert (task.part_name(), why) == ("regression", "one text column and 2 columns of numbers")
    assert target == Numbers(("label", "spam"))


def test_columns_of_pairs_and_of_flags_are_found() -> None:
    texts = [f"a sentence about thing {i}" for i in range(12)]
    pair = Table("t.csv", {"sentence1": texts, "sentence2": texts[::-1], "score": [0.1 * i for i in range(12)]}, ())
    found = find_columns(pair)
    assert (found.text, found.pair, found.label, found.texts) == ("sentence1", "sentence2", "score", found.texts)
    assert meant([pair.columns["score"]], found)[1].startswith("two text columns and numbers")
    flags = Table("t.csv", {"comment": texts, "rude": [0, 1] * 6, "spam": [1, 0] * 6, "id": list(range(12))}, ())
    found = find_columns(flags)
    assert (found.text, found.parts, found.label) == ("comment", ("rude", "spam"), "rude + spam")
    assert gathered(flags, found).columns["rude + spam"][:2] == [[0, 1], [1, 0]]
    one = Table("t.csv", {"comment": texts, "rude": [0, 1] * 6, "id": list(range(12))}, ())
    assert (find_columns(one).label, find_columns(one).parts) == ("rude", ())


def test_a_column_of_labels_with_half_a_flag_is_refused_with_the_row() -> None:
    flags = gathered(
        table([0, 1, 1, 0], spam=[1, None, 0, 0]), Columns("text", "label + spam", parts=("label", "spam"))
    )
    with pytest.raises(DataError, match=r"rows\.csv:3 \[1, None\]\); expected 0 or 1 in each label's column"):
        clean({"train": flags}, Columns("text", "label + spam"), LabelSet(None, ("label", "spam")))


def test_multilabel_findings_and_refusals() -> None:
    train = table([["a"], ["b"], [], ["a", "rare"], None, ["b", "a"]])
    cleaned, findings = clean({"train": train}, COLUMNS, LabelSet(None))
    assert cleaned["train"].columns["label"] == [("a",), ("b",), (), ("a", "rare"), ("a", "b")]
    places = {finding.kind: finding.places for finding in findings}
    assert places == {
        "no_label_applies": ("rows.csv:4",),
        "missing_label": ("rows.csv:6",),
        "rare_class": ("rows.csv:5",),
    }
    held = Table("test.csv", {"text": ["x", "y"], "label": [["new"], ["a", "newer"]]}, (2, 3))
    with pytest.raises(DataError, match=r'"new" \(1\), "newer" \(1\), first at test\.csv:2'):
        clean({"train": train, "test": held}, COLUMNS, LabelSet(None))
    with pytest.raises(DataError, match=r"holds 1 label\(s\) in all"):
        clean({"train": table([["a"], [], ["a"], ["a"]])}, COLUMNS, LabelSet(None))


def test_a_column_of_one_number_is_refused() -> None:
    with pytest.raises(DataError, match=r'column "down" holds one number only \(2\)'):
        clean({"train": table([[1, 2], [2, 2], [3, 2], [4, 2]])}, COLUMNS, Numbers(("up", "down")))


ROWS = st.lists(st.sets(st.sampled_from("abcdef"), max_size=3), min_size=6, max_size=60)


@settings(deadline=None)
@given(ROWS, st.sampled_from([0.1, 0.3]), st.integers(0, 3), st.booleans())
def test_every_label_keeps_a_training_row(rows: list[set[str]], share: float, seed: int, grouped: bool) -> None:
    labels = [tuple(sorted(row)) for row in rows]
    groups = [f"g{place % 7}" for place in range(len(rows))]
    columns = Columns("text", "label", "by" if grouped else None)
    try:
        made = make_splits({"train": table(labels, by=groups)}, columns, LabelSet(None), share, share, seed)
    except DataError as error:
        assert all("no row can be held out" in problem for problem in error.problems)
        return
    kept = {label for row in made.train.columns["label"] for label in row}
    assert kept == {label for row in labels for label in row}


def test_a_rare_label_is_stratified_by_it_and_not_by_its_companion() -> None:
    labels = [("common", "rare") if i % 10 == 0 else ("common",) for i in range(200)]
    made = make_splits({"train": table(labels)}, COLUMNS, LabelSet(None), 0.2, 0.2, 0)
    for part, rare in ((made.test, 4), (made.validation, 4), (made.train, 12)):
        assert Counter(label for row in part.columns["label"] for label in row)["rare"] == rare


@pytest.mark.parametrize("seed", range(4))
def test_groups_of_rows_with_many_labels_meet_their_share_of_rows(seed: int) -> None:
    """Shares are of rows, however many labels these have."""
    labels = [tuple("abcdef") if i % 2 else ("a",) for i in range(600)]
    groups = [f"g{i % (9 + i % 31)}" for i in range(600)]
    made = make_splits(
        {"train": table(labels, by=groups)}, Columns("text", "label", "by"), LabelSet(None), 0.1, 0.2, seed
    )
    assert 0.16 <= len(made.test) / 600 <= 0.24
    assert 0.06 <= len(made.validation) / 600 <= 0.14


def test_numbers_are_held_out_over_their_whole_range() -> None:
    values = [(float(i * i),) for i in range(200)]
    made = make_splits({"train": table(values)}, COLUMNS, Numbers(("label",)), 0.1, 0.2, 1)
    for part, share in ((made.test, 0.2), (made.validation, 0.1)):
        tenth = Counter(int(math.isqrt(int(value)) // 20) for (value,) in part.columns["label"])
        assert tenth == dict.fromkeys(range(10), 20 * share)


def test_what_a_finished_model_knows_is_read_the_same_way() -> None:
    """Names that hold the separator were one label when the model was trained, and are so when it is measured."""
    task = Multilabel()
    assert task.target(["a", "b"], ("label",), known=("a", "b", "Arts, Crafts")) == LabelSet(None)
    assert task.target(["a|b", "a", "b"], ("label",)) == LabelSet("|")
    assert Multilabel(separator="/").target(["a/b"], ("label",)) == LabelSet("/")
    assert Regression().target([[1, 2]], ("label",)) == Numbers(("label 1", "label 2"))
    assert Regression().target(["[1, 2]"], ("label",)) == Numbers(("label 1", "label 2"))
