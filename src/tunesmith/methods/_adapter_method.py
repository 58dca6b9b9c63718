"""What methods share that put something beside linear maps, and keep it in PEFT's format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.methods._continued import Continued
from tunesmith.methods._groups import plan_for
from tunesmith.methods.base import Plan, Rates
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith.methods._beside import Beside
    from tunesmith.methods._peft_format import Adapter
    from tunesmith.models.network import Network


class AdapterMethod(Continued):
    """A subclass says on which linear maps, and what; everything else stays as it was pretrained, but for the head."""

    peft_type: ClassVar[str]
    mark: ClassVar[str]  # what PEFT's names of the stored tensors begin with, behind the layer's

    @abstractmethod
    def chosen(self, network: Network) -> tuple[str, ...]:
        """Names of the linear maps to change. Raises ModelError where there are none."""

    @abstractmethod
    def beside(self, name: str, base: nn.Module, network: Network) -> Beside:
        """The change on one of them as it begins, drawn from torch's generator."""

    @abstractmethod
    def read_beside(self, name: str, base: nn.Module, network: Network, stored: Mapping[str, Tensor]) -> Beside:
        """The change on one of them from what `Beside.stored` gave."""

    @abstractmethod
    def shapes(self, name: str, base: nn.Module, network: Network) -> dict[str, tuple[int, ...]]:
        """Of what `Beside.stored` gives."""

    @abstractmethod
    def peft_config(self, network: Network, found: Sequence[str]) -> dict[str, Any]:
        """PEFT's options of this kind. `found`: names of the changed maps inside what PEFT wraps."""

    @abstractmethod
    def unlike(self, config: Mapping[str, Any], folder: Path) -> list[str]:
        """What an adapter's config says that this method does not."""

    def prepare(self, network: Network) -> None:
        """Changes the base, in place, ahead of what stands beside it; nothing by default."""
        return

    def times(self, trained: Sequence[str]) -> dict[str, float]:
        """Parameters with another rate than the base's, as times that."""
        return {}

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        from tunesmith.methods._peft_format import read_adapter

        adapter = read_adapter(Path(self.start), network, self) if self.start is not None else None
        trained = self._put_on(network, seed, adapter)
        plan = plan_for(network, trained, rates, 0, self.times(trained))
        return plan if adapter is None else adapter.told(plan)

    def load(self, network: Network, folder: Path) -> None:
        from tunesmith.methods._peft_format import read_adapter

        adapter = read_adapter(folder, network, self)
        adapter.check_head(network)
        self._put_on(network, 0, adapter)

    def _put_on(self, network: Network, seed: int, adapter: Adapter | None) -> list[str]:
        """Changes the network in place; gives the names of what trains beside the base."""
        trained, chosen = [], self.chosen(network)
        self.prepare(network)
        for name in chosen:
            base = network.get_submodule(name)
            with torch_seed(seed, self.part_name(), name):
                layer = (
                    self.beside(name, base, network)
                    if adapter is None
                    else self.read_beside(name, base, network, adapter.stored[name])
                )
            put(network, name, layer)
            trained += [f"{name}.{own}" for own, _ in layer.named_parameters() if not own.startswith("base.")]
        if adapter is not None:
            adapter.put_head(network)
        return trained

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        from tunesmith.methods._peft_format import write_adapter

        write_adapter(folder, network, self)
        return True

    def fold(self, network: Network) -> None:
        from tunesmith.methods._beside import Beside

        for name, module in list(network.named_modules()):
            if isinstance(module, Beside):
                put(network, name, module.fuse())


def put(network: Network, name: str, module: nn.Module) -> None:
    """Puts a module in the place of the one called `name`."""
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, module)
