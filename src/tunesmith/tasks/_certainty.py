"""How tasks learn from validation rows how sure their answers may be: temperature, thresholds, and the scores of sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.calibration import (
    MOST,
    Calibration,
    Tempered,
    class_losses,
    fit_temperature,
    label_losses,
    order_statistics,
    steps,
    tempered_classes,
    tempered_labels,
)
from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.calibration import Losses
    from tunesmith.models.network import Network
    from tunesmith.tasks.base import Labels, Prediction

SURPRISE = "surprise"  # in `Scores.each`: what `surprise` gives
LEAST = 1e-12  # probability, below which a surprise is as large as it gets


def evidence_of(predictions: Sequence[Prediction]) -> np.ndarray:
    """[rows, outputs] float64."""
    import numpy as np

    return np.array([item.evidence for item in predictions], dtype=np.float64).reshape(len(predictions), -1)


def class_places(truth: Sequence[Any], labels: Labels) -> np.ndarray:
    """[rows] the true class of each row, as a place among the labels."""
    import numpy as np

    index = {name: place for place, name in enumerate(labels.names)}
    return np.array([index[name] for name in truth], dtype=np.int64)


def label_table(truth: Sequence[Any], labels: Labels) -> np.ndarray:
    """[rows, labels] bool."""
    import numpy as np

    return np.array([[name in said for name in labels.names] for said in truth], dtype=bool)


def temper_classes(
    predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, seed: int
) -> tuple[Labels, list[Prediction]]:
    """`Task.temper` of tasks whose evidence is one softmax over the classes."""
    shares, true = evidence_of(predictions), class_places(truth, labels)
    taken = _taken(shares, seed)
    wrong = int((shares[taken].argmax(axis=1) != true[taken]).sum())
    found = _fitted(class_losses(shares[taken], true[taken]), len(taken), wrong, seed)
    if found.temperature == 1:
        return _with(labels, found, len(truth)), list(predictions)
    return _with(labels, found, len(truth)), _restated(predictions, tempered_classes(shares, found.temperature))


def temper_labels(
    predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, seed: int
) -> tuple[Labels, list[Prediction]]:
    """`Task.temper` of tasks whose evidence is a sigmoid for each label."""
    shares, true = evidence_of(predictions), label_table(truth, labels)
    taken = _taken(shares, seed)
    wrong = int(((shares[taken] >= 0.5) != true[taken]).any(axis=1).sum())
    found = _fitted(label_losses(shares[taken], true[taken]), len(taken), wrong, seed)
    if found.temperature == 1:
        return _with(labels, found, len(truth)), list(predictions)
    return _with(labels, found, len(truth)), _restated(predictions, tempered_labels(shares, found.temperature))


def surprise(kind: str, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> np.ndarray | None:
    """[rows] the negative logarithm, in nats, of the probability of each row's target; None where there is none.

    kind: the task's `certainty`. At the temperature that suits these rows, so that a model is not the worse for being too
    sure, or not sure enough. It tells two models apart on fewer rows than a count of hits does. Of several labels: of all
    together, each there or not.
    """
    import numpy as np

    if kind not in ("classes", "labels") or not predictions:
        return None
    if kind == "classes":
        _, tempered = temper_classes(predictions, truth, labels, 0)
        shares = evidence_of(tempered)[np.arange(len(truth)), class_places(truth, labels)]
        return -np.log(np.maximum(shares, LEAST))
    _, tempered = temper_labels(predictions, truth, labels, 0)
    found = evidence_of(tempered)
    return -np.log(np.maximum(np.where(label_table(truth, labels), found, 1 - found), LEAST)).sum(axis=1)


def calibrate_classes(
    predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, confidence: float
) -> Labels:
    """Thresholds of certainty, and of each row 1 less the probability of its class: the scores of sets (Sadinle 2019)."""
    import numpy as np

    shares, true = evidence_of(predictions), class_places(truth, labels)
    right = shares.argmax(axis=1) == true
    scores = 1 - shares[np.arange(len(true)), true]
    known = Calibration(len(true)) if labels.calibration is None else labels.calibration
    found = replace(
        known, confidence=confidence, steps=steps(shares.max(axis=1), right), scores=order_statistics(scores)
    )
    return replace(labels, calibration=found)


def calibrate_numbers(
    predictions: Sequence[Prediction], wanted: np.ndarray, labels: Labels, confidence: float
) -> Labels:
    """Of each row how far its numbers are off, the furthest one; `wanted` [rows, numbers] as the evidence has them."""
    import numpy as np

    off = np.abs(evidence_of(predictions) - wanted).max(axis=1)
    found = Calibration(len(off), why="", confidence=confidence, scores=order_statistics(off))
    return replace(labels, calibration=found)


def fold_temperature(network: Network, labels: Labels) -> Labels:
    """Divides the last linear map by the temperature, so that whatever reads the network gives the same probabilities.

    Where the network has no such map, `labels` still say by what its outputs are to be divided.
    """
    import torch

    output = network.output
    if labels.temperature == 1 or output is None:
        return labels
    with torch.no_grad():
        output.weight.div_(labels.temperature)
        if output.bias is not None:
            output.bias.div_(labels.temperature)
    return replace(labels, temperature=1.0)


def _taken(shares: np.ndarray, seed: int) -> np.ndarray:
    """The rows to fit on: all, or as many as hold `MOST` probabilities."""
    import numpy as np

    rows = len(shares)
    most = max(1, MOST // max(1, shares.shape[1]))
    if rows <= most:
        return np.arange(rows)
    draw = np.random.default_rng(seed_of(seed, "temperature", "rows"))
    return np.sort(draw.choice(rows, size=most, replace=False))


def _fitted(losses: Losses, rows: int, wrong: int, seed: int) -> Tempered:
    import numpy as np

    return fit_temperature(losses, rows, wrong, np.random.default_rng(seed_of(seed, "temperature")))


def _with(labels: Labels, found: Tempered, rows: int) -> Labels:
    return replace(
        labels,
        temperature=found.temperature,
        calibration=Calibration(rows, temperature=found.temperature, why=found.why),
    )


def _restated(predictions: Sequence[Prediction], evidence: np.ndarray) -> list[Prediction]:
    """With other evidence and the same order among it, so that what is said stays."""
    return [replace(item, evidence=tuple(row)) for item, row in zip(predictions, evidence.tolist(), strict=True)]
