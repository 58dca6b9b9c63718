"""What frozen features tell of rows that were not learned from: a probe and the nearest rows, by cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example, unit_rows, unit_targets, windows
from tunesmith.evaluation.voting import votes
from tunesmith.tasks.base import Labels, OutputTask, Prediction, Scores
from tunesmith.training.probe import FittedHead, fit_one, told_by

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

STRONGER = (1 / 16, 1 / 4)  # times the strongest of a task's own penalties: tried before it, where rows are few
NEAREST = 5  # rows that vote (scikit-learn's default)
MOST_PRODUCTS = 2e11  # units times units times width: beyond, the nearest are not searched for


@dataclass(frozen=True)
class Held:
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


def probed(held: Held) -> Probed:
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
    held: Held, strength: float, starts: Sequence[FittedHead | None]
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


def nearest(held: Held) -> Scores | None:
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


def _settled(held: Held, predictions: Sequence[Prediction]) -> Scores:
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
