"""One of several classes for each row: what every task of classes shares."""

from __future__ import annotations

from abc import ABC
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch, Example, Text
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.one_class import OneClass
from tunesmith.errors import DataError, RecipeError
from tunesmith.tasks._certainty import calibrate_classes, temper_classes
from tunesmith.tasks._disagreement import classes_apart
from tunesmith.tasks._metrics import accuracy, macro_f1
from tunesmith.tasks.base import (
    Labels,
    LossSum,
    Metric,
    Mistake,
    OutputTask,
    Prediction,
    Scores,
    encode_texts,
    probability_columns,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.processor import Processor


def class_loss(output: Tensor, batch: Batch, smoothing: float) -> LossSum:
    """Cross-entropy of [rows, labels] against one class a row, summed over the rows.

    A target [rows, 3] stands for rows mixed of two: both classes, and the share of the first.
    """
    import torch
    from torch.nn.functional import cross_entropy

    assert batch.target is not None
    logits = output.float()  # [rows, labels]; bfloat16 sums would lose the third digit of the loss
    if batch.target.dim() == 1:
        first = batch.target
        total = cross_entropy(logits, first, reduction="sum", label_smoothing=smoothing)
    else:
        first, second, share = batch.target[:, 0].long(), batch.target[:, 1].long(), batch.target[:, 2]
        both = [cross_entropy(logits, of, reduction="none", label_smoothing=smoothing) for of in (first, second)]
        total = (share * both[0] + (1 - share) * both[1]).sum()
    correct = (logits.argmax(-1) == first).sum()
    return LossSum(total, torch.full((), float(len(batch.rows)), device=logits.device), {"correct": correct.detach()})


class ClassTask(OutputTask, ABC):
    """Reads, scores and tells classes; how they are learned is a subclass's own."""

    pipeline_tag: ClassVar[str] = "text-classification"
    primary_metric: ClassVar[str] = "accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")
    baselines: ClassVar[tuple[str, ...]] = ("majority", "tfidf")
    views: ClassVar[tuple[str, ...]] = ("confusion", "per_class")
    certainty: ClassVar[Literal["", "classes", "labels", "numbers"]] = "classes"

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        if len(names) > 1:
            raise RecipeError(
                f"data.label: {len(names)} columns are named, and one class a row is learned here; name one, or learn "
                "several labels with --task multilabel, several numbers with --task regression"
            )
        return OneClass()

    def check(self, train: Table, columns: Columns) -> Labels:
        counts = Counter(train.columns[columns.label])
        if len(counts) < 2:
            only = next(iter(counts), None)
            raise DataError(
                f'{train.path}: column "{columns.label}" holds one class only ({only!r}), and a classifier needs at '
                "least two; name the right column with --label or add rows of another class"
            )
        named = sorted(counts)
        return Labels(tuple(named), tuple(counts[name] for name in named))

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: Processor, limit: int
    ) -> list[Example]:
        index = {name: position for position, name in enumerate(labels.names)}
        known = [None] * len(texts) if targets is None else [index[target] for target in targets]
        return encode_texts(texts, known, processor, limit)

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        return classes_apart(first, second)

    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        return (output / labels.temperature).softmax(-1)

    def said(self, evidence: Sequence[float], labels: Labels) -> str:
        return labels.names[max(range(len(evidence)), key=evidence.__getitem__)]  # the first of equals

    def temper(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, seed: int
    ) -> tuple[Labels, list[Prediction]]:
        return temper_classes(predictions, truth, labels, seed)

    def calibrate(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, confidence: float
    ) -> Labels:
        return calibrate_classes(predictions, truth, labels, confidence)

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        import numpy as np

        index = {name: position for position, name in enumerate(labels.names)}
        columns = {
            "truth": np.array([index[name] for name in truth], dtype=np.int64),
            "predicted": np.array([index[item.value] for item in predictions], dtype=np.int64),
            "probability": np.array([max(item.evidence) for item in predictions]),
        }
        right = columns["truth"] == columns["predicted"]
        return Scores(
            columns,
            self.functions(columns, labels),
            self.primary_metric,
            shares=frozenset({"accuracy"}),
            each={"accuracy": right.astype(float)},
        )

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        return {"accuracy": accuracy, "macro_f1": macro_f1(len(labels.names))}

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        said: dict[str, list[Any]] = {
            "label": [item.value for item in predictions],
            "probability": [max(item.evidence) for item in predictions],
        }
        return said | probability_columns(predictions, labels)

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        if prediction.value == truth:
            return None
        sure = max(prediction.evidence)
        return Mistake(sure, truth, prediction.value, f"{sure:.3f}")

    def describe(self, labels: Labels) -> str:
        return f"{len(labels.names)} classes"
