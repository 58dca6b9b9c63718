"""What a classifier says of rows that it did not learn from, for every row: cross-validation, cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Text
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

FOLDS = 5
# Inverse strength of the penalty on features of unit length, as `Task.likely_strength`: the best of 1 to 256 for MiniLM on
# Banking77 (docs/log.md, "The probe").
STRENGTH = 16.0
ITERATIONS = 30  # of L-BFGS; 40 more change no flag in a hundred
WORD_STRENGTH, WORD_ITERATIONS = 10.0, 60  # of TF-IDF, as the baseline of that name
MOST_WEIGHTS = 2_000_000  # of TF-IDF: features times classes, as the baseline of that name
UNSEEN = -30.0  # log of the probability of a class without a row to learn from


def folds_of(truth: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """[rows] of int: the fold of each, stratified: a class of n rows has n / folds in each, to the nearest row."""
    import numpy as np

    order = np.random.default_rng(seed_of(seed, "folds")).permutation(len(truth))
    order = order[np.argsort(truth[order], kind="stable")]
    found = np.empty(len(truth), dtype=np.int64)
    found[order] = np.arange(len(truth)) % folds
    return found


def cross_validated(
    features: np.ndarray, truth: np.ndarray, folds: int = FOLDS, seed: int = 0, trusted: np.ndarray | None = None
) -> np.ndarray:
    """[rows, classes] of float32: what logistic regression on the other folds says of each row.

    features: [rows, width], dense; truth: [rows] of int, 0 to classes - 1; trusted: [rows] of bool, the rows that are
    learned from, by default all. The probabilities are sharpened or softened as one so that they fit the trusted labels
    best (temperature scaling, Guo 2017), else no figure that is made of them would hold. Raises ValueError with fewer than
    two rows a fold.
    """
    import numpy as np

    dense = np.asarray(features, dtype=np.float32)
    dense = dense - dense.mean(axis=0)
    length = float(np.linalg.norm(dense, axis=1).mean())
    dense = dense / max(length, 1e-12)  # unit length on average, so that the penalty means the same for every base
    classes = int(truth.max()) + 1

    def fitted(train: np.ndarray, held: np.ndarray) -> np.ndarray:
        return _logits(dense[train], truth[train], dense[held], classes)

    return _held_out(fitted, truth, folds, seed, trusted)


def cross_validated_words(
    texts: Sequence[Text],
    truth: np.ndarray,
    folds: int = FOLDS,
    seed: int = 0,
    trusted: np.ndarray | None = None,
) -> np.ndarray:
    """`cross_validated` of the texts' words: TF-IDF with logistic regression, as the baseline of that name."""
    import numpy as np

    from tunesmith.evaluation.baselines._words import Words

    classes = int(truth.max()) + 1
    features = Words(texts, MOST_WEIGHTS // classes).features(texts)

    def fitted(train: np.ndarray, held: np.ndarray) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        found = np.full((len(held), classes), UNSEEN, dtype=np.float32)
        seen = np.unique(truth[train])
        if len(seen) < 2:
            found[:, seen] = 0.0
            return found
        # Banking77: the same accuracy to 0.2 points as with a tenth of this tolerance, in two thirds of the time.
        model = LogisticRegression(C=WORD_STRENGTH, max_iter=WORD_ITERATIONS, solver="newton-cg", tol=1e-3)
        model.fit(features[train], truth[train])
        found[:, model.classes_] = model.predict_log_proba(features[held])
        return found

    return _held_out(fitted, truth, folds, seed, trusted)


def _held_out(
    fitted: Callable[[np.ndarray, np.ndarray], np.ndarray],
    truth: np.ndarray,
    folds: int,
    seed: int,
    trusted: np.ndarray | None,
) -> np.ndarray:
    """`fitted` gives the logits of the second rows from the first, both by their places."""
    import numpy as np

    if len(truth) < 2 * folds:
        raise ValueError(f"{len(truth)} rows are too few for {folds} folds")
    learned = np.ones(len(truth), dtype=bool) if trusted is None else trusted
    fold = folds_of(truth, folds, seed)
    logits = np.zeros((len(truth), int(truth.max()) + 1), dtype=np.float32)
    for place in range(folds):
        held = np.flatnonzero(fold == place)
        logits[held] = fitted(np.flatnonzero((fold != place) & learned), held)
    return tempered(logits, truth, learned)


def _logits(features: np.ndarray, truth: np.ndarray, wanted: np.ndarray, classes: int) -> np.ndarray:
    """Multinomial logistic regression: cross-entropy plus |W|^2 / (2 C rows), by L-BFGS over all rows at once."""
    import torch

    rows, target, strength = torch.from_numpy(features), torch.from_numpy(truth), STRENGTH
    weight = torch.zeros(rows.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, history_size=10, tolerance_grad=1e-5, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(rows @ weight + bias, target)
        loss = loss + weight.square().sum() / (2 * strength * len(rows))
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        return (torch.from_numpy(wanted) @ weight + bias).numpy()


def tempered(logits: np.ndarray, truth: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """[rows, classes]: softmax of the logits times the one factor that gives the trusted labels the highest likelihood."""
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    known, labels = logits[trusted], truth[trusted]

    def loss(power: float) -> float:
        return -float(log_softmax(known * np.exp(power), axis=1)[np.arange(len(labels)), labels].mean())

    found: Any = minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded", options={"xatol": 0.01})
    return np.exp(log_softmax(logits * np.exp(found.x), axis=1))
