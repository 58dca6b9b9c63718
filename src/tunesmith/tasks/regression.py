"""One or several numbers for each row of one text or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch, Example, Text
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.label_set import as_list
from tunesmith.data.targets.numbers import Numbers
from tunesmith.errors import DataError
from tunesmith.tasks._certainty import calibrate_numbers
from tunesmith.tasks._disagreement import numbers_apart
from tunesmith.tasks._information import Information, of_numbers
from tunesmith.tasks._metrics import correlation, rank_correlation, root_mean_square_error
from tunesmith.tasks.base import Labels, LossSum, Metric, Mistake, OutputTask, Prediction, Scores, encode_texts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network
    from tunesmith.models.processor import Processor

FAR = 1000.0  # a mean so many deviations from 0 would take the digits of a float32 that holds both


class Regression(OutputTask):
    """Squared error of standardised targets, or Huber's; what is predicted is in the targets' own units."""

    pipeline_tag: ClassVar[str] = "text-classification"
    primary_metric: ClassVar[str] = "spearman"
    metrics: ClassVar[tuple[str, ...]] = ("spearman", "pearson", "rmse", "standardised_rmse")
    baselines: ClassVar[tuple[str, ...]] = ("median", "tfidf_ridge")
    views: ClassVar[tuple[str, ...]] = ("numbers",)
    certainty: ClassVar[Literal["", "classes", "labels", "numbers"]] = "numbers"
    worst: ClassVar[str] = (
        "The predictions furthest from the true numbers. Check these numbers first: such rows are often wrong in the data."
    )
    truth_is: ClassVar[str] = "true"
    # Numbers hold noise that a weak penalty would fit: STS-B with MiniLM 0.815 at 1 or weaker, 0.831 at 1/16.
    strengths: ClassVar[tuple[float, ...]] = (1 / 256, 1 / 64, 1 / 16, 0.25, 1.0, 4.0, 16.0)
    likely_strength: ClassVar[float] = 0.25

    error: Literal["squared", "huber"] = Field(
        default="squared", description="huber counts errors above one standard deviation linearly: outliers weigh less"
    )

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        if len(names) == 1:
            size = next((len(found) for value in values if isinstance(found := as_list(value), list)), 1)
            names = names if size == 1 else [f"{names[0]} {place + 1}" for place in range(size)]
        return Numbers(tuple(known) if len(known) == len(names) else tuple(names))

    def check(self, train: Table, columns: Columns) -> Labels:
        import numpy as np

        values = np.array(train.columns[columns.label], dtype=np.float64)  # [rows, numbers]
        center, scale = values.mean(axis=0), values.std(axis=0)
        names = columns.parts or (columns.label,)
        if len(names) != values.shape[1]:
            names = tuple(f"{columns.label} {place + 1}" for place in range(values.shape[1]))
        flat = [name for name, spread in zip(names, scale, strict=True) if not spread > 0]
        if flat:
            raise DataError(
                *(f'{train.path}: column "{name}" holds one number only in the training rows' for name in flat)
            )
        return Labels(
            names, (len(values),) * len(names), center=tuple(center.tolist()), scale=tuple(scale.tolist()),
            standardised=True,
        )  # fmt: skip

    def encode(
        self, texts: Sequence[Text], targets: Sequence[Any] | None, labels: Labels, processor: Processor, limit: int
    ) -> list[Example]:
        known = [None] * len(texts) if targets is None else [list(_standardised(item, labels)) for item in targets]
        return encode_texts(texts, known, processor, limit)

    def information(self, examples: Sequence[Example], truth: Sequence[Any], labels: Labels) -> Information:
        return of_numbers(truth)

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import sequence_network

        return sequence_network(backbone, labels.names, "regression", pair, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Summed over rows and numbers, each a weight of 1."""
        import torch
        from torch.nn.functional import huber_loss, mse_loss

        assert batch.target is not None
        values = output.float()  # [rows, numbers]
        total = (mse_loss if self.error == "squared" else huber_loss)(values, batch.target, reduction="sum")
        return LossSum(total, torch.tensor(float(values.numel()), device=values.device), {})

    def disagreement(self, first: Tensor, second: Tensor, batch: Batch) -> Tensor | None:
        return numbers_apart(first, second)

    def evidence(self, output: Tensor, labels: Labels) -> Tensor:
        if labels.standardised:
            return output
        center, scale = output.new_tensor(labels.center), output.new_tensor(labels.scale)
        return (output - center) / scale

    def said(self, evidence: Sequence[float], labels: Labels) -> float | tuple[float, ...]:
        given = zip(evidence, labels.scale, labels.center, strict=True)
        numbers = tuple(value * scale + center for value, scale, center in given)
        return numbers[0] if len(numbers) == 1 else numbers

    def calibrate(
        self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels, confidence: float
    ) -> Labels:
        import numpy as np

        wanted = np.array([_standardised(item, labels) for item in truth], dtype=np.float64)
        return calibrate_numbers(predictions, wanted, labels, confidence)

    def fold(self, network: Network, labels: Labels) -> Labels:
        import torch

        last = network.last
        far = max(abs(center) / scale for center, scale in zip(labels.center, labels.scale, strict=True))
        if last.bias is None or far > FAR:
            return labels
        with torch.no_grad():
            scale = last.weight.new_tensor(labels.scale)
            last.weight.mul_(scale[:, None])
            last.bias.mul_(scale).add_(last.bias.new_tensor(labels.center))
        return replace(labels, standardised=False)

    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Metrics are means over the numbers of a row; of several numbers `standardised_rmse`, each in its own deviation."""
        import numpy as np

        shape = (len(predictions), len(labels.names))
        columns = {
            "truth": np.array(truth, dtype=np.float64).reshape(shape),
            "predicted": np.array([item.value for item in predictions], dtype=np.float64).reshape(shape),
        }
        alone, metrics = len(labels.names) == 1, self.functions(columns, labels)
        free = frozenset({"spearman", "pearson"})
        off = columns["predicted"] - columns["truth"]
        each = {
            "difference" if alone else f"difference of {label}": off[:, place]
            for place, label in enumerate(labels.names)
        }
        lower = frozenset(metrics) - free
        return Scores(columns, metrics, self.primary_metric, lower=lower, other_scale=free, each=each)

    def functions(self, columns: Mapping[str, np.ndarray], labels: Labels) -> dict[str, Metric]:
        import numpy as np

        alone = len(labels.names) == 1
        name, unit = ("rmse", np.ones(1)) if alone else ("standardised_rmse", np.array(labels.scale))
        return {"spearman": rank_correlation, "pearson": correlation, name: root_mean_square_error(unit)}

    def columns(self, predictions: Sequence[Prediction], labels: Labels) -> dict[str, list[Any]]:
        if len(labels.names) == 1:
            return {"value": [item.value for item in predictions]}
        return {name: [item.value[place] for item in predictions] for place, name in enumerate(labels.names)}

    def mistake(self, prediction: Prediction, truth: Any, labels: Labels) -> Mistake | None:
        """Every number is off by something; the furthest, in standard deviations, are the ones to look at."""
        numbers = prediction.value if isinstance(prediction.value, tuple) else (prediction.value,)
        far = [abs(said - true) / scale for said, true, scale in zip(numbers, truth, labels.scale, strict=True)]
        said, true = (", ".join(f"{value:.4g}" for value in values) for values in (numbers, truth))
        return Mistake(max(far), true, said, f"off by {max(far):.2f} standard deviations")

    def describe(self, labels: Labels) -> str:
        return "one number" if len(labels.names) == 1 else f"{len(labels.names)} numbers"


def _standardised(values: Sequence[float], labels: Labels) -> list[float]:
    return [(value - center) / scale for value, center, scale in zip(values, labels.center, labels.scale, strict=True)]
