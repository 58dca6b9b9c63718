"""Batches on their way to a device: what is copied, and how."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tunesmith.data.encode import IGNORED, PIXELS, Example, collate
from tunesmith.data.words import Window

PAD = {"input_ids": 7, "attention_mask": 0}


def text(row: int, length: int, target: Any, window: Window | None = None) -> Example:
    return Example(row, {"input_ids": [*range(length)], "attention_mask": [1] * length}, target, window=window)


TEXTS = [text(0, 3, 1), text(1, 5, 0)]
TOKENS = [
    text(row, size, [IGNORED, *range(1, size)], Window(row, "", tuple(range(1, size))))
    for row, size in ((0, 2), (1, 4))
]
PICTURES = [Example(row, {PIXELS: torch.full((3, 4, 4), row, dtype=torch.uint8)}, row) for row in range(2)]
KINDS = [(TEXTS, PAD, 3), (TOKENS, PAD, 4), (PICTURES, {PIXELS: 0}, 2)]  # rows, filler, tensors of a batch


def tensors(batch: Any) -> list[Tensor]:
    return [value for value in (*batch.inputs.values(), batch.target, batch.counted) if value is not None]


@pytest.mark.parametrize(("rows", "pad", "count"), KINDS)
def test_to_a_gpu_all_goes_from_pinned_memory_and_nobody_waits(
    rows: list[Example], pad: dict[str, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by a stand-in for a GPU: what is pinned, and what is then asked of the copy."""
    pinned: list[int] = []
    copied: list[tuple[int, str, bool]] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(id(tensor))
        return tensor

    def to(tensor: Tensor, device: str, non_blocking: bool = False) -> Tensor:
        copied.append((id(tensor), device, non_blocking))
        return tensor

    plain = collate(rows, pad)
    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    moved = collate(rows, pad, "cuda:0")
    assert len(pinned) == count and copied == [(one, "cuda:0", True) for one in pinned]
    assert all(torch.equal(*pair) for pair in zip(tensors(plain), tensors(moved), strict=True))
    copied.clear()
    collate(rows, pad, "cpu")
    assert len(pinned) == count  # nothing more
    assert [(device, async_) for _, device, async_ in copied] == [("cpu", False)] * count


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("rows", "pad", "count"), KINDS)
def test_what_arrives_is_what_was_sent(rows: list[Example], pad: dict[str, int], count: int) -> None:
    plain = tensors(collate(rows, pad))
    several = [tensors(collate(rows, pad, "cuda")) for _ in range(100)]  # more than are pinned at once
    assert all(torch.equal(one, two.cpu()) for batch in several for one, two in zip(plain, batch, strict=True))
