"""What every task is: the one place that knows rows, targets, loss and score of what is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from tunesmith.catalog import Part
from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch, Example
from tunesmith.data.table import Table

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.models.backbone import Backbone, TextProcessor
    from tunesmith.models.network import Network


class LossSum(NamedTuple):
    """A sum and a weight, never a mean: the loop divides once, by the weight of the whole step."""

    total: Tensor  # scalar
    weight: Tensor  # scalar: examples or tokens that `total` sums over
    logs: dict[str, Tensor]  # further scalar sums over the same weight, for the ledger


@dataclass(frozen=True)
class Labels:
    """The label space, in the order of the network's outputs."""

    names: tuple[str, ...]
    counts: tuple[int, ...]  # training rows of each


@dataclass(frozen=True)
class Prediction:
    """What the model says of one row."""

    row: int
    label: str
    probabilities: tuple[float, ...]  # one per label, in the order of Labels.names; sums to 1


Metric = Callable[[Mapping[str, "np.ndarray"]], float]


@dataclass(frozen=True)
class Scores:
    """Values per example, and the functions that make numbers of any sample of them.

    `columns` holds arrays of equal length, one entry per example: for classification "truth" and "predicted"
    (class indices) and "probability" (of the predicted class). A metric takes such columns, of all examples or of a
    resample, and gives one number, so that an interval needs to know nothing of the task.
    """

    columns: dict[str, np.ndarray]
    metrics: dict[str, Metric]
    primary: str  # name of the metric that chooses and that the verdict is about; higher is better
    labels: tuple[str, ...] = ()

    def value(self, metric: str | None = None) -> float:
        return self.metrics[metric or self.primary](self.columns)


class Task(Part, ABC):
    """A subclass is final, and lives alone in tasks/<name>.py; its fields are its options."""

    primary_metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]  # names of what `score` gives

    @abstractmethod
    def check(self, train: Table, columns: Columns) -> Labels:
        """The label space. Raises DataError naming column and rows when there is nothing to learn."""

    @abstractmethod
    def encode(
        self, texts: Sequence[str], targets: Sequence[Any] | None, labels: Labels, processor: TextProcessor, limit: int
    ) -> list[Example]:
        """Rows as numbers, `limit` tokens at most each; pure. `targets` is None where the labels are not known."""

    @abstractmethod
    def head(self, backbone: Backbone, labels: Labels, seed: int) -> Network:
        """The base with this task's head on it, the head's fresh weights drawn from `seed`."""

    @abstractmethod
    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Sum of the loss over the batch's rows, and how many there are."""

    @abstractmethod
    def predict(self, output: Tensor, rows: Sequence[int], labels: Labels) -> list[Prediction]:
        """What the network's output says of each row."""

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], truth: Sequence[Any], labels: Labels) -> Scores:
        """Values per example of predictions against the labels of the same rows."""
