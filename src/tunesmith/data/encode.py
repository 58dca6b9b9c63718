"""From a row to numbers: Example (one row, plain lists) and Batch (padded tensors)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


Text = str | tuple[str, str]  # what a model reads of a row: one text, or two that belong together


@dataclass(frozen=True)
class Example:
    """One row, encoded. Pure data, so it can be cached and made in parallel."""

    row: int  # index into its split's table
    inputs: dict[str, list[int]]  # model argument -> one integer per token
    target: Any  # what the task learns to give: a class index, numbers ...; None where it is not known
    cut: int = 0  # tokens of the text that the length limit took away

    @property
    def length(self) -> int:
        """Tokens, after the cut."""
        return len(self.inputs["input_ids"])


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them, on one device."""

    rows: tuple[int, ...]
    inputs: dict[str, Tensor]  # each [rows, tokens]
    target: Tensor | None  # [rows] for one class each, [rows, outputs] for numbers; None where a target is not known


def collate(examples: Sequence[Example], pad: dict[str, int], device: str = "cpu") -> Batch:
    """Pads on the right to the longest example. `pad` gives the filler of each input."""
    import torch

    longest = max(example.length for example in examples)
    inputs = {
        name: torch.tensor(
            [example.inputs[name] + [filler] * (longest - example.length) for example in examples], dtype=torch.long
        ).to(device)
        for name, filler in pad.items()
        if name in examples[0].inputs
    }
    known = all(example.target is not None for example in examples)
    target = torch.tensor([example.target for example in examples]).to(device) if known else None
    return Batch(tuple(example.row for example in examples), inputs, target)
