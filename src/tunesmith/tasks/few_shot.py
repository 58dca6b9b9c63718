"""One of several classes from 2 to 64 texts of each: the base is tuned by contrast, and a head fitted to what it gives."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from tunesmith.data.columns import Columns
from tunesmith.data.encode import Batch
from tunesmith.data.order import Order, PairedOrder
from tunesmith.data.table import Table
from tunesmith.tasks import _similarity
from tunesmith.tasks._classes import ClassTask
from tunesmith.tasks.base import Labels, LossSum

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network

LEAST_ROWS = 512  # of an epoch: with few rows a class, an epoch of them all would be a handful of steps
WORD = re.compile(r"[^\W\d_]{3,}|[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
NUMBERED = re.compile(r"(?i)(label|class|category|cat|cluster|intent|topic|type|group|tag|id)?[\s_.-]*\d+")


class FewShot(ClassTask):
    """Supervised contrast of the features within a step, and cross-entropy of the head beside it.

    Every step holds two rows of a class. The names of the classes are training rows too, where they are words. After
    training the weights are averaged with the base's, and the head is fitted again to the features of all training rows.
    """

    joint: ClassVar[bool] = True
    validates: ClassVar[bool] = False
    refits: ClassVar[bool] = True
    # A head for few rows wants a weaker penalty than one for many: with 10 texts a class of Banking77 64 was the best of
    # 4, 16 and 64 on rows kept apart, 0.3 points above 16, whatever share of the base was kept (docs/log.md).
    likely_strength: ClassVar[float] = 64.0

    temperature: Annotated[float, Field(gt=0)] = Field(
        default=0.1, description="of the contrast: the smaller, the more the nearest rows of other classes count"
    )
    contrast: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="weight of the contrast beside the cross-entropy of the head"
    )
    keep: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5, description="share of the base's own weights in the delivered ones"
    )
    names: bool = Field(
        default=True, description="whether the names of the classes are training rows, where they are words"
    )

    def enriched(self, train: Table, columns: Columns, labels: Labels) -> tuple[Table, str]:
        """One row more for each class: its name, in the place of the class's first row."""
        spoken = [spoken_name(name) for name in labels.names]
        if not self.names or columns.pair is not None or columns.words:
            return train, ""
        if "" in spoken:
            return train, "the classes' names are not all words, and are left out"
        targets = train.columns[columns.label]
        lines = tuple(train.lines[targets.index(name)] for name in labels.names)
        own = {columns.text: spoken, columns.label: list(labels.names)}
        rows = {name: [*values, *own.get(name, [None] * len(spoken))] for name, values in train.columns.items()}
        said = f'and the names of the {len(spoken)} classes as one more row each, such as "{spoken[0]}"'
        return Table(train.path, rows, (*train.lines, *lines)), said

    def order(self, lengths: Sequence[int], truth: Sequence[Any], batch_size: int, seed: int) -> Order:
        index = {name: place for place, name in enumerate(sorted(set(truth)))}
        classes = tuple(index[name] for name in truth)
        return PairedOrder(tuple(lengths), classes, batch_size, self.epoch_rows(len(lengths)), seed)

    def epoch_rows(self, rows: int) -> int:
        return max(rows, LEAST_ROWS)

    def kept(self) -> float:
        return self.keep

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import sequence_network

        network = sequence_network(backbone, labels.names, "single_label_classification", pair, seed)
        network.tells = True
        return network

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        """Of logits alone [rows, classes] the cross-entropy; with features beside, as in training, the contrast too."""
        import torch
        from torch.nn.functional import cross_entropy

        assert batch.target is not None
        logits = output if output.dim() == 2 else output[:, 0]
        total = cross_entropy(logits.float(), batch.target, reduction="sum")
        if output.dim() == 3:
            total = total + self.contrast * _similarity.same_class(output[:, 1], batch.target, self.temperature)
        correct = (logits.argmax(-1) == batch.target).sum()
        return LossSum(
            total, torch.full((), float(len(batch.rows)), device=output.device), {"correct": correct.detach()}
        )


def spoken_name(name: str) -> str:
    """A class's name as people write it: "cardArrival" and "card_arrival" are "card arrival"; "" where it is no word."""
    if NUMBERED.fullmatch(name.strip()):
        return ""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    spoken = " ".join(re.sub(r"[_/|.\-]+", " ", apart).split())
    return spoken if WORD.search(spoken) else ""
