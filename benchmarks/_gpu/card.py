"""The GPU: its name, what it can do at most, its memory, and its clock."""

from __future__ import annotations

import time
from typing import Any

CUDA = "cuda"
SIDE = 8192  # of the square matrices whose product tells what the card can do
PRODUCTS = 20
# Dense bfloat16 matrix products with sums in float32, in TFLOP/s, of the makers' data sheets. The first that a name holds.
PUBLISHED = (
    ("H100 PCIe", 756.0), ("H100 NVL", 835.0), ("H100", 989.4), ("H200", 989.4), ("GH200", 989.4), ("B200", 2250.0),
    ("A100", 312.0), ("A40", 149.7), ("L40S", 362.0), ("L40", 181.0), ("L4", 121.0),
    ("RTX 4090", 165.2), ("RTX 3090", 71.0),
)  # fmt: skip


def describe(device: str) -> dict[str, Any]:
    """Name, memory, driver's and torch's CUDA, and the peak of bfloat16 products: as published, and as measured here."""
    import torch

    if device != CUDA:
        return {"name": "", "memory_gb": None, "published": None, "measured": measured_peak(device, 256, 3)}
    what = torch.cuda.get_device_properties(0)
    return {
        "name": what.name,
        "memory_gb": round(what.total_memory / 1e9, 1),
        "processors": what.multi_processor_count,
        "capability": f"{what.major}.{what.minor}",
        "cuda": torch.version.cuda,
        "published": published_peak(what.name),
        "measured": measured_peak(device, SIDE, PRODUCTS),
    }


def published_peak(name: str) -> float | None:
    """TFLOP/s; None of a card that is not known here."""
    return next((peak for part, peak in PUBLISHED if part in f"{name} "), None)


def measured_peak(device: str, side: int, times: int) -> float:
    """TFLOP/s of the fastest of some products of random matrices: zeros would flatter, they draw less power."""
    import torch

    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(times + 3):
        wait(device)
        begun = time.perf_counter()
        left @ right
        wait(device)
        best = min(best, time.perf_counter() - begun)
    return 2 * side**3 / best / 1e12


def wait(device: str) -> None:
    """Until all that the card was given is done."""
    import torch

    if device == CUDA:
        torch.cuda.synchronize()


def forget_peak(device: str) -> None:
    import torch

    if device == CUDA:
        torch.cuda.reset_peak_memory_stats()


def peak_gb(device: str) -> dict[str, float | None]:
    """What torch's tensors took at most, and what it held of the card for them."""
    import torch

    if device != CUDA:
        return {"peak_gb": None, "held_gb": None}
    return {
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2),
        "held_gb": round(torch.cuda.max_memory_reserved() / 1e9, 2),
    }


def empty(device: str) -> None:
    """Gives back what nobody holds any more."""
    import gc

    import torch

    gc.collect()
    if device == CUDA:
        torch.cuda.empty_cache()
