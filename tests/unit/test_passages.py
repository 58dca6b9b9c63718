"""Plain text files as rows: nothing of a text is lost, and prose is told from words with their tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.data import passages
from tunesmith.data.passages import PART, PARTS, PASSAGE, TEXT, is_prose, read_passages
from tunesmith.data.readers import read_data
from tunesmith.errors import DataError

PROSE = "".join(
    f"\n = Title {number} = \n\n"
    + "It was said , and written down . " * (number % 9 + 1)
    + "\nA further line"
    + " or so" * (number % 5)
    + " .\n"
    for number in range(120)
)
TAGGED = "EU B-ORG\nrejects O\nGerman B-MISC\ncall O\n\nPeter B-PER\nBlackburn I-PER\n" * 20


@pytest.mark.parametrize(
    "text",
    [PROSE, "one line without an end", "word " * 5_000, "x" * (3 * PASSAGE + 7), "a\r\nb\r\n\r\nc", "\n\nlate\n"],
)
def test_no_letter_is_lost(text: str) -> None:
    table = read_passages(text.encode(), "t.txt")
    assert "".join("".join(table.columns[TEXT]).split()) == "".join(text.split())
    assert all(0 < len(passage) <= PASSAGE for passage in table.columns[TEXT])


def test_each_passage_is_found_at_its_line() -> None:
    table, lines = read_passages(PROSE.encode(), "t.txt"), PROSE.split("\n")
    assert len(table) > 3
    for passage, line in zip(table.columns[TEXT], table.lines, strict=True):
        assert lines[line - 1] == passage.split("\n")[0]


def test_parts_are_runs_of_neighbours() -> None:
    table = read_passages((PROSE * 20).encode(), "t.txt")
    parts = table.columns[PART]
    assert len(set(parts)) == PARTS
    assert parts == [part for part in dict.fromkeys(parts) for _ in range(parts.count(part))]
    sizes = [parts.count(part) for part in set(parts)]
    assert max(sizes) - min(sizes) <= 1


def test_prose_is_told_from_tagged_words() -> None:
    assert is_prose(PROSE.encode(), "t.txt")
    assert not is_prose(TAGGED.encode(), "t.txt")


def test_a_folder_of_texts_is_one_table_of_them(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.txt").write_text(f"{PROSE}\nThe {number}th of them.\n")
    few = read_data(str(tmp_path))["train"]
    assert "".join("".join(few.columns[TEXT]).split()).count("ofthem.") == 3
    for number in range(3, passages.MANY_FILES):
        (tmp_path / f"{number}.md").write_text(f"{PROSE}\nThe {number}th of them.\n")
    many = read_data(str(tmp_path))["train"]
    assert len(set(many.columns[PART])) == passages.MANY_FILES, "whole files are held out where there are many"


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text(" \n\n")
    with pytest.raises(DataError, match=r"file is empty|holds no text"):
        read_data(str(tmp_path / "t.md"))
