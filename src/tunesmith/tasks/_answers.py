"""How near a written answer is to the one wanted: exact match, ROUGE-L, or a function of the user's."""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence

from tunesmith.errors import RecipeError

Compare = Callable[[str, str], float]  # (what was said, what was wanted) -> more is better
WORD = re.compile(r"[^\W_]+")


def compared(text: str, after: str | None) -> str:
    """The part of an answer that is compared: what follows the last `after` of it, or all where it holds none."""
    found = text.rpartition(after)[2] if after else text
    return " ".join(found.split())


def exact_match(said: str, wanted: str) -> float:
    """1 for the same text, white space set aside; else 0."""
    return float(said.split() == wanted.split())


def rouge_l(said: str, wanted: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, section 3; beta = 1).

    Words are runs of letters and digits in lower case, without stemming, as in the rouge-score package. 1 where neither
    text has a word, 0 where only one has.
    """
    one, two = WORD.findall(said.lower()), WORD.findall(wanted.lower())
    if not one or not two:
        return float(one == two)
    common = _common(one, two)
    return 2 * common / (len(one) + len(two))


def _common(one: Sequence[str], two: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    best = [0] * (len(two) + 1)
    for word in one:
        corner = 0
        for place, other in enumerate(two, 1):
            here = best[place]
            best[place] = corner + 1 if word == other else max(here, best[place - 1])
            corner = here
    return best[-1]


def named_function(path: str) -> Compare:
    """The function of "package.module:function". Raises RecipeError where there is none."""
    module, _, name = path.partition(":")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = vars(found)[part]
    except (ImportError, KeyError, TypeError, ValueError) as error:
        raise RecipeError(
            f'task.metric: cannot import "{path}" ({error}); write package.module:function, of a module that Python finds'
        ) from None
    if not callable(found):
        raise RecipeError(
            f'task.metric: "{path}" is no function; give one that takes (answer, wanted) and gives a number'
        )
    return found  # type: ignore[return-value]


def measured(function: Compare, path: str, said: str, wanted: str) -> float:
    """What a user's function gives. Raises RecipeError where it fails, or gives no finite number."""
    try:
        value = float(function(said, wanted))
    except Exception as error:
        raise RecipeError(
            f"task.metric: {path} fails on an answer ({type(error).__name__}: {error}); it must take (answer, wanted), two "
            "texts, and give a number"
        ) from None
    if not math.isfinite(value):
        raise RecipeError(f"task.metric: {path} gave {value}, which is no finite number")
    return value
