"""What every meter of forgetting is: something that the untouched base knew, and how much of it a network has lost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from tunesmith.models.network import Network


@dataclass(frozen=True)
class Reading:
    """What a meter says of a network."""

    lost: float  # share of what the base knew, as `Meter.loses` says; negative where there is more of it
    said: str  # in words, with both figures


class Meter(ABC):
    """A subclass measures the untouched base when it is made, and every network of the same body after."""

    loses: ClassVar[str]  # what `Reading.lost` is a share of: "accuracy on the probe"

    @property
    @abstractmethod
    def rows(self) -> int:
        """How many texts or pictures it reads."""

    @property
    def least(self) -> float:
        """The smallest loss that it can tell from none; 0 where there is no such."""
        return 0.0

    @property
    @abstractmethod
    def tokens(self) -> frozenset[int]:
        """The token numbers that it reads: a network whose table is without one of them cannot be measured."""

    @abstractmethod
    def read(self, network: Network) -> Reading:
        """Of the network as it stands, which is put in evaluation mode."""
