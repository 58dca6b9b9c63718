"""From a row to numbers: Example (one row, plain lists) and Batch (padded tensors)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.data.words import Window
from tunesmith.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor


IGNORED = -100  # the target of a token that does not count: the number that torch and transformers leave out
PIXELS = "pixel_values"
PIXELS_A_TOKEN = 256  # a picture weighs as many tokens as it has patches of 16x16, the usual size
Text = str | tuple[str, ...]  # what a model reads of a row: one text, or several that belong together


@dataclass(frozen=True)
class Example:
    """One row, encoded. Pure data, so it can be cached and made in parallel."""

    row: int  # its place among the examples of its split; also the row of the table, but for windows
    inputs: dict[str, Any]  # model argument -> one integer per token; of a picture a uint8 tensor [3, height, width]
    target: Any  # what the task learns to give: a class index, numbers, one a token; None where it is not known
    cut: int = 0  # tokens of the text that the length limit took away
    second: dict[str, Any] | None = None  # the other text of a row, where a base reads each on its own
    window: Window | None = None  # where outputs are one a token: which of them count, and of which text
    rest: tuple[int, ...] = ()  # the first of the tokens cut, where these cannot be found by reading the text again
    more: tuple[dict[str, list[int]], ...] = ()  # further texts of a row, each read on its own like the second
    second_cut: int = 0  # tokens that the length limit took away from the second text, where they are counted apart
    unknown: int = 0  # tokens to be learned that stand for letters which the tokenizer does not know

    @property
    def length(self) -> int:
        """Tokens after the cut; of several texts read apart those of the longest; of a picture what it weighs in tokens."""
        return max(tokens_of(side) for side in self.sides)

    @property
    def sides(self) -> tuple[dict[str, Any], ...]:
        """What the base reads in turn: one text, two, or more."""
        return (self.inputs,) if self.second is None else (self.inputs, self.second, *self.more)

    @property
    def hidden(self) -> int:
        """Tokens of its own that the model is not shown: those that a table of word vectors does not know."""
        return sum(side["attention_mask"].count(0) for side in self.sides if "attention_mask" in side)

    @property
    def unread(self) -> bool:
        """Whether the model is shown nothing of a text."""
        return any(1 not in side["attention_mask"] for side in self.sides if "attention_mask" in side)

    @property
    def source(self) -> int:
        """The row of its split's table."""
        return self.row if self.window is None else self.window.source

    @property
    def units(self) -> int:
        """Outputs that count: one, or one a word."""
        return 1 if self.window is None else len(self.window.places)


class BadRows(DataError):
    """Rows that cannot be encoded: by the place of each in what was given, what is wrong with it."""

    def __init__(self, rows: Mapping[int, str]) -> None:
        super().__init__(*(f"entry {row}: {said}" for row, said in rows.items()))
        self.rows = dict(rows)


@dataclass(frozen=True)
class Batch:
    """Rows padded to the longest of them, on one device."""

    rows: tuple[int, ...]
    # Each [rows, tokens]; [2 rows, tokens] of two texts read apart: all first, all second ...
    inputs: dict[str, Tensor]
    # [rows] for one class each, [rows, outputs] for numbers, [rows, tokens] for one a token; None where one is not known
    target: Tensor | None
    counted: Tensor | None = None  # [rows, tokens] bool: where outputs are one a token, those that count
    version: int = 0  # which of several fixed versions of the rows this is; 0: as they are

    @property
    def tokens(self) -> int:
        """Padding included; of pictures what they weigh in tokens."""
        if "input_ids" in self.inputs:
            return self.inputs["input_ids"].numel()
        return sum(tokens_of({PIXELS: picture}) for picture in self.inputs[PIXELS])


