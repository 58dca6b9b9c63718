"""What turns a row into a base's inputs, be it text or pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


class Processor(ABC):
    """`max_length` is how many tokens the model was made for and `why` says where that is from; `positions` is the most
    that it can take at all. `pad` is the filler of each model input. `pictures`: whether it reads pictures, not text.
    """

    max_length: int
    why: str
    positions: int
    pad: dict[str, int]
    apart: bool  # whether two texts of a row are read each on its own
    pictures: bool = False
    added: Mapping[int, list[int]] = MappingProxyType({})  # words made tokens of their own: what each was before
    skipped: int | None = None  # the token of unknown words, where these are hidden from the model

    @property
    def hides(self) -> bool:
        """Whether tokens of a text may be hidden from the model."""
        return self.skipped is not None

    def reserve(self, count: int) -> None:
        """Leaves so many of the model's positions to what is no text; pictures have none."""
        return

    @abstractmethod
    def fingerprint(self) -> str:
        """sha256, in hex, of all that decides which numbers a row becomes."""

    @abstractmethod
    def encode(self, text: Any, max_length: int) -> tuple[dict[str, Any], int]:
        """One row of each model input, and how many of the text's own tokens did not fit into `max_length`."""

    @abstractmethod
    def encode_all(self, texts: Sequence[Any], max_length: int) -> list[tuple[dict[str, Any], int]]:
        """`encode` of many."""

    @abstractmethod
    def tokens(self, inputs: dict[str, Any]) -> list[str]:
        """What the model reads of one row, in words."""

    @abstractmethod
    def ready(self, inputs: dict[str, Tensor], like: Tensor) -> dict[str, Tensor]:
        """A batch as the model itself takes it; numbers that are no token numbers in the format of `like`."""

    @abstractmethod
    def save(self, folder: Path, limit: int) -> None:
        """Writes it for transformers; a saved tokenizer cuts at `limit` tokens."""
