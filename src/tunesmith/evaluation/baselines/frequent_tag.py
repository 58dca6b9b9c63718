"""The most frequent tag of each word in the training rows; O for a word that they do not hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.data.encode import Text
from tunesmith.data.targets.tags import OUTSIDE, tags_of
from tunesmith.data.words import bounds_of
from tunesmith.evaluation.baselines.base import Part, Rival
from tunesmith.evaluation.verdict import FREQUENT_TAG, PHRASES
from tunesmith.tasks.base import Labels

if TYPE_CHECKING:
    import numpy as np


class FrequentTag(Rival):
    """Upper and lower case are told apart, since names are written with capitals; an unseen form is looked up without."""

    def evidence(self, train: Part, wanted: Sequence[Sequence[Text]], labels: Labels, seed: int) -> list[np.ndarray]:
        """For each of the lists of texts [words, tags]: the share of each tag among the word's occurrences in `train`."""
        import numpy as np

        counts: dict[tuple[str, bool], Counter[str]] = {}  # (word, False), and (its small letters, True)
        for text, entities in zip(train.texts, train.truth, strict=True):
            words = _words(text)
            for word, tag in zip(words, tags_of(bounds_of(_one(text)), entities), strict=True):
                for form in ((word, False), (word.casefold(), True)):
                    counts.setdefault(form, Counter())[tag] += 1
        index = {name: place for place, name in enumerate(labels.names)}
        shares = {form: np.zeros(len(index)) for form in counts}
        for form, found in counts.items():
            for tag, count in found.items():
                shares[form][index[tag]] = count / found.total()
        unseen = np.zeros(len(index))
        unseen[index[OUTSIDE]] = 1.0
        return [
            np.array(
                [
                    shares.get((word, False), shares.get((word.casefold(), True), unseen))
                    for text in texts
                    for word in _words(text)
                ]
            )
            for texts in wanted
        ]

    def what(self, train: Part) -> str:
        return PHRASES[FREQUENT_TAG]


def _one(text: Text) -> str:
    assert isinstance(text, str)
    return text


def _words(text: Text) -> list[str]:
    return [str(_one(text)[start:end]) for start, end in bounds_of(_one(text))]


def make() -> Rival:
    return FrequentTag()
