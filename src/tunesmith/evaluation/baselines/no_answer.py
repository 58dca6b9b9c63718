"""No answer to any question: what a model that learned nothing but that some have none would say."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines.base import Part, Speaker
from tunesmith.evaluation.verdict import NO_ANSWER, PHRASES
from tunesmith.tasks.base import Labels, Prediction
from tunesmith.tasks.question_answering import Reply


class NoAnswer(Speaker):
    def predictions(
        self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int
    ) -> list[list[Prediction]]:
        silent = Reply("", 0, 0, 0.0, "")
        return [[Prediction(row, silent, (0.0,), text[1]) for row, text in enumerate(texts)] for texts in wanted]

    def what(self, train: Part) -> str:
        return PHRASES[NO_ANSWER]


def make() -> Speaker:
    return NoAnswer()
