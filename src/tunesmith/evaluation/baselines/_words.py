"""TF-IDF of one text or two: what the cheap rivals read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Text
from tunesmith.data.words import SPACELESS

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


class Words:
    """TF-IDF of words and pairs of words (sublinear counts), fitted on training texts.

    Characters and their pairs and triples instead, where the texts hold no words or do not put spaces between them. Of
    two texts: the features of each, their product, and their cosine.
    """

    def __init__(self, texts: Sequence[Text], most: int | None = None) -> None:
        """`most`: how many features there may be, the most frequent ones; None for all."""
        plain = _flat(texts)
        self._words = by_words(texts)
        self._vectorizer = _vectorizer(self._words, most)
        self._vectorizer.fit(plain)

    @property
    def count(self) -> int:
        return len(self._vectorizer.vocabulary_)

    def features(self, texts: Sequence[Text]) -> Any:
        """Sparse [texts, features]."""
        from scipy.sparse import csr_matrix, hstack

        if not texts:
            return csr_matrix((0, 1))
        if isinstance(texts[0], str):
            return self._vectorizer.transform(texts)
        sides: list[Any] = [self._vectorizer.transform([text[side] for text in texts]) for side in (0, 1)]
        one, two = sides
        both = one.multiply(two).tocsr()
        return hstack([one, two, both, csr_matrix(both.sum(axis=1))]).tocsr()

    def sides(self, texts: Sequence[Text]) -> list[Any]:
        """Of rows of several texts: sparse [texts, features], each row of length 1 (or 0), one for each text of a row."""
        return [self._vectorizer.transform([text[side] for text in texts]) for side in range(len(texts[0]))]


def by_words(texts: Sequence[Text]) -> bool:
    """Whether the texts hold words with spaces between them."""
    written = [(len(re.findall(r"\w", text)), len(re.findall(SPACELESS, text))) for text in _flat(texts)]
    letters, spaceless = (sum(column) for column in zip(*written, strict=True))
    return letters > 0 and spaceless <= letters / 2


def _flat(texts: Sequence[Text]) -> list[str]:
    return [part for text in texts for part in ((text,) if isinstance(text, str) else text)]


def _vectorizer(words: bool, most: int | None) -> TfidfVectorizer:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if words:  # single characters count as words: "I", "a" and digits carry sentiment and amounts
        return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b", max_features=most)
    return TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, max_features=most)


def phrase(what: str, texts: Sequence[Text]) -> str:
    """ "TF-IDF with ..." in the words of what was read."""
    return what if by_words(texts) else what.replace("TF-IDF", "TF-IDF of characters", 1)
