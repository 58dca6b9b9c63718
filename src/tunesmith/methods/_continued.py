"""What methods share that can go on from an adapter's folder: which files that are, and what became of its head."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from tunesmith.errors import ModelError
from tunesmith.methods.base import Method, Plan

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "head.safetensors", "labels.json")
START: Any = Field(  # pydantic types a field's description as the value it describes
    default=None, description="folder of a PEFT adapter of this kind to go on from, and from its head"
)


class Continued(Method):
    """A subclass reads such a folder on attaching."""

    start: str | None = START

    def given_files(self) -> tuple[Path, ...]:
        if self.start is None:
            return ()
        return tuple(path for name in ADAPTER_FILES if (path := Path(self.start) / name).is_file())

    def reading(self, folder: Path) -> Method:
        return self if self.start is None else self.model_copy(update={"start": str(folder)})


@dataclass(frozen=True)
class Kept:
    """The head that an adapter's folder holds for a network."""

    head: dict[str, Tensor]  # values of all fresh parameters; empty where the folder's head is not for this network
    said: str  # what became of the head, and why
    left: bool  # whether there is a head that is left aside

    def check_head(self, network: Network) -> None:
        """Raises ModelError where the network's own head is not whole in it: such an adapter cannot be used alone."""
        if self.head.keys() != network.fresh:
            raise ModelError(f"{self.said}; it cannot be used without")

    def put_head(self, network: Network) -> None:
        """Puts the head on the network, in place."""
        import torch

        with torch.no_grad():
            for name, value in self.head.items():
                network.get_parameter(name).copy_(value)

    def told(self, plan: Plan) -> Plan:
        """The plan of a method that goes on from it."""
        said = (f"method.start: {self.said}",)
        warned, notes = (said, ()) if self.left else ((), said)
        return replace(plan, started=frozenset(self.head), notes=notes, warnings=warned)
