"""Each label's share of the training rows, the same for every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import FREQUENT, PHRASES
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np


class FrequentLabels(Rival):
    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        import numpy as np

        shares = np.array([[name in said for name in labels.names] for said in train.truth]).mean(axis=0)
        return [np.tile(shares, (len(texts), 1)) for texts in wanted]

    def what(self, train: Part) -> str:
        return PHRASES[FREQUENT]


def make() -> Rival:
    return FrequentLabels()
