"""TF-IDF with a logistic regression for each label on its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines._words import Words, phrase
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import PHRASES, TFIDF_LABELS
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np

INVERSE_PENALTY = 10.0  # as for one class a row: see tfidf.py
ITERATIONS = 1000


class TfidfLabels(Rival):
    """A label that all training rows have, or none, gets its share of them as its probability."""

    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        import numpy as np
        from sklearn.linear_model import LogisticRegression

        words = Words(train.texts)
        known = words.features(train.texts)
        features = [words.features(texts) for texts in wanted]
        shares = [np.zeros((len(texts), len(labels.names))) for texts in wanted]
        for place, name in enumerate(labels.names):
            truth = np.array([name in said for said in train.truth])
            if truth.all() or not truth.any():
                for table in shares:
                    table[:, place] = truth.mean()
                continue
            # liblinear is several times as fast as the default for two classes of sparse features.
            model = LogisticRegression(
                C=INVERSE_PENALTY, max_iter=ITERATIONS, solver="liblinear", random_state=seed % 2**32
            ).fit(known, truth)
            for table, given in zip(shares, features, strict=True):
                if len(table):
                    table[:, place] = model.predict_proba(given)[:, 1]
        return shares

    def what(self, train: Part) -> str:
        return phrase(PHRASES[TFIDF_LABELS], train.texts)


def make() -> Rival:
    return TfidfLabels()
