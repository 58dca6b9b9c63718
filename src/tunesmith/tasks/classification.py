"""One of several classes for each text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch, Example
from tunesmith.data.table import Table
from tunesmith.errors import DataError
from tunesmith.tasks._metrics import accuracy, macro_f1
from tunesmith.tasks.base import Labels, LossSum, Prediction, Scores, Task

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone, TextProcessor
    from tunesmith.models.network import Network


class Classification(Task):
    """Cross-entropy over the classes seen in the training rows."""

    primary_metric: ClassVar[str] = "accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy", "macro_f1")

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target's weight spread evenly over all classes (Szegedy 2016, section 7)"
    )

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
        self, texts: Sequence[str], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        index = {name: position for position, name in enumerate(labels.names)}
        known = [None] * len(texts) if targets is None else [index[target] for target in targets]
        encoded = processor.encode_all(texts, limit)
        return [
            Example(row, inputs, target, cut)
            for row, ((inputs, cut), target) in enumerate(zip(encoded, known, strict=True))
        ]

    def head(self, backbone: Backbone, labels: Labels, seed: int) -> Network:
        from tunesmith.models.network import sequence_network

        return sequence_network(backbone, labels.names, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        import torch
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        logits = output.float()  # [rows, labels]; bfloat16 sums would lose the third digit of the loss
        total = cross_entropy(logits, batch.target, reduction="sum", label_smoothing=self.label_smoothing)
        correct = (logits.argmax(-1) == batch.target).sum()
        return LossSum(total, torch.tensor(float(len(batch.rows)), device=logits.device), {"correct": correct.detach()})

    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        shares = output.float().softmax(-1).cpu()  # [rows, labels]
        best = shares.argmax(-1).tolist()
        return [
            Prediction(row, labels.names[index], tuple(values))
            for row, index, values in zip(rows, best, shares.tolist(), strict=True)
        ]

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        import numpy as np

        index = {name: position for position, name in enumerate(labels.names)}
        columns = {
            "truth": np.array([index[name] for name in truth], dtype=np.int64),
            "predicted": np.array([index[item.label] for item in predictions], dtype=np.int64),
            "probability": np.array([max(item.probabilities) for item in predictions]),
        }
        metrics = {"accuracy": accuracy, "macro_f1": partial(macro_f1, classes=len(labels.names))}
        return Scores(columns, metrics, self.primary_metric, labels.names)
