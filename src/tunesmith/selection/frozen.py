"""What frozen features tell of rows that were not learned from: a probe and the nearest rows, by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example, unit_rows, unit_targets, windows
from tunesmith.evaluation.voting import votes
from tunesmith.selection.transferability import one_hot
from tunesmith.tasks.base import Labels, OutputTask, Prediction, Scores
from tunesmith.training.probe import FittedHead, fit_one, told_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STRONGER = (1 / 16, 1 / 4)  # times the strongest of a task's own penalties: tried before it, where rows are few
NEAREST = 5  # rows that vote (scikit-learn's default)
# Of ridge regression, times the mean square of a row's features; a prior of variance 1 / penalty on the weights.
PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
MOST_PRODUCTS = 2e11  # units times units times width: beyond, the nearest are not searched for


@dataclass(frozen=True)
class FeatureFolds:
    """Rows, what a frozen base makes of them, and the fold that each is held out in."""

    task: OutputTask
    labels: Labels
    examples: Sequence[Example]
    features: Tensor  # [units, width] float32: of each row, or of each word where outputs are one a word
    truth: Sequence[Any]  # of each row of the table
    folds: np.ndarray  # [rows of the table] of int, from 0

    @property
    def count(self) -> int:
        return int(self.folds.max()) + 1

    def targets(self) -> Tensor:
        return unit_targets(self.examples)

    def unit_folds(self) -> np.ndarray:
        """[units] the fold of each."""
        import numpy as np

        return np.array(
            [self.folds[example.source] for example in self.examples for _ in range(example.units)], dtype=np.int64
        )


@dataclass(frozen=True)
class Probed:
    """A linear map on frozen features, judged on rows that it did not learn from."""

    scores: Scores
    strength: float  # C, where the rows held out have the least loss
    loss: float  # mean over those rows


def probed(held: FeatureFolds) -> Probed:
    """Each row as a head says it that was fitted to the other folds: `training.probe` without its validation rows.

    Features are centred and brought to unit length by the mean of the rows learned from, so that a penalty means the same for
    every base. Of the task's penalties and two stronger ones that is taken whose loss on all rows held out is least: one
    figure chosen by all rows. What a task settles on validation rows is settled for each fold on the rows of the others.
    """
    heads: list[FittedHead | None] = [None] * held.count
    best: tuple[float, float, list[Prediction]] | None = None
    own = held.task.strengths
    for strength in (*(own[0] * share for share in STRONGER), *own):
        heads, predictions, loss = _at(held, strength, heads)
        if best is not None and loss > best[0]:
            break  # the loss along the path has one valley
        best = (loss, strength, predictions)
    assert best is not None, "a task has strengths"
    return Probed(_settled(held, best[2]), best[1], best[0])


def _at(
    held: FeatureFolds, strength: float, starts: Sequence[FittedHead | None]
) -> tuple[list[FittedHead | None], list[Prediction], float]:
    """Heads of all folds at one penalty, what they say of the rows held out, and their mean loss there."""
    import torch

    targets, of_unit = held.targets(), held.unit_folds()
    heads: list[FittedHead | None] = []
    predictions: list[Prediction] = []
    total, weight = 0.0, 0.0
    for fold, start in enumerate(starts):
        learned = torch.from_numpy(of_unit != fold)
        middle = held.features[learned].mean(dim=0)
        known = held.features[learned] - middle
        length = max(float(known.norm(dim=1).mean()), 1e-12)
        like = torch.nn.Linear(known.shape[1], len(held.labels.names))
        head = fit_one(like, held.task, known, targets[learned], strength, length, start)
        heads.append(head)
        out = [example for example in held.examples if held.folds[example.source] == fold]
        asked = held.features[~learned] - middle
        predictions += told_by(head, held.task, asked, out, held.labels)
        with torch.no_grad():
            loss = held.task.loss(
                torch.nn.functional.linear(asked, head.weight, head.bias), _batch_of(asked, targets[~learned])
            )
        total, weight = total + float(loss.total), weight + float(loss.weight)
    return heads, predictions, total / weight


def _batch_of(features: Tensor, target: Tensor) -> Any:
    from tunesmith.data.encode import Batch

    return Batch(tuple(range(len(features))), {}, target)


def ridged(held: FeatureFolds, depths: Sequence[Tensor]) -> Probed:
    """Each row as linear ridge regression says it that was fitted to the other folds, on features of several depths at once.

    depths: each [units, width], beside `held.features`. Every depth is centred and brought to unit length by its mean over
    all rows, so that none outweighs another. Targets are those of `transferability`: of classes a 1 for each row's own. A
    linear map on what all blocks give comes near to what fine-tuning makes of a base (Evci 2022, "Head2Toe: utilizing
    intermediate representations for better transfer learning", section 3). The penalty is the one with the best metric on all
    rows held out, the strongest of equals: one figure chosen by all rows.
    """
    import numpy as np

    x = np.concatenate([_even(part.numpy()) for part in (*depths, held.features)], axis=1)
    targets = held.targets().numpy()
    y = one_hot(targets, len(held.labels.names)) if targets.ndim == 1 else np.asarray(targets, dtype=np.float64)
    folds = held.unit_folds()
    solve = _by_rows if len(x) <= x.shape[1] else _by_columns
    best: tuple[float, Probed] | None = None
    for penalty, said in zip(PENALTIES, solve(x, y, folds, held.count), strict=True):
        predictions: list[Prediction] = []
        for fold in range(held.count):
            out = [example for example in held.examples if held.folds[example.source] == fold]
            found = held.task.predictions(said[folds == fold].tolist(), unit_rows(out), held.labels)
            predictions += held.task.whole(found, windows(out), held.labels)
        scores = _settled(held, predictions)
        value = scores.value() * (-1 if scores.primary in scores.lower else 1)
        if best is None or value > best[0] or best[0] != best[0]:
            best = value, Probed(scores, 1 / penalty, float(((said - y) ** 2).mean()))
    assert best is not None
    return best[1]


def _even(part: np.ndarray) -> np.ndarray:
    """[units, width] of float64, centred, of unit length on average."""
    import numpy as np

    found = part.astype(np.float64)
    found -= found.mean(axis=0)
    return found / max(float(np.linalg.norm(found, axis=1).mean()), 1e-12)


def _size(products: np.ndarray, rows: int) -> float:
    """The mean square of a row; of features that are the same for all rows not quite 0, which would leave no inverse."""
    import numpy as np

    return max(float(np.trace(products)) / rows, 1e-12)


def _by_rows(x: np.ndarray, y: np.ndarray, folds: np.ndarray, count: int) -> list[np.ndarray]:
    """For each penalty what is said of the rows held out, [units, outputs]: by products of rows."""
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve

    products = x @ x.T
    found = [np.zeros_like(y) for _ in PENALTIES]
    for fold in range(count):
        learned, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        middle = y[learned].mean(axis=0)
        known, size = products[np.ix_(learned, learned)], _size(products, len(x))
        for guess, penalty in zip(found, PENALTIES, strict=True):
            factor = cho_factor(known + penalty * size * np.eye(len(learned)), check_finite=False)
            guess[held] = products[np.ix_(held, learned)] @ cho_solve(factor, y[learned] - middle) + middle
    return found


def _by_columns(x: np.ndarray, y: np.ndarray, folds: np.ndarray, count: int) -> list[np.ndarray]:
    """The same by products of columns, where there are fewer of them."""
    import numpy as np
    from scipy.linalg import cho_factor, cho_solve

    whole = x.T @ x
    size = _size(whole, len(x))
    found = [np.zeros_like(y) for _ in PENALTIES]
    for fold in range(count):
        learned, held = folds != fold, folds == fold
        middle = y[learned].mean(axis=0)
        known, toward = whole - x[held].T @ x[held], x[learned].T @ (y[learned] - middle)
        for guess, penalty in zip(found, PENALTIES, strict=True):
            factor = cho_factor(known + penalty * size * np.eye(x.shape[1]), check_finite=False)
            guess[held] = x[held] @ cho_solve(factor, toward) + middle
    return found


def nearest(held: FeatureFolds) -> Scores | None:
    """Each row as the five nearest of the other folds say it, by cosine; None where that would be too long a search."""
    import torch

    if len(held.features) ** 2 * held.features.shape[1] > MOST_PRODUCTS:
        return None
    targets, of_unit = held.targets(), held.unit_folds()
    predictions: list[Prediction] = []
    middle = held.features.mean(dim=0)
    for fold in range(held.count):
        learned = torch.from_numpy(of_unit != fold)
        found = votes(
            held.features[learned] - middle,
            targets[learned],
            held.features[~learned] - middle,
            (NEAREST,),
            len(held.labels.names),
        )
        evidence = found[min(found)].tolist()
        out = [example for example in held.examples if held.folds[example.source] == fold]
        said = held.task.predictions(evidence, unit_rows(out), held.labels)
        predictions += held.task.whole(said, windows(out), held.labels)
    return _settled(held, predictions)


def _settled(held: FeatureFolds, predictions: Sequence[Prediction]) -> Scores:
    """The scores, with what is settled on validation rows settled for each fold on the rows of the others."""
    by_row = {item.row: item for item in predictions}
    rows = range(len(held.truth))
    said: dict[int, Prediction] = {}
    for fold in range(held.count):
        inside = [row for row in rows if held.folds[row] == fold]
        others = [row for row in rows if held.folds[row] != fold]
        labels = held.task.settle([by_row[row] for row in others], [held.truth[row] for row in others], held.labels)
        said |= dict(zip(inside, held.task.restate([by_row[row] for row in inside], labels), strict=True))
    return held.task.score([said[row] for row in rows], held.truth, held.labels)
