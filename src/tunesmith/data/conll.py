"""Columns of words and tags, as the CoNLL shared tasks write them: a word a line, an empty line after each sentence."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tunesmith.data.csv_text import LISTED, counted, decode
from tunesmith.data.table import Table, shown
from tunesmith.errors import DataError

DOCUMENT = "-DOCSTART-"  # begins a document; no word of it
SHAPE = "a word and its tag a line, with a TAB or spaces between, the tag last, and an empty line after each sentence"


def read_conll(data: bytes, path: str) -> Table:
    """A row a sentence: "tokens" and "tags", lists of equal length; its line is that of its first word.

    The first column holds the word and the last its tag; columns between them are not read. A file of one column gives
    "tokens" alone. Raises DataError naming every line of another number of columns than the first.
    """
    sentences: list[list[list[str]]] = [[]]
    lines: list[int] = []
    numbered: list[tuple[int, list[str]]] = []
    for number, line in enumerate(decode(data, path, SHAPE).split("\n"), 1):
        fields = _fields(line)
        if not fields or fields[0].strip() == DOCUMENT:
            sentences += [[]] if sentences[-1] else []
            continue
        if not sentences[-1]:
            lines.append(number)
        sentences[-1].append(fields)
        numbered.append((number, fields))
    if not numbered:
        raise DataError(f"{path}: holds no words; expected {SHAPE}")
    _check(numbered, path)
    kept = [sentence for sentence in sentences if sentence]
    columns = {"tokens": [[fields[0] for fields in sentence] for sentence in kept]}
    if len(numbered[0][1]) > 1:
        columns["tags"] = [[fields[-1] for fields in sentence] for sentence in kept]
    return Table(path, columns, tuple(lines))


def place_of(table: Table, row: int, word: int) -> str:
    """Where a word of a row stands: in a file of words on a line of its own, elsewhere on that of its row."""
    whole = Path(table.path).suffix.lower() not in (".conll", ".txt")
    return table.place(row) if whole else f"{table.path}:{table.lines[row] + word}"


def _fields(line: str) -> list[str]:
    if not line.strip():
        return []
    return [field.strip() for field in line.strip("\r\n").split("\t")] if "\t" in line else line.split()


def _check(numbered: list[tuple[int, list[str]]], path: str) -> None:
    width = Counter(len(fields) for _, fields in numbered).most_common(1)[0][0]
    bad = [
        f'{path}:{number}: {counted(len(fields), "column")} where {width} are usual: "{shown(" ".join(fields), 60)}"'
        for number, fields in numbered
        if len(fields) != width
    ]
    bad += [f"{path}:{number}: no word before the TAB" for number, fields in numbered if not fields[0]]
    bad += [f"{path}:{number}: no tag after the TAB" for number, fields in numbered if not fields[-1]]
    if bad:
        raise DataError(
            *bad[:LISTED],
            f"{path}: {counted(len(bad), 'bad line')} in all; expected {SHAPE}; put these right or remove them",
        )
