"""Plain text files: a file becomes passages, whose neighbours stay together when some are held out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tunesmith.data.csv_text import decode
from tunesmith.data.table import Table
from tunesmith.errors import DataError

TEXT, PART = "text", "(part)"
PASSAGE = 4_000  # characters: about the 1,000 tokens that a small language model reads at once
PARTS = 20  # of one file: held out are consecutive passages, so that a test passage has few neighbours in training
MANY_FILES = 20  # from which on whole files are held out
SAMPLE = 1_000  # lines looked at to tell a table of words from prose
USUAL = 0.6  # share of them with the same number of columns


def is_prose(data: bytes, path: str) -> bool:
    """Whether a text file is prose, and not words with their tags: lines of prose differ in how many words they hold."""
    lines = [line for line in decode(data, path, "text, or a word and its tag a line").split("\n") if line.strip()][
        :SAMPLE
    ]
    widths = Counter(len(line.split("\t") if "\t" in line else line.split()) for line in lines)
    if not widths:
        return False  # empty: told so by who reads words
    width, count = widths.most_common(1)[0]
    return count < USUAL * len(lines) or width > 10


def read_passages(data: bytes, path: str) -> Table:
    """Columns "text" and "(part)", a row a passage, whose line is where it begins. Raises DataError for an empty file."""
    found = list(_passages(decode(data, path, "text")))
    if not found:
        raise DataError(f"{path}: holds no text")
    name = Path(path).name  # not where it lies, which is said otherwise from another folder, and in resuming
    parts = [f"{name} part {place * PARTS // len(found) + 1} of {PARTS}" for place in range(len(found))]
    return Table(path, {TEXT: [text for text, _ in found], PART: parts}, tuple(line for _, line in found))


def joined(tables: Sequence[Table], path: str) -> Table:
    """The passages of several files of one folder as one table; of many files each is a part of its own."""
    whole = len(tables) >= MANY_FILES
    texts = [text for table in tables for text in table.columns[TEXT]]
    parts = [Path(table.path).name if whole else part for table in tables for part in table.columns[PART]]
    return Table(path, {TEXT: texts, PART: parts}, tuple(range(1, len(texts) + 1)))


def _passages(text: str) -> Iterator[tuple[str, int]]:
    """Each passage and its first line: cut where an empty line is, else where a line ends, else where a word does."""
    place, line = 0, 1
    while place < len(text):
        end = _end(text, place)
        passage = text[place:end]
        if passage.strip():
            blank = len(passage) - len(passage.lstrip())
            yield passage.strip("\n\r"), line + passage[:blank].count("\n")
        line += passage.count("\n")
        place = end


def _end(text: str, start: int) -> int:
    if len(text) - start <= PASSAGE:
        return len(text)
    window = text[start : start + PASSAGE]
    for mark in (r"\n\s*\n", r"\n", r"\s"):
        found = [match.end() for match in re.finditer(mark, window)]
        if found and found[-1] > PASSAGE // 2:
            return start + found[-1]
    return start + PASSAGE
