"""What a result must beat: the most frequent class, and TF-IDF with logistic regression."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.evaluation.verdict import MAJORITY, PHRASES, TFIDF
from tunesmith.tasks.base import Metric, Scores

if TYPE_CHECKING:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

# Banking77: test accuracy 0.865 at scikit-learn's default of 1 and 0.894 at 10. A weak baseline flatters the model.
INVERSE_PENALTY = 10.0
ITERATIONS = 1000
# Scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese.
SPACELESS = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]"


@dataclass(frozen=True)
class Baseline:
    """A cheap alternative, measured on the same test rows."""

    name: str  # "majority", "tfidf", "probe": what the verdict knows it by
    what: str  # in words
    scores: Scores
    seconds: float  # by the clock, to fit it and to predict the test rows


def majority(
    train_truth: Sequence[int],
    test_truth: Sequence[int],
    labels: tuple[str, ...],
    metrics: Mapping[str, Metric],
    primary: str,
) -> Baseline:
    """The most frequent class of the training rows, given to every test row; the first of equals in label order."""
    import numpy as np

    started = time.perf_counter()
    counts = np.bincount(np.asarray(train_truth, dtype=np.int64), minlength=len(labels))
    shares = np.tile(counts / counts.sum(), (len(test_truth), 1))  # [test rows, labels]
    scores = _scores(shares, test_truth, labels, metrics, primary)
    return Baseline(MAJORITY, PHRASES[MAJORITY], scores, time.perf_counter() - started)


def tfidf_logistic(
    train_texts: Sequence[str],
    train_truth: Sequence[int],
    test_texts: Sequence[str],
    test_truth: Sequence[int],
    labels: tuple[str, ...],
    metrics: Mapping[str, Metric],
    primary: str,
    seed: int,
) -> Baseline:
    """TF-IDF of words and pairs of words (sublinear counts) with multinomial logistic regression.

    Characters and their pairs and triples instead, where the texts hold no words or do not put spaces between them.
    Classes are indices into `labels`; a class without a training row is never predicted. Fitted on one class only,
    it says that class.
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    started = time.perf_counter()
    vectorizer, what = _vectorizer(train_texts)
    features = vectorizer.fit_transform(train_texts)
    truth = np.asarray(train_truth, dtype=np.int64)
    seen = np.unique(truth)
    shares = np.zeros((len(test_texts), len(labels)))
    if len(seen) > 1:
        model = LogisticRegression(C=INVERSE_PENALTY, max_iter=ITERATIONS, random_state=seed % 2**32)
        model.fit(features, truth)
        shares[:, model.classes_] = model.predict_proba(vectorizer.transform(test_texts))
    else:
        shares[:, seen] = 1.0
    scores = _scores(shares, test_truth, labels, metrics, primary)
    return Baseline(TFIDF, what, scores, time.perf_counter() - started)


def _vectorizer(texts: Sequence[str]) -> tuple[TfidfVectorizer, str]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Single characters count as words: "I", "a" and digits carry sentiment and amounts.
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    written = [(len(re.findall(r"\w", text)), len(re.findall(SPACELESS, text))) for text in texts]
    letters, spaceless = (sum(column) for column in zip(*written, strict=True))
    if letters > 0 and spaceless <= letters / 2:
        return words, PHRASES[TFIDF]
    characters = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True)
    return characters, "TF-IDF of characters with logistic regression"


def _scores(
    shares: np.ndarray, truth: Sequence[int], labels: tuple[str, ...], metrics: Mapping[str, Metric], primary: str
) -> Scores:
    import numpy as np

    columns = {
        "truth": np.asarray(truth, dtype=np.int64),
        "predicted": shares.argmax(axis=1),
        "probability": shares.max(axis=1),
    }
    return Scores(columns, dict(metrics), primary, labels)
