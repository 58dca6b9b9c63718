"""How answers are compared: SQuAD's own definitions of exact match and F1."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)


def normalised(text: str) -> str:
    """Small letters, without ASCII punctuation, without a, an and the, single spaces (`normalize_answer` of SQuAD 1.1)."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(gold: str, said: str) -> float:
    """1.0 where both are the same once normalised."""
    return float(normalised(gold) == normalised(said))


def token_f1(gold: str, said: str) -> float:
    """F1 of the words that both share, each as often as it stands in both; where one has no words, whether both have none.

    `compute_f1` of the official script of SQuAD 2.0.
    """
    true, words = normalised(gold).split(), normalised(said).split()
    if not true or not words:
        return float(true == words)
    shared = (Counter(true) & Counter(words)).total()
    return 2 * shared / (len(true) + len(words))


def best(measure: str, golds: Sequence[str], said: str) -> float:
    """The highest "exact" or "f1" over the right answers; no answer at all counts as the empty one.

    As the official script has it, right answers of which nothing is left once normalised do not count.
    """
    compare = exact if measure == "exact" else token_f1
    wanted = [gold for gold in golds if normalised(gold)] or [""]
    return max(compare(gold, said) for gold in wanted)
