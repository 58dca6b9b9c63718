"""One of several classes for each picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tunesmith.data.columns import Asked, Columns, find_columns, may_be_text
from tunesmith.data.encode import PIXELS, Batch
from tunesmith.data.images import holds_pictures
from tunesmith.data.table import Table
from tunesmith.data.targets.base import Target
from tunesmith.data.targets.one_class import OneClass
from tunesmith.errors import RecipeError
from tunesmith.tasks._classes import ClassTask, class_loss
from tunesmith.tasks.base import Labels, LossSum

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network

VERSIONS = (
    2  # as good as a new one every epoch where few blocks train, at a fraction of the cost: docs/log.md, "Versions"
)


class ImageClassification(ClassTask):
    """Cross-entropy over the classes seen in the training rows; pictures may be varied anew in every epoch."""

    pipeline_tag: ClassVar[str] = "image-classification"
    baselines: ClassVar[tuple[str, ...]] = ("majority", "pixels")
    reads_pictures: ClassVar[bool] = True

    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of each target that is spread over all classes"
    )
    augment: bool | Literal["auto"] = Field(
        default="auto", description="whether pictures are varied in training; auto: unless the method is head"
    )
    flip: bool = Field(default=True, description="of varied pictures: mirrored, left to right, half of the times")
    crop: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="of varied pictures: most of each side that is cut away"
    )
    jitter: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="of varied pictures: most change of brightness, contrast and saturation"
    )

    mixup: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="of varied pictures: alpha of mixup, a weighted mean of two pictures; 0: none"
    )
    cutmix: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="of varied pictures: alpha of cutmix, a window of another picture; 0: none"
    )
    versions: Annotated[int, Field(ge=2)] | Literal["auto"] | None = Field(
        default="auto",
        description="in how many fixed versions a picture is seen, so that what is frozen is computed once for each; "
        "none: in a new one every epoch; auto: 2 where the first blocks of the base are frozen, else none",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> ImageClassification:
        mixes = self.mixup > 0 or self.cutmix > 0
        if isinstance(self.versions, int) and mixes:
            raise ValueError(
                "versions keeps what is frozen of each picture alone: leave mixup and cutmix out, or versions"
            )
        if self.augment is False and (mixes or isinstance(self.versions, int)):
            raise ValueError("augment is false, so mixup, cutmix and versions have no use: leave them out, or augment")
        return self

    @classmethod
    def recognises(cls, table: Table, asked: Asked) -> str | None:
        """Where a column names pictures; where another one may be text, only if the base is one of pictures."""
        if asked.pair is not None:
            return None
        why = "a column names pictures; --task classification reads their names"
        if asked.text is not None:
            return why if holds_pictures(table.columns.get(asked.text, [])) else None
        found = [name for name, values in table.columns.items() if holds_pictures(values)]
        if not found:
            return None
        taken = (asked.label,) if isinstance(asked.label, str) else asked.label or ()
        if may_be_text(table, (*found, *taken)) and asked.base() != "vision":
            return None
        return why

    def find(self, table: Table, asked: Asked) -> Columns:
        if asked.pair is not None:
            raise RecipeError("data.pair: one picture a row is read here; leave it out")
        return find_columns(table, asked.text, asked.label, asked.group, pictures=True)

    def target(self, values: Sequence[Any], names: Sequence[str], known: Sequence[str] = ()) -> Target:
        if len(names) > 1:
            raise RecipeError(
                f"data.label: {len(names)} columns are named, and one class a picture is learned here; name one"
            )
        return OneClass(pictures=True)

    def head(self, backbone: Backbone, labels: Labels, pair: bool, seed: int) -> Network:
        from tunesmith.models.network import image_network

        return image_network(backbone, labels.names, seed)

    def loss(self, output: Tensor, batch: Batch) -> LossSum:
        return class_loss(output, batch, self.label_smoothing)

    def varies(self, frozen: bool) -> bool:
        return not frozen or isinstance(self.versions, int) if self.augment == "auto" else self.augment

    def fixed_versions(self, frozen: bool) -> int | None:
        if self.versions != "auto":
            return self.versions
        return VERSIONS if frozen and self.mixup == 0 and self.cutmix == 0 else None

    def partners(self, rows: Sequence[int], count: int, seed: int, epoch: int) -> tuple[int, ...]:
        from tunesmith.data.augment import partners

        return partners(rows, count, seed, epoch) if self.mixup > 0 or self.cutmix > 0 else ()

    def mixed(self, batch: Batch, others: Batch, seed: int, epoch: int) -> Batch:
        """Targets become [rows, 3]: both classes, and the share of the row's own."""
        import torch

        from tunesmith.data.augment import mixed

        assert batch.target is not None and others.target is not None
        pixels, share = mixed(
            batch.inputs[PIXELS], others.inputs[PIXELS], batch.rows, seed, epoch, self.mixup, self.cutmix
        )
        target = torch.stack([batch.target.float(), others.target.float(), share], dim=1)
        return replace(batch, inputs={PIXELS: pixels}, target=target)

    def varied(self, batch: Batch, seed: int, epoch: int, processor: Any) -> Batch:
        from tunesmith.data.augment import varied

        pixels = varied(batch.inputs[PIXELS], batch.rows, seed, epoch, self.flip, self.crop, self.jitter)
        return replace(batch, inputs={PIXELS: pixels})
