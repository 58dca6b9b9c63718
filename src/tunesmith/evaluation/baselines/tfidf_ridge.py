"""TF-IDF with ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines._words import Words, phrase
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import PHRASES, TFIDF_RIDGE
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)  # the best on a fifth of the training rows is taken
CHECKED = 5  # every fifth row
FEWEST_ROWS = 25  # to choose a penalty by; 1 with fewer


class TfidfRidge(Rival):
    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        import numpy as np
        from sklearn.linear_model import Ridge

        words = Words(train.texts)
        known = words.features(train.texts)
        truth = (np.array(train.truth) - labels.center) / labels.scale  # [rows, numbers]
        penalty = 1.0
        if len(truth) >= FEWEST_ROWS:
            held = np.arange(len(truth)) % CHECKED == 0

            def error(penalty: float) -> float:
                model = Ridge(alpha=penalty, solver="sparse_cg", random_state=0).fit(known[~held], truth[~held])
                return float(((model.predict(known[held]).reshape(-1, truth.shape[1]) - truth[held]) ** 2).mean())

            penalty = min(PENALTIES, key=error)
        model = Ridge(alpha=penalty, solver="sparse_cg", random_state=seed % 2**32).fit(known, truth)
        return [
            model.predict(words.features(texts)).reshape(len(texts), -1) if texts else np.zeros((0, truth.shape[1]))
            for texts in wanted
        ]

    def what(self, train: Part) -> str:
        return phrase(PHRASES[TFIDF_RIDGE], train.texts)


def make() -> Rival:
    return TfidfRidge()
