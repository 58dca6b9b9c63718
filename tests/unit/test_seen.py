"""Rows that a model was trained on are noticed when it is measured on them."""

from __future__ import annotations

from pathlib import Path

from pyarrow import parquet

from tunesmith.seen import FILE, seen_line, write_seen


def test_rows_of_training_are_counted_case_and_spaces_set_aside(tmp_path: Path) -> None:
    write_seen(tmp_path, ["One text", "another", ("a", "pair"), "half \ud83d emoji"])
    said = seen_line(tmp_path, ["ONE  text", "new", "pair", ("a", "pair"), ("pair", "a"), "half \ud83d emoji"])
    assert said.startswith("the model was trained on 3 of these 6 rows")
    swapped = seen_line(tmp_path, ["new", ("a", "pair"), ("pair", "A"), ("pair", "b"), ("pair", "a", "c")], swaps=True)
    assert swapped.startswith("the model was trained on 2 of these 5 rows")
    assert seen_line(tmp_path, ["new", ("a", "other")]) == ""


def test_no_text_can_be_read_back_and_an_old_run_says_nothing(tmp_path: Path) -> None:
    assert seen_line(tmp_path, ["One text"]) == ""
    write_seen(tmp_path, ["b", "a"])
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    kept = parquet.read_table(tmp_path / FILE)["row"].to_pylist()
    assert kept == sorted(kept) and len(kept) == 2 and all(isinstance(value, int) for value in kept)
