"""Pictures to pixels, as the base's own image processor sizes, crops and scales them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedConfig

from tunesmith.errors import ModelError
from tunesmith.models.processor import Processor
from tunesmith.models.text import NO_LIMIT, first_line

CONFIG = "preprocessor_config.json"
PIXELS = "pixel_values"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for bases that do not say
USUAL_SIZE = 224


class ImageProcessor(Processor):
    """Sizing and cropping are done once a picture, to uint8; scaling and normalising on the batch, in float32.

    Transformers' own image processor does the former, by Pillow: torchvision is not needed, and is not used.
    """

    pictures = True

    def __init__(self, sizer: Any, notes: tuple[str, ...]) -> None:
        """sizer: an image processor of transformers, of its Pillow kind."""
        self.max_length, self.positions, self.why = NO_LIMIT, NO_LIMIT, "pictures have no tokens"
        self.pad = {PIXELS: 0}
        self.apart = False
        self.notes = notes
        self.sizer = sizer
        self._factor = float(sizer.rescale_factor) if sizer.do_rescale else 1.0
        normal = sizer.do_normalize
        self._mean = torch.tensor(_three(sizer.image_mean if normal else 0.0)).view(1, 3, 1, 1)
        self._std = torch.tensor(_three(sizer.image_std if normal else 1.0)).view(1, 3, 1, 1)

    def fingerprint(self) -> str:
        said = f"{type(self.sizer).__name__} {transformers.__version__} {self.sizer.to_json_string()}"
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    def encode(self, text: Any, max_length: int) -> tuple[dict[str, Any], int]:
        return self.encode_all([text], max_length)[0]

    def encode_all(self, texts: Sequence[Any], max_length: int) -> list[tuple[dict[str, Any], int]]:
        """texts: pictures that have `image()`. Each as uint8 [3, height, width]; nothing of them is ever cut to a length."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # Pillow decodes and resizes without Python's lock
            return [({PIXELS: pixels}, 0) for pixels in pool.map(self._pixels, texts)]

    def tokens(self, inputs: dict[str, Any]) -> list[str]:
        _, height, width = inputs[PIXELS].shape
        return [f"{width}x{height} pixels"]

    def ready(self, inputs: dict[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        pixels = inputs[PIXELS].float() * self._factor  # [rows, 3, height, width]
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return {PIXELS: ((pixels - mean) / std).to(like.dtype)}

    def save(self, folder: Path, limit: int) -> None:
        self.sizer.save_pretrained(folder)

    def _pixels(self, picture: Any) -> Tensor:
        given = self.sizer(picture.image(), do_rescale=False, do_normalize=False, return_tensors="np")[PIXELS][0]
        # In numpy: each of several threads that called torch would start as many of torch's own.
        return torch.from_numpy(np.clip(np.rint(given), 0, 255).astype(np.uint8))


def load_image_processor(folder: Path, config: PreTrainedConfig) -> ImageProcessor:
    """The image processor of `folder`; where there is none, the usual one at the size that config.json names.

    Raises ModelError when it cannot be read, or does what is not done here.
    """
    from transformers import AutoImageProcessor
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    notes: tuple[str, ...] = ()
    try:
        if (folder / CONFIG).is_file():
            sizer: Any = AutoImageProcessor.from_pretrained(
                folder, backend="pil", local_files_only=True, trust_remote_code=False
            )
        else:
            given = getattr(config, "image_size", None)
            side = given if isinstance(given, int) else given[0] if given else USUAL_SIZE
            size = {"height": side, "width": side}
            sizer = ViTImageProcessorPil(size=size, image_mean=list(MEAN), image_std=list(STD))
            notes = (
                f"no {CONFIG}: pictures are sized to {side}x{side} and normalised with ImageNet's mean and deviation",
            )
    except Exception as error:  # each class of processor raises its own kinds for the same damaged file
        raise ModelError(f"{folder / CONFIG}: cannot be read ({first_line(error)}); fetch it again") from None
    if type(sizer).__name__[-3:] != "Pil":
        raise ModelError(f"{folder / CONFIG}: {type(sizer).__name__} has no form that works with Pillow alone")
    for name in ("do_flip_channel_order", "do_pad"):
        if getattr(sizer, name, None):
            raise ModelError(f"{folder / CONFIG}: asks for {name}, which is not done here; choose another base")
    processor = ImageProcessor(sizer, notes)
    wide, tall = (processor.encode(_Blank(*size), NO_LIMIT)[0][PIXELS].shape for size in ((97, 61), (61, 97)))
    if wide != tall:
        raise ModelError(
            f"{folder / CONFIG}: leaves pictures in different sizes, which cannot stand in one batch; set size to a height "
            "and a width, or do_center_crop with a crop_size"
        )
    return processor


class _Blank:
    """A picture of a size."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)

    def image(self) -> Any:
        from PIL import Image

        return Image.new("RGB", self.size)


def _three(value: Any) -> list[float]:
    return [float(value)] * 3 if isinstance(value, int | float) else [float(item) for item in value]
