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
PASSAGES = 100  # of a shorter file, whose passages are shorter too, so that some can be held out to measure on
SHORTEST = 1_000  # characters, beyond which a passage is not made shorter for that
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
    text = decode(data, path, "text")
    found = list(_passages(text, min(PASSAGE, max(SHORTEST, len(text) // PASSAGES))))
    if not found:
        raise DataError(f"{path}: holds no text")
    name = Path(path).name  # not where it lies, which is said otherwise from another folder, and in resuming
    parts = [f"{name} part {place * PARTS // len(found) + 1} of {PARTS}" for place in range(len(found))]
    return Table(path, {TEXT: [text for text, _ in found], PART: parts}, tuple(line for _, line in found))


def joined(tables: Sequence[Table], path: str) -> Table:
    """The passages of several files of one folder as one table; of many files each is a part of its own.

    Then none of their passages need be short: whole files are held out.
    """
    if len(tables) >= MANY_FILES:
        rows = [(text, Path(table.path).name) for table in tables for text in _together(table.columns[TEXT])]
    else:
        rows = [row for table in tables for row in zip(table.columns[TEXT], table.columns[PART], strict=True)]
    texts, parts = [text for text, _ in rows], [part for _, part in rows]
    return Table(path, {TEXT: texts, PART: parts}, tuple(range(1, len(texts) + 1)))


def _together(texts: Sequence[str]) -> list[str]:
    """Neighbouring passages as one, as long as that is no longer than a passage may be."""
    found: list[str] = []
    for text in texts:
        if found and len(found[-1]) + len(text) < PASSAGE:
            found[-1] = f"{found[-1]}\n{text}"
        else:
            found.append(text)
    return found


def _passages(text: str, most: int) -> Iterator[tuple[str, int]]:
    """Each passage, of `most` characters at most, and its first line.

    Cut where an empty line is, else where a line ends, else where a word does.
    """
    place, line = 0, 1
    while place < len(text):
        end = _end(text, place, most)
        passage = text[place:end]
        if passage.strip():
            blank = len(passage) - len(passage.lstrip())
            yield passage.strip("\n\r"), line + passage[:blank].count("\n")
        line += passage.count("\n")
        place = end


def _end(text: str, start: int, most: int) -> int:
    if len(text) - start <= most:
        return len(text)
    window = text[start : start + most]
    for mark in (r"\n\s*\n", r"\n", r"\s"):
        found = [match.end() for match in re.finditer(mark, window)]
        if found and found[-1] > most // 2:
            return start + found[-1]
    return start + most
