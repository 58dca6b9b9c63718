"""The median of the training rows, given to every row: of all constants the one with the least absolute error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import MEDIAN, PHRASES
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np


class Median(Rival):
    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        import numpy as np

        values = (np.median(np.array(train.truth), axis=0) - labels.center) / labels.scale
        return [np.tile(values, (len(texts), 1)) for texts in wanted]

    def what(self, train: Part) -> str:
        return PHRASES[MEDIAN]


def make() -> Rival:
    return Median()