def tokens_of(side: dict[str, Any]) -> int:
    """Tokens of one row's inputs, or what its picture weighs in tokens."""
    if "input_ids" in side:
        return len(side["input_ids"])
    _, height, width = side[PIXELS].shape
    return max(1, height * width // PIXELS_A_TOKEN)


def collate(examples: Sequence[Example], pad: dict[str, int], device: str = "cpu") -> Batch:
    """Pads on the right to the longest example. `pad` gives the filler of each input."""
    import torch

    if PIXELS in pad:
        return _collate_pictures(examples, device)
    longest = max(example.length for example in examples)
    sides = [side for one_side in zip(*(example.sides for example in examples), strict=True) for side in one_side]
    inputs = {
        name: on(
            device,
            torch.tensor([side[name] + [filler] * (longest - len(side[name])) for side in sides], dtype=torch.long),
        )
        for name, filler in pad.items()
        if name in examples[0].inputs
    }
    known = all(example.target is not None for example in examples)
    rows = tuple(example.row for example in examples)
    if examples[0].window is None:
        target = on(device, torch.tensor([example.target for example in examples])) if known else None
        return Batch(rows, inputs, target)
    counted = torch.zeros(len(rows), longest, dtype=torch.bool)
    target = torch.full((len(rows), longest), IGNORED)
    for place, example in enumerate(examples):
        counted[place, list(places_of(example))] = True
        if known:
            target[place, : len(example.target)] = torch.tensor(example.target)
    return Batch(rows, inputs, on(device, target) if known else None, on(device, counted))


def _collate_pictures(examples: Sequence[Example], device: str) -> Batch:
    import torch

    pixels = on(device, torch.stack([example.inputs[PIXELS] for example in examples]))  # [rows, 3, height, width] uint8
    known = all(example.target is not None for example in examples)
    target = on(device, torch.tensor([example.target for example in examples])) if known else None
    return Batch(tuple(example.row for example in examples), {PIXELS: pixels}, target)


def on(device: str, tensor: Tensor) -> Tensor:
    """A tensor of the CPU's on `device`: to a GPU from pinned memory, so that nobody waits until it is there.

    From ordinary memory the copy would first wait for all work that the GPU was given before. What is computed with it
    waits by itself, being given to the GPU later; torch gives the pinned memory to nobody else until the copy is done.
    """
    if not device.startswith("cuda"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def joined(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches as one, without their inputs: what a loss that couples rows is counted over."""
    import torch

    targets = [batch.target for batch in batches if batch.target is not None]
    target = torch.cat(targets) if len(targets) == len(batches) else None
    return Batch(tuple(row for batch in batches for row in batch.rows), {}, target)


def per_row(output: Tensor, rows: int) -> Tensor:
    """What was said of each text, all first ones and then all second ones, put together by row.

    [texts, ...] -> [rows, texts of a row, ...]; an output that is one a row already as it is.
    """
    if len(output) == rows:
        return output
    return output.unflatten(0, (-1, rows)).transpose(0, 1)


def places_of(example: Example) -> tuple[int, ...]:
    """The tokens of an example in windows whose outputs count."""
    assert example.window is not None
    return example.window.places


def by_unit(output: Tensor, batch: Batch) -> tuple[Tensor, list[int]]:
    """The outputs that count, [units, outputs], and the row of each: `output` itself, or those of single tokens."""
    if batch.counted is None:
        return output, list(batch.rows)
    units = batch.counted.sum(dim=1).tolist()
    return output[batch.counted], [row for row, count in zip(batch.rows, units, strict=True) for _ in range(count)]


def unit_rows(examples: Sequence[Example]) -> list[int]:
    """The row of every output that counts, in the order of the examples."""
    return [example.row for example in examples for _ in range(example.units)]


def unit_targets(examples: Sequence[Example]) -> Tensor:
    """The targets of every output that counts, in the order of the examples: [units] or [units, outputs]."""
    import torch

    if not examples or examples[0].window is None:
        return torch.tensor([example.target for example in examples])
    return torch.tensor([example.target[place] for example in examples for place in places_of(example)])


def windows(examples: Sequence[Example]) -> dict[int, Window]:
    """The windows of examples that are such, by the examples' rows; none otherwise."""
    if not examples or examples[0].window is None:
        return {}
    return {example.row: example.window for example in examples if example.window is not None}
