"""How near an answer is to the one wanted."""

from __future__ import annotations

import itertools
import random

import pytest

from tunesmith.errors import RecipeError
from tunesmith.tasks._answers import compared, exact_match, measured, named_function, rouge_l


def _longest(one: list[str], two: list[str]) -> int:
    """By trying every subsequence of the shorter text."""
    for size in range(len(one), 0, -1):
        for part in itertools.combinations(one, size):
            rest = iter(two)
            if all(word in rest for word in part):
                return size
    return 0


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence() -> None:
    draw = random.Random(0)
    for _ in range(300):
        one, two = (draw.choices("abc", k=draw.randint(1, 7)) for _ in range(2))
        common = _longest(one, two)
        recall, precision = common / len(two), common / len(one)
        expected = 2 * precision * recall / (precision + recall) if common else 0.0
        assert rouge_l(" ".join(one), " ".join(two)) == pytest.approx(expected)


# Worked by hand from Lin 2004, and equal to rouge-score 0.1.2 without stemming.
@pytest.mark.parametrize(
    ("said", "wanted", "value"),
    [
        ("police kill the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("The cat's mat, 3.5!", "the cat s mat 3 5", 1.0),
        ("a", "", 0.0),
        ("", "", 1.0),
        ("Straße", "STRASSE", 0.0),
    ],
)
def test_rouge_l_on_known_texts(said: str, wanted: str, value: float) -> None:
    assert rouge_l(said, wanted) == pytest.approx(value)


def test_exact_match_sets_white_space_aside_and_nothing_else() -> None:
    assert exact_match(" a  b\n", "a b") == 1.0
    assert exact_match("A b", "a b") == 0.0


def test_only_what_follows_the_mark_is_compared() -> None:
    assert compared("1 + 1 = 2\n#### 2 ", "####") == "2"
    assert compared("no mark", "####") == "no mark"
    assert compared("a #### b #### c", "####") == "c"
    assert compared(" a  b ", None) == "a b"


def test_a_users_function_is_found_and_checked() -> None:
    assert named_function("difflib:get_close_matches") is not None
    with pytest.raises(RecipeError, match="cannot import"):
        named_function("difflib:nothing")
    with pytest.raises(RecipeError, match="cannot import"):
        named_function("no.such.module:f")
    with pytest.raises(RecipeError, match="no function"):
        named_function("string:ascii_letters")
    assert measured(lambda said, wanted: len(said), "m:f", "abc", "") == 3.0
    with pytest.raises(RecipeError, match=r"m:f fails on an answer .ZeroDivisionError"):
        measured(lambda said, wanted: 1 / 0, "m:f", "a", "b")
    with pytest.raises(RecipeError, match="no finite number"):
        measured(lambda said, wanted: float("nan"), "m:f", "a", "b")
