"""Where and in which number format a run computes; chosen by measuring, printed, and kept for resuming."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunesmith.recipe import TrainingSpec

WORTH_IT = 1.3  # bfloat16 must be this many times as fast: below, its rounding buys nothing


@dataclass(frozen=True)
class Runtime:
    """Device and number format of the weights in forward and backward; masters are float32 always."""

    device: str  # "cpu" or "cuda"
    precision: str  # "float32" or "bfloat16"
    why: str

    @property
    def dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def choose_runtime(training: TrainingSpec, width: int, convolutions: bool = False) -> Runtime:
    """The device asked for or present, and bfloat16 where it is measured to be fast on it.

    `convolutions`: the work is in these and not in matrix products. On a CPU they gain little (MobileNetV2: 1.25 times).

    Raises RecipeError when CUDA is asked for and there is none.
    """
    device = device_of(training)
    if training.precision != "auto":
        return Runtime(device, training.precision, "as asked")
    if convolutions and device == "cpu":
        return Runtime(device, "float32", "convolutions gain little from bfloat16 on a CPU")
    gain = bfloat16_gain(device, width)
    word = "bfloat16" if gain >= WORTH_IT else "float32"
    return Runtime(
        device, word, f"a bfloat16 matrix product measured {gain:.1f} times as fast as float32 on this {device}"
    )


def device_of(training: TrainingSpec) -> str:
    """The device asked for or present. Raises RecipeError when CUDA is asked for and there is none."""
    import torch

    if training.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("training.device: cuda was asked for, and torch sees no GPU here; use cpu or auto")
    if training.device != "auto":
        return training.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def bfloat16_gain(device: str, width: int) -> float:
    """How many times as fast as float32 a product of the run's own size is in bfloat16: best of 5 each, in turns.

    On a CPU its own seconds count, not the clock's, in which another program on the same cores would weigh as much.
    """
    import torch

    clock = time.perf_counter if device == "cuda" else time.process_time
    operands = {
        dtype: (
            torch.ones(512, width, dtype=dtype, device=device),
            torch.ones(4 * width, width, dtype=dtype, device=device),
        )
        for dtype in (torch.float32, torch.bfloat16)
    }
    times: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
    for _ in range(7):
        for dtype, (left, right) in operands.items():
            begun = clock()
            torch.nn.functional.linear(left, right)
            if device == "cuda":
                torch.cuda.synchronize()
            times[dtype].append(clock() - begun)
    return min(times[torch.float32][2:]) / max(min(times[torch.bfloat16][2:]), 1e-9)
