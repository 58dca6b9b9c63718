"""Pictures: transformers' image classification recipe, and logistic regression on frozen features."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Record, Rows, picture
from .peers_linear import fitted
from .peers_trainer import trained

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of RandomResizedCrop
BATCH = 32


def feature_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """The base's pooled output, at length 1."""
    import numpy as np
    import torch
    from transformers import AutoImageProcessor, AutoModel

    sizer: Any = AutoImageProcessor.from_pretrained(base, backend="pil")
    model = AutoModel.from_pretrained(base).eval()

    def features(part: Sequence[Record]) -> np.ndarray:
        found = []
        for start in range(0, len(part), BATCH):
            pixels = sizer([picture(row) for row in part[start : start + BATCH]], return_tensors="pt")
            with torch.inference_mode():
                found.append(model(**pixels).pooler_output.numpy())
        whole = np.concatenate(found)
        return whole / np.linalg.norm(whole, axis=1, keepdims=True)

    return fitted(features(rows.train), [row["label"] for row in rows.train], features(rows.test))


def trainer_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """run_image_classification: random crops and mirrored pictures to train on, resized and cropped ones to test on."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification, default_data_collator

    names = sorted({row["label"] for row in rows.train})
    sizer: Any = AutoImageProcessor.from_pretrained(base, backend="pil")

    def build() -> Any:
        return AutoModelForImageClassification.from_pretrained(base, num_labels=len(names))

    train = Pictures(rows.train, names, sizer, random.Random(seed))
    trainer = trained(build, train, default_data_collator, seed, options, whole=False)
    logits = trainer.predict(Pictures(rows.test, names, sizer, None)).predictions
    return [names[place] for place in logits.argmax(axis=1).tolist()]


class Pictures:
    """Pictures as the Trainer asks for them; with a `draw`, each one varied anew."""

    def __init__(self, rows: Sequence[Record], names: Sequence[str], sizer: Any, draw: random.Random | None) -> None:
        self._rows, self._names, self._sizer, self._draw = rows, names, sizer, draw
        self._images = [picture(row) for row in rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> dict[str, Any]:
        image, size = self._images[place], self._sizer.crop_size
        if self._draw is not None:
            image = varied(image, (size["width"], size["height"]), self._draw)
        pixels = self._sizer(
            image, return_tensors="pt", do_resize=self._draw is None, do_center_crop=self._draw is None
        )
        return {"pixel_values": pixels["pixel_values"][0], "labels": self._names.index(self._rows[place]["label"])}


def varied(image: Image.Image, size: tuple[int, int], draw: random.Random) -> Image.Image:
    """torchvision's RandomResizedCrop and RandomHorizontalFlip at their defaults (that package is not needed here)."""
    from math import exp, log, sqrt

    from PIL import Image as Pillow
    from PIL import ImageOps

    box = (0, 0, image.width, image.height)
    for _ in range(TRIES):
        area = image.width * image.height * draw.uniform(*AREA)
        ratio = exp(draw.uniform(*map(log, RATIO)))
        width, height = round(sqrt(area * ratio)), round(sqrt(area / ratio))
        if 0 < width <= image.width and 0 < height <= image.height:
            left, top = draw.randint(0, image.width - width), draw.randint(0, image.height - height)
            box = (left, top, left + width, top + height)
            break
    found = image.resize(size, Pillow.Resampling.BILINEAR, box=box)
    return ImageOps.mirror(found) if draw.random() < 0.5 else found
