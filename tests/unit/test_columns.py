"""Which column is the text and which the label."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.data.columns import find_columns, find_text
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError

TEXTS = [f"a rather long text about thing number {i}" for i in range(12)]
SHORT = [f"short text {i}" for i in range(12)]
LABELS = ["yes", "no", "maybe"] * 4
OTHER = ["red", "blue"] * 6
CHINESE = ["这是一个句子", "今天天气很好", "我不喜欢"] * 3 + ["你好", "谢谢", "再见"]
IDS = [f"edgurhb-{i:040d}" for i in range(12)]


def table(**columns: list[Any]) -> Table:
    return Table("train.csv", columns, tuple(range(2, 14)))


@pytest.mark.parametrize(
    ("columns", "text", "label"),
    [
        ({"text": SHORT, "category": LABELS}, "text", "category"),
        ({"Review": TEXTS, "Sentiment": LABELS}, "Review", "Sentiment"),
        ({"text": SHORT, "review": TEXTS, "label": LABELS}, "text", "label"),
        ({"text": TEXTS, "label": LABELS, "label_text": OTHER}, "text", "label"),
        ({"id": IDS, "story": TEXTS, "mood": LABELS}, "story", "mood"),
        ({"mood": LABELS, "title": SHORT, "story": TEXTS}, "story", "mood"),
        ({"title": SHORT, "class": LABELS}, "title", "class"),
        ({"sentence": TEXTS, "stars": [1, 2, 3] * 4}, "sentence", "stars"),
        ({"story": TEXTS, "mood": LABELS, "same": ["x"] * 12}, "story", "mood"),
        ({"story": TEXTS, "mood": ["x"] * 12}, "story", "mood"),
        ({"text": TEXTS, "split": OTHER, "mood": LABELS}, "text", "mood"),
        ({"words": CHINESE, "id": IDS, "m": OTHER}, "words", "m"),
    ],
)  # fmt: skip
def test_found_by_name_then_by_content(columns: dict[str, list[Any]], text: str, label: str) -> None:
    found = find_columns(table(**columns))
    assert (found.text, found.label, found.group) == (text, label, None)


def test_why_names_the_reason_of_each() -> None:
    found = find_columns(table(story=TEXTS, mood=LABELS))
    assert found.why == (
        'text = "story" (longest text of 2 columns, mean length 39 characters), label = "mood" (3 distinct values in 12 rows)'
    )
    named = find_columns(table(story=TEXTS, mood=LABELS, shop=OTHER), text="story", label="mood", group="shop")
    assert named.group == "shop"
    assert named.why == (
        'text = "story" (named), label = "mood" (named; 3 distinct values in 12 rows), '
        'group = "shop" (2 distinct values in 12 rows)'
    )


def test_several_named_labels_are_told_apart() -> None:
    table = table_of({"text": ["a b", "c d", "e f"], "wet": [1, 2, 3], "warm": [1, 1, None]}, "t")
    said = 'label = "warm" + "wet" (named; "warm": 1 distinct value in 2 rows; "wet": 3 distinct values in 3 rows)'
    assert find_columns(table, label=("warm", "wet")).why.endswith(said)


def test_a_named_column_is_never_taken_for_the_other_role() -> None:
    found = find_columns(table(text=TEXTS, label=LABELS, body=SHORT), text="body", label="label")
    assert found.text == "body"
    assert find_columns(table(text=SHORT, note=TEXTS, label=LABELS), label="text").text == "note"


def test_group_column_is_no_candidate() -> None:
    assert find_columns(table(text=TEXTS, shop=OTHER, mood=LABELS), group="shop").label == "mood"


def test_two_equally_good_columns_are_asked_about_with_examples() -> None:
    with pytest.raises(DataError) as caught:
        find_columns(table(first=TEXTS, second=TEXTS[::-1], mood=LABELS, colour=OTHER))
    text, label = caught.value.problems
    assert '"first" and "second" could each be the text; say which with --text' in text
    assert "such as: a rather long text about thing number 0" in text
    assert '"mood" and "colour" could each be the label; say which with --label' in label
    assert "such as: yes" in label


def test_no_candidate_is_an_error_that_lists_the_columns() -> None:
    with pytest.raises(DataError) as caught:
        find_columns(table(n=list(range(12)), m=[0.5 * i for i in range(12)], e=[None] * 12))
    assert len(caught.value.problems) == 2
    assert "no column holds text" in caught.value.problems[0]
    assert '"e" (empty)' in caught.value.problems[0]
    assert "no column looks like a label" in caught.value.problems[1]


def test_a_column_of_different_numbers_is_a_label_as_text_too() -> None:
    lengths = [str(3 * place + place % 2) for place in range(12)]
    found = find_columns(table(text=TEXTS, length=lengths))
    assert (found.label, found.why.partition("label = ")[2]) == (
        "length",
        '"length" (the only column of numbers, 12 distinct values in 12 rows)',
    )
    for column in ({"row": [str(n) for n in range(12)]}, {"row": list(range(4, 16))}, {"user_id": lengths}):
        with pytest.raises(DataError, match="name one with --label; the columns are"):  # keys are no measurements
            find_columns(table(text=TEXTS, **column))
    told = 'or learn numbers with --task regression --label "length"'
    with pytest.raises(DataError, match=f"name one with --label, {told};"):
        find_columns(table(text=TEXTS, length=[*lengths[:-3], "many", "more", "most"]))
    found = find_columns(table(text=TEXTS, length=[*lengths[:-1], "many"]))
    assert found.label == "length", "a value that is no number is named where the column is read"
    with pytest.raises(DataError, match=f'{told}, or learn numbers with --task regression --label "n"'):
        find_columns(table(text=TEXTS, length=lengths, n=lengths[::-1]))


def test_absent_columns_are_named_together_with_the_nearest() -> None:
    with pytest.raises(DataError) as caught:
        find_columns(table(text=TEXTS, label=LABELS), text="txt", label="lable", group="shop")
    assert len(caught.value.problems) == 3
    assert 'no column "txt" (asked for as the text); did you mean "text"?' in caught.value.problems[0]
    assert 'did you mean "label"?' in caught.value.problems[1]
    assert "the choices are: label, text" in caught.value.problems[2]


def test_one_column_for_two_roles_is_refused() -> None:
    with pytest.raises(DataError, match='"text" cannot be both'):
        find_columns(table(text=TEXTS, label=LABELS), text="text", label="text")


def test_text_of_rows_to_predict() -> None:
    assert find_text(table(text=SHORT, story=TEXTS), None, "story") == "story"
    assert find_text(table(text=SHORT, story=TEXTS), "text", "story") == "text"
    assert find_text(table(id=IDS, review=TEXTS), None, "story") == "review"
    with pytest.raises(DataError, match='no column "nope"'):
        find_text(table(text=SHORT), "nope", "text")
    with pytest.raises(DataError, match="could each be the text"):
        find_text(table(one=TEXTS, two=TEXTS), None, "text")
