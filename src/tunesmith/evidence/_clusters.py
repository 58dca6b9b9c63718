"""Test rows by what the untouched base takes for alike: clusters of its features, each told by words and examples."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Text
from tunesmith.data.stored import measures
from tunesmith.evidence._families import NAME, Family, Slice
from tunesmith.evidence.base import Subject
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

ROWS_EACH = 60  # test rows of a cluster, about; fewer tell too little of it
MOST = 12
FITTED = 5_000  # training rows that clusters are found in
STARTS = 3
READ = 1_000  # characters of a text whose words are counted
TOLD = 4  # words of a cluster
EXAMPLES = 2
LETTERS = r"(?u)\b[^\W\d_]{2,}\b"


def clusters(subject: Subject) -> Family | None:
    """k-means (scikit-learn, on features of unit length) of training rows, which the test rows are put into.

    None where the base has no features of one a row, or the test rows are too few for two clusters.
    """
    frozen, rows = subject.frozen, len(subject.test.truth)
    count = min(MOST, rows // ROWS_EACH)
    if frozen is None or count < 2 or not (frozen.by_row("train") and frozen.by_row("test")):
        return None
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import normalize

    if measures(frozen.examples["test"]).sources.tolist() != list(range(rows)):
        return None
    fitted = range(len(frozen.features["train"]))
    if len(fitted) > FITTED:
        fitted = sorted(random.Random(seed_of(subject.recipe.seed, "clusters")).sample(fitted, FITTED))
    train: Any = normalize(frozen.features["train"][list(fitted)].numpy())
    test: Any = normalize(frozen.features["test"].numpy())
    if len(np.unique(train, axis=0)) < count:
        return None
    seed = seed_of(subject.recipe.seed, "clusters") % 2**32
    means = KMeans(count, n_init=STARTS, random_state=seed).fit(train)  # type: ignore[arg-type]
    far = means.transform(test)  # [rows, clusters]
    of_test = far.argmin(axis=1)
    words = _words(subject, of_test, count)
    made: list[Slice] = []
    for place in range(count):
        inside = np.flatnonzero(of_test == place)
        if len(inside):
            near = inside[far[inside, place].argsort(kind="stable")[:EXAMPLES]]
            name = _name(subject, inside, words[place], place)
            name = f"{name} ({place + 1})" if any(item.name == name for item in made) else name
            full = f'texts like "{name}"' if words[place] else f"cluster {name}"
            made.append(Slice(name, full, inside, words[place], tuple(near.tolist())))
    made.sort(key=lambda item: -len(item.rows))
    return Family("cluster", "By cluster of the untouched base's features", tuple(made))


def _name(subject: Subject, rows: np.ndarray, words: Sequence[str], place: int) -> str:
    if words:
        return ", ".join(words)
    truth = [subject.test.truth[row] for row in rows]
    if all(isinstance(item, str) and item in subject.labels.names for item in truth):
        common = Counter(truth).most_common(2)
        said = ", ".join(f"{name[:NAME]} {number / len(rows):.0%}" for name, number in common)
        return f"{place + 1} ({said})"
    return f"{place + 1}"


def _words(subject: Subject, of_test: np.ndarray, count: int) -> list[tuple[str, ...]]:
    """Of each cluster the words whose mean TF-IDF exceeds most that of all other test rows; none of pictures."""
    none: list[tuple[str, ...]] = [()] * count
    if subject.task.reads_pictures:
        return none
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    read = [_joined(subject.task.readable(text))[:READ] for text in subject.test.texts]
    vectorizer = TfidfVectorizer(min_df=2, sublinear_tf=True, max_features=20_000, token_pattern=LETTERS)
    try:
        weights: Any = vectorizer.fit_transform(read)  # [texts, words]
    except ValueError:  # no word stands in two texts
        return none
    named = vectorizer.get_feature_names_out()
    found = []
    for place in range(count):
        inside = of_test == place
        if not inside.any() or inside.all():
            found.append(())
            continue
        more = np.asarray(weights[inside].mean(axis=0) - weights[~inside].mean(axis=0)).ravel()
        found.append(tuple(str(named[word]) for word in (-more).argsort(kind="stable")[:TOLD] if more[word] > 0))
    return found


def _joined(text: Text) -> str:
    return text if isinstance(text, str) else " ".join(text)
