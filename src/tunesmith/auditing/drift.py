"""Whether test rows are drawn as training rows are: a classifier that can tell them apart says that they are not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.auditing.base import Examined, Material, Row, not_done
from tunesmith.auditing.folds import FOLDS, folds_of
from tunesmith.data.audit import row_key
from tunesmith.data.encode import Text
from tunesmith.data.findings import Finding
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

NAME = "drift"
BOUND = (
    0.6  # of the area: 0.5 tells nothing. Between Banking77's own files it is 0.52, between two products' reviews 0.97
)
MOST_ROWS = 3_000  # of each side: one standard error of an area of 0.6 is then below 0.01
FEWEST_ROWS = 20  # of each side, under which the interval of an area is wider than from 0.4 to 0.7
MOST_FEATURES = 50_000
WORDS = 5  # named of each side
NORMAL = 1.96  # standard errors to each side of a 95 % interval


def examine(material: Material) -> Examined:
    """Kind: "drift" for each given table of validation or test; parts drawn at random cannot drift."""
    if material.pictures:
        return not_done(NAME, "does not apply to pictures", applies=False)
    given = [name for name in ("validation", "test") if name in material.given and name in material.tables]
    if not given or "train" not in material.tables:
        return not_done(
            NAME,
            "does not apply: no validation or test table is given, and parts drawn at random cannot drift",
            applies=False,
        )
    findings, lines = [], []
    for name in given:
        found, said = _between(material, name)
        findings += found
        lines.append(said)
    return Examined(NAME, "; ".join(lines), tuple(findings))


def _between(material: Material, name: str) -> tuple[list[Finding], str]:
    import numpy as np

    train, other = _drawn(material, "train"), _drawn(material, name)
    if min(len(train), len(other)) < FEWEST_ROWS:
        return [], f"train and {name}: fewer than {FEWEST_ROWS} different texts are too few to tell"
    rows = [*train, *other]
    side = np.array([0] * len(train) + [1] * len(other))
    texts = [material.text(row) for row in rows]
    scores, telling = _told_apart(texts, side, material.seed)
    area, low, high = area_under(scores[side == 1], scores[side == 0])
    said = f"a classifier tells {name} from train with an area under the curve of {area:.2f} [{low:.2f}, {high:.2f}]"
    if low <= BOUND:
        return [], f"{said}, and 0.5 is guessing"
    unlike = sorted(
        ((score, row) for score, row, where in zip(scores.tolist(), rows, side, strict=True) if where == 1),
        key=lambda found: -found[0],
    )
    what = f"{said}, where 0.5 is guessing: they are not of one kind (words of {name}: {telling})"
    advice = f"train on rows as {name} has them, or take the result as one about new kinds of rows"
    finding = material.finding("drift", [row for _, row in unlike], what, advice)
    return [finding], said


def _drawn(material: Material, split: str) -> list[Row]:
    """Rows of a split, each text once: copies on both sides of a fold would tell more than is true."""
    import numpy as np

    kept: dict[str, Row] = {}
    for row in (row for row in material.rows if row.split == split):
        text = material.text(row)
        kept.setdefault(row_key((text,) if isinstance(text, str) else text), row)
    rows = list(kept.values())
    if len(rows) <= MOST_ROWS:
        return rows
    chosen = np.random.default_rng(seed_of(material.seed, "drift", split)).choice(len(rows), MOST_ROWS, replace=False)
    return [rows[place] for place in sorted(chosen.tolist())]


def _told_apart(texts: Sequence[Text], side: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Of each row how much it looks like side 1 to a classifier that did not learn from it; words that tell side 1."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    from tunesmith.evaluation.baselines._words import by_words

    whole = [text if isinstance(text, str) else " \n ".join(text) for text in texts]
    words = by_words(whole)
    vectorizer = TfidfVectorizer(
        analyzer="word" if words else "char",
        ngram_range=(1, 1) if words else (1, 2),
        token_pattern=r"(?u)\b\w+\b",  # read for words alone
        sublinear_tf=True,
        max_features=MOST_FEATURES,
    )
    features = vectorizer.fit_transform(whole)

    def model() -> LogisticRegression:
        return LogisticRegression(C=1.0, class_weight="balanced", solver="liblinear", random_state=seed % 2**32)

    fold = folds_of(side, FOLDS, seed)
    scores = np.zeros(len(side))
    for place in range(FOLDS):
        held = fold == place
        fitted = model().fit(features[~held], side[~held])
        scores[held] = fitted.decision_function(features[held])
    weights = model().fit(features, side).coef_[0]
    names = vectorizer.get_feature_names_out()
    return scores, ", ".join(f'"{names[place]}"' for place in np.argsort(-weights)[:WORDS] if weights[place] > 0)


def area_under(positive: np.ndarray, negative: np.ndarray) -> tuple[float, float, float]:
    """Area under the ROC curve and its 95 % interval (DeLong, DeLong and Clarke-Pearson 1988).

    positive: [rows], negative: [rows], scores; at least two of each.
    """
    import numpy as np
    from scipy.stats import rankdata

    many, few = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    above = (ranks[:many] - rankdata(positive)) / few  # of each positive the share of negatives below it
    below = 1 - (ranks[many:] - rankdata(negative)) / many
    area = float(above.mean())
    error = float(np.sqrt(above.var(ddof=1) / many + below.var(ddof=1) / few))
    return area, max(0.0, area - NORMAL * error), min(1.0, area + NORMAL * error)
