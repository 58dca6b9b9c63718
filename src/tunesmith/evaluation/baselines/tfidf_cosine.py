"""The cosine similarity of two texts' TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.evaluation.baselines._words import Words, phrase
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import PHRASES, TFIDF_COSINE
from tunesmith.tasks._retrieval import rivals, text_id
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np


class TfidfCosine(Rival):
    """The words' weights come from the training texts; nothing else is learned."""

    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        words = Words(train.texts)
        return [_evidence(words, texts, bool(labels.scale)) for texts in wanted]

    def what(self, train: Part) -> str:
        return phrase(PHRASES[TFIDF_COSINE], train.texts)


def _evidence(words: Words, texts: Sequence[Text], scored: bool) -> np.ndarray:
    """[rows, outputs] as the task of embeddings has it."""
    import numpy as np

    if not texts:
        return np.zeros((0, 1))
    one, *others = words.sides(texts)
    cosines = np.hstack([np.asarray(one.multiply(other).sum(axis=1)) for other in others])  # [rows, texts - 1]
    if scored:
        return cosines
    ids = [[text_id(part) for part in text] for text in texts]
    found = rivals(ids, lambda rows, places: (one[rows] @ others[0][places].T).toarray())
    return np.hstack([cosines, found])


def make() -> Rival:
    return TfidfCosine()
