"""The most frequent class of the training rows, given to every row; the first of equals in label order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import MAJORITY, PHRASES
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np


class Majority(Rival):
    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        import numpy as np

        counts = np.array([train.truth.count(name) for name in labels.names], dtype=np.float64)
        return [np.tile(counts / counts.sum(), (len(texts), 1)) for texts in wanted]

    def what(self, train: Part) -> str:
        return PHRASES[MAJORITY]


def make() -> Rival:
    return Majority()
