"""Table, and the Python values that become one."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from tunesmith.data.readers import read_table
from tunesmith.data.table import Table, as_given, from_records, shown, table_of, write_exact, write_parquet
from tunesmith.errors import DataError

VALUES = st.one_of(st.none(), st.text(max_size=5), st.integers(-9, 9), st.floats(allow_nan=False), st.booleans())


def small() -> Table:
    return Table("train.csv", {"text": ["a", "b", "c"], "label": [1, None, "x"]}, (2, 5, 6))


def test_take_keeps_lines_and_order_and_may_repeat() -> None:
    taken = small().take([2, 0, 2])
    assert taken.columns == {"text": ["c", "a", "c"], "label": ["x", 1, "x"]}
    assert taken.lines == (6, 2, 6)
    assert len(taken) == 3
    assert taken.place(0) == "train.csv:6"


def test_taking_no_rows_keeps_the_columns() -> None:
    empty = small().take([])
    assert len(empty) == 0
    assert empty.columns == {"text": [], "label": []}


def test_fingerprint_follows_content_and_types_only() -> None:
    table = small()
    assert table.fingerprint() == Table("elsewhere", table.columns, (1, 2, 3)).fingerprint()
    for other in (["1", None, "x"], [1.0, None, "x"], [True, None, "x"], [1, "None", "x"], [1, "", "x"]):
        assert Table("t", {**table.columns, "label": other}, table.lines).fingerprint() != table.fingerprint()
    turned = Table("t", dict(reversed(table.columns.items())), table.lines)
    assert turned.fingerprint() != table.fingerprint()


@settings(deadline=None)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=5))
def test_all_forms_of_the_same_rows_give_the_same_table(pairs: list) -> None:
    forms = [
        pairs,
        [list(pair) for pair in pairs],
        [{"text": text, "label": label} for text, label in pairs],
        {"text": [text for text, _ in pairs], "label": tuple(label for _, label in pairs)},
        pd.DataFrame({"text": [t for t, _ in pairs], "label": [x for _, x in pairs]}, dtype=object),
    ]
    tables = [table_of(form, "here") for form in forms]
    assert all(table == tables[0] for table in tables)
    assert len({table.fingerprint() for table in tables}) == 1
    assert tables[0].columns == {"text": [pair[0] for pair in pairs], "label": [pair[1] for pair in pairs]}
    assert tables[0].place(0) == "here:1"


def test_a_table_is_returned_as_it_is() -> None:
    table = small()
    assert table_of(table, "other") is table


def test_missing_and_foreign_values_become_plain() -> None:
    frame = pd.DataFrame(
        {
            "number": [1.5, math.nan, 2.0],
            "day": pd.to_datetime(["2024-01-02", None, "2024-01-03"]),
            "maybe": pd.array([1, None, 3], dtype="Int64"),
        }
    )
    table = table_of(frame, "frame")
    assert table.columns["number"] == [1.5, None, 2.0]
    assert table.columns["day"] == ["2024-01-02 00:00:00", None, "2024-01-03 00:00:00"]
    assert table.columns["maybe"] == [1, None, 3]
    arrays = table_of({"x": np.array([1, 2]), "y": np.array([[0.5, np.nan], [1.0, 2.0]])}, "arrays")
    assert arrays.columns == {"x": [1, 2], "y": [[0.5, None], [1.0, 2.0]]}
    assert type(arrays.columns["x"][0]) is int


def test_bytes_are_read_as_text() -> None:
    assert table_of({"text": ["café".encode(), b"\xe9"]}, "x").columns["text"] == ["café", "\\xe9"]


def test_records_share_one_set_of_columns() -> None:
    table = from_records([{"a": 1}, {"b": {"c": "é"}}], "x.jsonl", [1, 3])
    assert table.columns == {"a": [1, None], "b": [None, '{"c": "é"}']}
    assert table.lines == (1, 3)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        (3, "not int"),
        ("a text", "not str"),
        ([], "no rows"),
        ({}, "no columns"),
        (["one", "two"], "x:1"),
        ([("a", "b"), ("a", "b", "c")], "x:2"),
        ({"text": "abc"}, 'column "text" must be a list'),
    ],
)
def test_other_values_are_refused_with_what_is_accepted(values: object, word: str) -> None:
    with pytest.raises(DataError, match=word):
        table_of(values, "x")


def test_every_problem_of_columns_is_named_at_once() -> None:
    with pytest.raises(DataError) as caught:
        table_of({"text": "abc", "label": ["a"], "id": ["1", "2"]}, "x")
    assert len(caught.value.problems) == 2
    assert '"label" 1, "id" 2' in caught.value.problems[1]


def test_frame_with_two_columns_of_one_name_is_refused() -> None:
    with pytest.raises(DataError, match="more than once: text"):
        table_of(pd.DataFrame([["a", "b"]], columns=["text", "text"]), "frame")


def test_parquet_keeps_values_and_writes_mixed_columns_as_text(tmp_path: Path) -> None:
    table = Table("x", {"text": ["a", None], "n": [1, 2], "mixed": ["1", 1], "tags": [["p"], []]}, (1, 2))
    write_parquet(table, tmp_path / "x.parquet")
    back = parquet.read_table(tmp_path / "x.parquet").to_pydict()
    assert back == {"text": ["a", None], "n": [1, 2], "mixed": ["1", "1"], "tags": [["p"], []]}


MIXED = [
    [1.0, "a", 2],
    [1, 2.5],
    [1, "a", None],
    [True, 1, "1"],
    [2**70, 1, None],
    [["p", 1], [2.0], None],
    [[1, 2.5], [], [0.1]],
    [None, None],
    ["a", None],
    [float("inf"), 1],
]


@pytest.mark.parametrize("values", MIXED, ids=str)
def test_rows_written_exactly_read_back_as_they_were(values: list, tmp_path: Path) -> None:
    table = table_of({"text": ["é"] * len(values), "x": values}, "rows")
    write_exact(table, tmp_path / "rows.parquet")
    back = read_table(tmp_path / "rows.parquet")
    assert back.fingerprint() == table.fingerprint()
    assert repr(back.columns) == repr(table.columns), "values and their types"


def test_control_plain_parquet_changes_them(tmp_path: Path) -> None:
    table = table_of({"x": [1, 2.5]}, "rows")
    write_parquet(table, tmp_path / "rows.parquet")
    assert read_table(tmp_path / "rows.parquet").columns == {"x": [1.0, 2.5]}
    assert read_table(tmp_path / "rows.parquet").fingerprint() != table.fingerprint()


@settings(deadline=None, max_examples=50)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_any_column_reads_back(tmp_path_factory: pytest.TempPathFactory, values: list) -> None:
    path = tmp_path_factory.mktemp("exact") / "rows.parquet"
    table = table_of({"x": values}, "rows")
    write_exact(table, path)
    assert read_table(path).fingerprint() == table.fingerprint()


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ([("a", "b"), ("c \ud83d", "d")], "rows:2"),
        ({"text": ["a", "b"], "tags": [["x"], ["\udc00"]]}, "rows:2"),
        ({"te\ud800xt": ["a"]}, r"column 'te\\ud800xt'"),
        (Table("rows", {"text": ["\ud800"]}, (7,)), "rows:7"),
    ],
)
def test_half_a_character_is_refused_with_its_row(values: object, place: str) -> None:
    with pytest.raises(DataError, match=f"half of a surrogate pair.*{place}"):
        table_of(values, "rows")


def test_shown_is_one_printable_line() -> None:
    assert shown("a\n\t b\x1b[31m") == "a b\\x1b[31m"
    assert shown("x" * 100, 10) == "xxxxxxx..."


@settings(deadline=None)
@given(st.text())
def test_shown_never_prints_control_characters(text: str) -> None:
    line = shown(text)
    assert len(line) <= 80
    assert line.isprintable()


def test_objects_are_shown_and_written_as_objects(tmp_path: Path) -> None:
    rows = [{"spans": [{"start": 0, "end": 3}], "bare": {}}, {"spans": [{"start": "x"}], "bare": {}}]
    table = table_of(rows, "rows")
    assert shown(table.columns["spans"][0]) == '[{"start": 0, "end": 3}]'
    assert [as_given(value) for value in table.columns["spans"]] == [row["spans"] for row in rows]
    write_parquet(table, tmp_path / "rows.parquet")  # neither mixed types nor objects without keys fit in Parquet
    back = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [json.loads(row["spans"]) for row in back] == [row["spans"] for row in rows]
    assert [row["bare"] for row in back] == ["{}", "{}"]
