"""Pictures varied a little, each row of each epoch in its own way, the same way every time it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunesmith.seeds import seed_of

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # weight of red, green and blue in brightness (ITU-R BT.601)
DRAWS = 7  # numbers that one picture takes


def varied(
    pixels: Tensor, rows: Sequence[int], seed: int, epoch: int, flip: bool, crop: float, jitter: float
) -> Tensor:
    """[rows, 3, height, width] uint8 -> the same, each picture varied by what (seed, epoch, row) draws.

    flip: mirrored, left to right, half of the times. crop: a window of at least 1 - `crop` of each side, anywhere, spread
    to the whole. jitter: brightness, contrast and saturation each times 1 - `jitter` to 1 + `jitter`.
    """
    import numpy as np
    import torch
    from torch.nn.functional import affine_grid, grid_sample

    drawn = np.stack([_random("picture", seed, epoch, row).random(DRAWS) for row in rows])
    draws = torch.from_numpy(drawn).float().to(pixels.device)  # [rows, DRAWS], each 0 to 1
    scale = 1 - crop * draws[:, 1]
    room = 1 - scale
    theta = torch.zeros(len(rows), 2, 3, device=pixels.device)
    theta[:, 0, 0] = torch.where(draws[:, 0] < 0.5, -scale, scale) if flip else scale
    theta[:, 1, 1] = scale
    theta[:, 0, 2] = room * (2 * draws[:, 2] - 1)
    theta[:, 1, 2] = room * (2 * draws[:, 3] - 1)
    image = pixels.float()  # [rows, 3, height, width], 0 to 255
    grid = affine_grid(theta, list(image.shape), align_corners=False)
    image = grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    times = (1 + jitter * (2 * draws[:, 4:7] - 1)).view(-1, 3, 1, 1, 1)
    image = image * times[:, 0]
    grey = (image * torch.tensor(GREY, device=image.device).view(1, 3, 1, 1)).sum(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    image = mean + (image - mean) * times[:, 1]
    grey = mean + (grey - mean) * times[:, 1]
    image = grey + (image - grey) * times[:, 2]
    return image.round().clamp(0, 255).to(torch.uint8)


def partners(rows: Sequence[int], count: int, seed: int, epoch: int) -> tuple[int, ...]:
    """For each row one of the `count` training rows, to be mixed into it."""
    return tuple(int(_random("partner", seed, epoch, row).integers(count)) for row in rows)


def mixed(
    pixels: Tensor, others: Tensor, rows: Sequence[int], seed: int, epoch: int, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Two pictures a row, [rows, 3, height, width] uint8 each -> one, and the share of it that is the first, [rows].

    mixup: a weighted mean of both; the weight is drawn from Beta(mixup, mixup) (Zhang 2018, section 2). cutmix: a window
    of the second in the first, of the first's shape and of an area drawn from Beta(cutmix, cutmix), cut off at the edges
    (Yun 2019, section 3.1). 0 leaves either out; of both, each row draws one.
    """
    import torch

    height, width = pixels.shape[2:]
    kept = torch.ones(len(rows), 1, height, width)  # share of the first, by place
    for place, row in enumerate(rows):
        draw = _random("mixed", seed, epoch, row)
        cut = cutmix > 0 and (mixup <= 0 or draw.random() < 0.5)
        share = float(draw.beta(cutmix, cutmix) if cut else draw.beta(mixup, mixup))
        if not cut:
            kept[place] = share
            continue
        tall, wide = (1 - share) ** 0.5 * height, (1 - share) ** 0.5 * width
        y, x = draw.random() * height, draw.random() * width
        top, bottom = max(0, round(y - tall / 2)), min(height, round(y + tall / 2))
        left, right = max(0, round(x - wide / 2)), min(width, round(x + wide / 2))
        kept[place, :, top:bottom, left:right] = 0.0
    weight = kept.to(pixels.device)
    image = pixels.float() * weight + others.float() * (1 - weight)
    return image.round().to(torch.uint8), weight.mean((1, 2, 3))


def _random(what: str, seed: int, epoch: int, row: int) -> np.random.Generator:
    import numpy as np

    return np.random.default_rng(seed_of(seed, what, epoch, row))
