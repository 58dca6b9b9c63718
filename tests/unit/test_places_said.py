"""How the places of rows are said in errors."""

from __future__ import annotations

from tunesmith.errors import places_said


def test_a_file_is_named_once_for_rows_that_follow_one_another() -> None:
    assert places_said(["d/a.csv:7", "d/a.csv:12", "b.csv:3", "d/a.csv:9"]) == "d/a.csv:7, 12, b.csv:3, d/a.csv:9"
    assert places_said(["3", "4"]) == "3, 4", "rows that stand in no file"
    assert places_said([]) == ""


def test_many_are_counted() -> None:
    many = [f"a.csv:{line}" for line in range(2, 1_500)]
    assert places_said(many, 2) == "a.csv:2, 3 and 1,496 more"
    assert places_said(many[:2], 3, rows=10) == "a.csv:2, 3 and 8 more", "of ten, two are known by place"
