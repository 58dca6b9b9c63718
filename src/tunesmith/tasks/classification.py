"""One of several classes for each row of one text or two."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from tunesmith.data.encode import Batch
from tunesmith.tasks._classes import ClassTask, class_loss
from tunesmith.tasks.base import Labels, LossSum

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network


FEW_OF_A_CLASS = 16  # training rows, median over the classes


class Classification(ClassTask):
    """Cross-entropy over the classes seen in the training rows."""

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of the target's weight spread evenly over all classes (Szegedy 2016, section 7)"
    )

    def better_task(self, labels: Labels) -> str:
        rows = median(labels.counts)
        if rows > FEW_OF_A_CLASS:
            return ""
        return f"half of the classes have {rows:g} training rows or fewer: --task few_shot is made for that"

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import sequence_network

        return sequence_network(backbone, labels.names, "single_label_classification", pair, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        return class_loss(output, batch, self.label_smoothing)
