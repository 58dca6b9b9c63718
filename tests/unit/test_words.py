"""Words, and windows of them: nothing lost, each word once, where it is most central."""

from __future__ import annotations

import copy
import random

import pytest

from tunesmith.data.words import Cut, Words, bounds_of, windows_of, words_of


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in bounds_of(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm in New-York, 3.5km.", ["I", "'", "m", "in", "New", "-", "York", ",", "3", ".", "5km", "."]),
        ("东京 is 大", ["东", "京", "is", "大"]),
        ("cafe\u0301 हिन्दी", ["cafe\u0301", "हिन्दी"]),
        (" \n", []),
    ],
)
def test_words_of_a_text(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


def test_words_given_keep_their_places() -> None:
    words = Words.of(["New York", "is", "(big)"])
    assert words == "New York is (big)" and cut(words) == ["New York", "is", "(big)"] == words.words()
    assert copy.deepcopy(words).bounds == words.bounds
    assert words_of(["a", 3]) == "a 3"
    assert [words_of(bad) for bad in (["a", ""], ["a", None], ["a", " "], ["\ud83d"])] == [None] * 4


def test_every_word_is_owned_once_by_the_window_where_it_is_most_central() -> None:
    draw = random.Random(0)
    several = 0
    for _ in range(400):
        sizes = [draw.choice([1, 1, 1, 2, 3, 9]) for _ in range(draw.randint(1, 40))]
        room, overlap = draw.randint(1, 12), draw.choice([0.0, 0.25, 0.5, 0.9])
        cuts = windows_of(sizes, room, overlap)
        counted = [min(size, room) for size in sizes]
        assert [word for one in cuts for word in range(one.own, one.after)] == [*range(len(sizes))]
        assert all(one.first <= one.own < one.after <= one.last for one in cuts)
        assert all(sum(counted[one.first : one.last]) <= room for one in cuts)
        several += len(cuts) > 2
        for one in cuts:
            for word in range(one.own, one.after):
                held = [other for other in cuts if other.first <= word < other.last]
                assert context(counted, one, word) == max(context(counted, other, word) for other in held)
    assert several > 200


def context(sizes: list[int], window: Cut, word: int) -> float:
    before = sum(sizes[window.first : word]) if window.first > 0 else float("inf")
    behind = sum(sizes[word + 1 : window.last]) if window.last < len(sizes) else float("inf")
    return min(before, behind)


def test_windows_by_hand() -> None:
    assert windows_of([1] * 4, 4, 0.5) == [(0, 4, 0, 4)]
    assert windows_of([1] * 6, 4, 0.5) == [(0, 4, 0, 3), (2, 6, 3, 6)]
    assert windows_of([], 4, 0.5) == [(0, 0, 0, 0)]
