"""Columns of entities: lists of tags beside lists of words, or spans of a text; known by what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tunesmith.data.table import Table
from tunesmith.data.targets.tags import TAG, Tags, means_spans, said_of
from tunesmith.errors import DataError, Problems

LOOKED_AT = 200  # rows
WORD_NAMES = ("tokens", "words", "token", "word", "text", "sentence")
TAG_NAMES = ("ner_tags", "ner", "tags", "labels", "label", "entities", "tag")


class Found(NamedTuple):
    text: str | None  # the column of words; None where the label is of spans, and the text is still to be found
    label: str
    why: str


def find_tags(
    table: Table, text: str | None, label: Sequence[str], taken: Sequence[str | None], meant: bool = False
) -> Found | None:
    """The columns of words and tags, or of spans; None where there are none. `text` and `label` are the columns asked for.

    Most rows that hold something must hold such, or any where entities are `meant`: the others are an error, told when
    they are read. Raises DataError where several columns of tags stand beside the words and none is asked for or has a
    usual name, and where the tags are numbers.
    """
    if len(label) > 1:
        return None
    lists = {
        name: some for name, values in table.columns.items() if name not in taken and (some := _lists(values, meant))
    }
    words = [name for name in lists if text in (None, name)]
    tags = [
        name
        for name in lists
        if (
            name == label[0] if label else _enough(sum(map(_are_tags, lists[name])), sum(map(bool, lists[name])), meant)
        )
    ]
    pairs = [(word, tag) for tag in tags for word in words if word != tag and _equal_lengths(table, word, tag, meant)]
    if pairs:
        usual = sorted({tag for _, tag in pairs}, key=lambda name: (_rank(name, TAG_NAMES), name))
        if len(usual) > 1 and _rank(usual[0], TAG_NAMES) == _rank(usual[1], TAG_NAMES):
            listed = " and ".join(f'"{name}"' for name in usual)
            raise DataError(f"{table.path}: {listed} each hold a tag a word; say which with --label")
        word = min((word for word, tag in pairs if tag == usual[0]), key=lambda name: _rank(name, WORD_NAMES))
        return Found(word, usual[0], "a list of words and a list of as many tags")
    _refuse_numbers(table, words, label)
    spans = [
        name
        for name, values in table.columns.items()
        if name not in (text, *taken) and name in (label or (name,)) and holds_spans(values, meant)
    ]
    if len(spans) == 1:
        return Found(None, spans[0], "spans with start, end and label")
    return None


def refuse_misread(
    table: Table, label: Sequence[str], taken: Sequence[str | None], no_text: bool, no_label: bool
) -> None:
    """Raises DataError with the rows, where a column is plainly meant for tags or spans of which most are none.

    Only where nothing else can be meant: of a column asked for as the `label`, or where no text was found beside lists of
    words, or no label beside spans.
    """
    free = [name for name in table.columns if name not in taken]
    spans = [name for name in free if name in label or no_label]
    unread = [name for name in spans if _most_mean_spans(table.columns[name]) and not holds_spans(table.columns[name])]
    words = [name for name in free if _rank(name, WORD_NAMES) < len(WORD_NAMES) and holds_words(table.columns[name])]
    tags = [name for name in free if _rank(name, TAG_NAMES) < len(TAG_NAMES) and holds_words(table.columns[name])]
    if no_text and not label:
        unread += [tag for tag in tags if any(word != tag and _equal_lengths(table, word, tag) for word in words)][:1]
    problems = Problems()
    for name in unread:
        Tags("spans").read(table, name, problems)
    problems.raise_as(DataError)


def _most_mean_spans(values: Sequence[Any]) -> bool:
    some = [value for value in values if value not in (None, "", [], "[]")][:LOOKED_AT]
    return 2 * sum(map(means_spans, some)) > len(some)


def holds_words(values: Sequence[Any]) -> bool:
    """Whether a text column holds lists of words in most rows."""
    return bool(_lists(values))


def holds_spans(values: Sequence[Any], meant: bool = False) -> bool:
    """Whether most rows that name something name spans, or any where spans are `meant`."""
    some = [value for value in values if value not in (None, "", [], "[]")][:LOOKED_AT]
    return _enough(sum(1 for value in some if (said := said_of(value)) is not None and said.spans), len(some), meant)


def _lists(values: Sequence[Any], meant: bool = False) -> list[list[str]]:
    """The first lists of texts alone in a column that holds enough of them, and not only empty ones; [] otherwise."""
    some = [value for value in values if value is not None and value != ""][:LOOKED_AT]
    fit = [value for value in some if isinstance(value, list) and all(isinstance(item, str) for item in value)]
    return fit if any(fit) and _enough(len(fit), len(some), meant) else []


def _are_tags(row: Sequence[str]) -> bool:
    return len(row) > 0 and all(TAG.fullmatch(tag) for tag in row)


def _enough(fit: int, of: int, meant: bool) -> bool:
    return fit > 0 if meant else 2 * fit > of


def _refuse_numbers(table: Table, words: Sequence[str], label: Sequence[str]) -> None:
    for name, values in table.columns.items():
        some = [value for value in values if value is not None][:LOOKED_AT]
        numbers = all(isinstance(value, list) and all(type(item) is int for item in value) for value in some)
        meant = name in label if label else _rank(name, TAG_NAMES) < len(TAG_NAMES)
        if meant and numbers and any(some) and any(_equal_lengths(table, word, name) for word in words):
            raise DataError(
                f'{table.path}: column "{name}" holds numbers beside a list of words; write the tags by their names, such as '
                "O, B-person, I-person (a data set of the hub lists them among its features)"
            )


def _equal_lengths(table: Table, word: str, tag: str, meant: bool = False) -> bool:
    """Whether most rows, or any where tags are `meant`, hold as many words as tags.

    The others are an error, told when they are read.
    """
    pairs = [
        (one, other)
        for one, other in zip(table.columns[word], table.columns[tag], strict=True)
        if isinstance(one, list) and isinstance(other, list)
    ][:LOOKED_AT]
    equal = sum(len(one) == len(other) for one, other in pairs)
    return equal > 0 if meant else 2 * equal >= len(pairs) > 0


def _rank(name: str, names: Sequence[str]) -> int:
    simple = name.strip().casefold().replace(" ", "_").replace("-", "_")
    return names.index(simple) if simple in names else len(names)
