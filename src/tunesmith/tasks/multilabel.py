"""Any number of labels for each row of one text or two."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch, Example, Text
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import LabelSet, separator_of
from tunesmith.errors import DataError
from tunesmith.tasks._certainty import label_table, temper_labels
from tunesmith.tasks._disagreement import labels_apart
from tunesmith.tasks._information import Information, of_shares
from tunesmith.tasks._metrics import average_precision, best_threshold, label_f1, ranks
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

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor

FEW = 20  # rows with a label, below which its own threshold is not worth choosing
EVEN = 0.5  # the threshold where there are no validation rows to choose one by


class Multilabel(OutputTask):
    """Binary cross-entropy for each label on its own; a label is said from its own threshold on."""

    pipeline_tag: ClassVar[str] = "text-classification"
    primary_metric: ClassVar[str] = "micro_f1"
    metrics: ClassVar[tuple[str, ...]] = ("micro_f1", "macro_f1", "average_precision")
    baselines: ClassVar[tuple[str, ...]] = ("frequent_labels", "tfidf_labels")
    views: ClassVar[tuple[str, ...]] = ("per_label",)
    certainty: ClassVar[Literal["", "classes", "labels", "numbers"]] = "labels"

    separator: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="between the labels of a text; found among | ; , by looking when not given"
    )

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        if len(names) > 1:
            return LabelSet(None, tuple(names))
        separator = self.separator if self.separator is not None else separator_of([*values, *known])
        return LabelSet(separator)

    def check(self, train: Table, columns: Columns) -> Labels:
        counts = Counter(label for labels in train.columns[columns.label] for label in labels)
        named = tuple(sorted(counts))
        lost = [part for part in columns.parts if part not in counts]
        if len(named) < 2 or lost:
            held = f"labels that no training row has: {', '.join(lost)}" if lost else f"{len(named)} label(s) in all"
            raise DataError(f'{train.path}: column "{columns.label}" holds {held}; name the right columns with --label')
        return Labels(named, tuple(counts[name] for name in named), thresholds=(EVEN,) * len(named))

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: Processor, limit: int
    ) -> list[Example]:
        known = (
            [None] * len(texts)
            if targets is None
            else [[float(name in target) for name in labels.names] for target in targets]
        )
        return encode_texts(texts, known, processor, limit)

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        """The entropy of each label by itself, summed."""
        return of_shares(labels.counts, len(truth))

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import sequence_network

        return sequence_network(backbone, labels.names, "multi_label_classification", pair, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Summed over rows and labels, each a weight of 1: the mean is that of transformers' own heads."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits

        assert batch.target is not None
        logits = output.float()  # [rows, labels]
        total = binary_cross_entropy_with_logits(logits, batch.target, reduction="sum")
        return LossSum(total, torch.tensor(float(logits.numel()), device=logits.device), {})

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        return labels_apart(first, second)

    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        return (output / labels.temperature).sigmoid()

    def said(self, evidence: Sequence[float], labels: Labels) -> tuple[str, ...]:
        passed = zip(labels.names, evidence, labels.thresholds, strict=True)
        return tuple(name for name, probability, threshold in passed if probability >= threshold)

    def temper(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, seed: int
    ) -> tuple[Labels, list[Prediction]]:
        return temper_labels(predictions, truth, labels, seed)

    def settle(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Labels:
        """The threshold of each label with the highest F1 on these rows (Lipton 2014, section 4).

        A label that fewer than `FEW` of the rows have takes the threshold that is best for all labels together: of a few
        rows each would find one that fits these alone.
        """
        import numpy as np

        shares = np.array([item.evidence for item in predictions])  # [rows, labels]
        true = label_table(truth, labels)
        common = best_threshold(shares.ravel(), true.ravel(), EVEN)
        found = [
            best_threshold(shares[:, place], true[:, place], common) if true[:, place].sum() >= FEW else common
            for place in range(len(labels.names))
        ]
        return replace(labels, thresholds=tuple(found))

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        import numpy as np

        shape = (len(predictions), len(labels.names))
        columns = {
            "truth": np.array([[name in said for name in labels.names] for said in truth], dtype=bool).reshape(shape),
            "predicted": np.array([[name in item.value for name in labels.names] for item in predictions], dtype=bool),
            "probability": np.array([item.evidence for item in predictions], dtype=np.float64).reshape(shape),
        }
        columns["predicted"] = columns["predicted"].reshape(shape)
        columns["rank"] = ranks(columns["probability"])
        each = _of_each(columns["truth"], columns["predicted"])
        return Scores(columns, self.functions(columns, labels), self.primary_metric, each=each)

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        return {
            "micro_f1": label_f1("micro"),
            "macro_f1": label_f1("macro"),
            "average_precision": average_precision,
        }

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        said: dict[str, list[Any]] = {"labels": [list(item.value) for item in predictions]}
        return said | probability_columns(predictions, labels)

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        """By how far the probabilities of the wrong labels are on the wrong side of their thresholds, in all."""
        if prediction.value == truth:
            return None
        wrong = {*prediction.value} ^ {*truth}
        places = [place for place, name in enumerate(labels.names) if name in wrong]
        off = sum(abs(prediction.evidence[place] - labels.thresholds[place]) for place in places)
        missed = [f"{labels.names[place]} {prediction.evidence[place]:.2f}" for place in places]
        return Mistake(off, " + ".join(truth) or "none", " + ".join(prediction.value) or "none", ", ".join(missed))

    def describe(self, labels: Labels) -> str:
        return f"{len(labels.names)} labels, any number of them a row"


def _of_each(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """[rows, labels] -> of each row whether all its labels are right, and their F1; 1 where none is true and none said."""
    import numpy as np

    counted = truth.sum(1) + predicted.sum(1)
    f1 = np.where(counted > 0, 2 * (truth & predicted).sum(1) / np.maximum(counted, 1), 1.0)
    return {"exact_match": (truth == predicted).all(1).astype(float), "f1": f1}
