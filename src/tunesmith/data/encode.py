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
    second: dict[str, list[int]] | None = None  # the other text of a row, where a base reads each on its own

    @property
    def length(self) -> int:
        """Tokens after the cut; of two texts read apart, those of the longer one."""
        return max(len(side["input_ids"]) for side in self.sides)

    @property
    def sides(self) -> tuple[dict[str, list[int]], ...]:
        """What the base reads in turn: one text, or two."""
        return (self.inputs,) if self.second is None else (self.inputs, self.second)


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them, on one device."""

    rows: tuple[int, ...]
    inputs: dict[str, Tensor]  # each [rows, tokens]; [2 rows, tokens] of two texts read apart: all first, all second
    target: Tensor | None  # [rows] for one class each, [rows, outputs] for numbers; None where a target is not known


def collate(examples: Sequence[Example], pad: dict[str, int], device: str = "cpu") -> Batch:
    """Pads on the right to the longest example. `pad` gives the filler of each input."""
    import torch

    longest = max(example.length for example in examples)
    sides = [side for one_side in zip(*(example.sides for example in examples), strict=True) for side in one_side]
    inputs = {
        name: torch.tensor(
            [side[name] + [filler] * (longest - len(side[name])) for side in sides], dtype=torch.long
        ).to(device)
        for name, filler in pad.items()
        if name in examples[0].inputs
    }
    known = all(example.target is not None for example in examples)
    target = torch.tensor([example.target for example in examples]).to(device) if known else None
    return Batch(tuple(example.row for example in examples), inputs, target)
