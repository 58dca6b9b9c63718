"""Words: where they stand in a text, a text that was given as words, and windows of one that is too long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
SPACELESS = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"
# Letters and digits with the marks on them, which Python counts as neither: accents, vowel points, Indic vowel signs.
MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u0900-\u0963\u0966-\u0dff\u200c\u200d"
WORD = re.compile(rf"{SPACELESS}|(?:(?!{SPACELESS})[\w{MARKS}])+|[^\w\s]")
HALF = re.compile("[\ud800-\udfff]")  # half of a surrogate pair, which is no character

Bounds = tuple[tuple[int, int], ...]  # of each word its first character and the one after its last


class Words(str):
    """A text that was given as words: they are joined by single spaces, and it is known where each one stands.

    A word may hold spaces itself. Made by `Words.of`.
    """

    bounds: Bounds

    @classmethod
    def of(cls, words: Iterable[str]) -> Words:
        parts = list(words)
        made = cls(" ".join(parts))
        ends = accumulate((len(part) + 1 for part in parts), initial=0)
        made.bounds = tuple((start, start + len(part)) for start, part in zip(ends, parts, strict=False))
        return made

    def words(self) -> list[str]:
        return [str(self[start:end]) for start, end in self.bounds]


def words_of(value: Sequence[Any]) -> Words | None:
    """A list of words as a text; None where one of them is no text, or is empty, or holds half a character."""
    parts = [str(item) if isinstance(item, int | float) else item for item in value]
    usable = all(isinstance(part, str) and part.strip() and not HALF.search(part) for part in parts)
    return Words.of(parts) if usable else None


def bounds_of(text: str) -> Bounds:
    """Where the words of a text stand: those it was given as, or runs of letters and digits and single other signs.

    Each letter is a word of its own in scripts that put no spaces between words.
    """
    if isinstance(text, Words):
        return text.bounds
    return tuple(match.span() for match in WORD.finditer(text))


@dataclass(frozen=True)
class Window:
    """Which text an encoded row is a part of, and which of its tokens have an output that counts, one a word."""

    source: int  # the row of its split's table
    text: str
    places: tuple[int, ...] = ()  # of the first token of each of its own words


@dataclass(frozen=True)
class Passage(Window):
    """A part of a text from which an answer is cut: its first place stands for no answer, each further one for a token."""

    # Of each further place the token's first character, and the one after its last.
    spans: tuple[tuple[int, int], ...] = ()


class Cut(NamedTuple):
    """Words [first, last) of a text are read together, and what is said of words [own, after) is taken from there."""

    first: int
    last: int
    own: int
    after: int


def windows_of(sizes: Sequence[int], room: int, overlap: float) -> list[Cut]:
    """Windows of whole words, each word in at least one, with at most `room` tokens in each.

    sizes: tokens of each word; one with more than `room` is counted as `room`, to be cut by the caller. overlap: the
    share of a window that the next one repeats, at most. A word belongs to the window where most text stands between it
    and the nearer edge at which the text was cut; to the first of equals. A window without such a word is left out.
    """
    sizes = [min(size, room) for size in sizes]
    if not sizes:
        return [Cut(0, 0, 0, 0)]
    spans = [(0, _fill(sizes, 0, room))]
    while (last := spans[-1][1]) < len(sizes):
        start, repeated = last, 0
        most = min(overlap * room, room - sizes[last])
        while start - 1 > spans[-1][0] and repeated + sizes[start - 1] <= most:
            start -= 1
            repeated += sizes[start]
        spans.append((start, _fill(sizes, start, room)))
    edges = [0, *accumulate(sizes)]  # tokens before each word, and in all
    best: list[tuple[float, int]] = [(-1.0, 0)] * len(sizes)  # how central a word is at most, and in which window
    for place, (first, last) in enumerate(spans):
        for word in range(first, last):
            before = edges[word] - edges[first] if first > 0 else float("inf")
            behind = edges[last] - edges[word + 1] if last < len(sizes) else float("inf")
            if min(before, behind) > best[word][0]:
                best[word] = (min(before, behind), place)
    owned: dict[int, list[int]] = {}
    for word, (_, place) in enumerate(best):
        owned.setdefault(place, []).append(word)
    return [Cut(*spans[place], words[0], words[-1] + 1) for place, words in sorted(owned.items())]


def passages_of(tokens: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Windows [first, last) of at most `room` tokens, all full where there is more than one, `overlap` shared at least.

    What has no more than `overlap` + 1 tokens stands in one of them whole.
    """
    if tokens <= room:
        return [(0, tokens)]
    starts = [*range(0, tokens - room, max(1, room - overlap)), tokens - room]
    return [(start, start + room) for start in starts]


def most_tokens(spans: Sequence[tuple[int, int]], length: int) -> int:
    """Tokens that a piece of a text with `length` characters can have at most, given the characters of each token."""
    most = first = 0
    for last, (_, end) in enumerate(spans):
        while first < last and end - spans[first][0] > length:
            first += 1
        most = max(most, last - first + 1)
    return most


def _fill(sizes: Sequence[int], start: int, room: int) -> int:
    """The word after the last that fits."""
    used, end = 0, start
    while end < len(sizes) and used + sizes[end] <= room:
        used += sizes[end]
        end += 1
    return end
