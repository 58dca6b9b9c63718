"""The words of the context that stand nearest to the question's words (after Richardson 2013, algorithm 1)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.data.words import bounds_of
from tunesmith.evaluation.baselines.base import Part, Speaker
from tunesmith.evaluation.verdict import PHRASES, SLIDING_WINDOW
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.question_answering import Reply

if TYPE_CHECKING:
    import numpy as np

REACH = 20  # words on either side of a piece that speak for it, each by its rarity over its distance


class SlidingWindow(Speaker):
    """Every piece of as many words as the middle training answer has; rare words of the question near it speak for it."""

    def predictions(
        self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int
    ) -> list[list[Prediction]]:
        contexts = list(dict.fromkeys(text[1] for text in train.texts))
        counts = Counter(word for context in contexts for word in set(_words(context)))
        rarity = {word: math.log(1 + len(contexts) / count) for word, count in counts.items()}
        unseen = math.log(1 + len(contexts))
        sizes = [len(_words(answer.text)) for answers in train.truth for answer in answers[:1]]
        size = max(1, round(median(sizes)))
        return [[_prediction(row, text, size, rarity, unseen) for row, text in enumerate(texts)] for texts in wanted]

    def what(self, train: Part) -> str:
        return PHRASES[SLIDING_WINDOW]


def _prediction(row: int, text: Text, size: int, rarity: dict[str, float], unseen: float) -> Prediction:
    import numpy as np

    question, context = text
    asked = {word: rarity.get(word, unseen) for word in _words(question)}
    bounds = bounds_of(context)
    words = _words(context)
    size = min(size, len(words))
    worth = np.array([asked.get(word, 0.0) for word in words])
    if size == 0 or not asked:
        return Prediction(row, Reply("", 0, 0, 0.0, ""), (0.0,), context)
    inside = np.convolve(worth, np.ones(size), "valid")  # [pieces]
    before, behind = _nearby(worth), _nearby(worth[::-1])[::-1]
    total = before[: len(inside)] + behind[size - 1 :] - inside
    letters = np.array([word[0].isalnum() for word in words])
    whole = letters[: len(inside)] & letters[size - 1 :]  # no piece begins or ends with a sign
    best = int(np.where(whole, total, total - total.max() - len(words)).argmax())
    # 1 where every word of the question stands right beside the piece
    score = float(np.clip(total[best] / sum(asked.values()), 0.0, 1.0))
    start, end = bounds[best][0], bounds[best + size - 1][1]
    return Prediction(row, Reply(context[start:end], start, end, score, context[start:end]), (score,), context)


def _nearby(worth: np.ndarray) -> np.ndarray:
    """[words]: for each word the worth of those before it, each over its distance."""
    import numpy as np

    kernel = np.concatenate([[0.0], 1 / np.arange(1, REACH + 1)])
    return np.convolve(worth, kernel)[: len(worth)]


def _words(text: str) -> list[str]:
    return [text[start:end].casefold() for start, end in bounds_of(text)]


def make() -> Speaker:
    return SlidingWindow()
