"""IA3 (Liu 2022): learned factors on keys, values and the inner activations of the frozen blocks, kept in PEFT's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tunesmith.errors import ModelError
from tunesmith.methods._adapter_method import AdapterMethod
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate
from tunesmith.methods._sublayers import is_inner, is_key_or_value
from tunesmith.methods.base import Rates

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith.methods._beside import Beside
    from tunesmith.models.network import Network


class Ia3(AdapterMethod):
    """A factor for every key, value and inner activation, and the head, train: the fewest parameters but for a head's."""

    epochs: ClassVar[int] = 10
    peft_type: ClassVar[str] = "IA3"
    mark: ClassVar[str] = "ia3_"

    def rates(self, width: int | None, steps: int) -> Rates:
        """30 times the rate of full fine-tuning: 3e-3 at width 384, that of Liu 2022 (T-Few, section 3.3)."""
        base = full_rate(width)
        return Rates(30 * base, head_rate(width), f"30 * full's {base:g} for the factors", HEAD_WHY)

    def chosen(self, network: Network) -> tuple[str, ...]:
        found = tuple(
            name
            for name in network.layout.linears
            if f"{name}.weight" not in network.fresh and (is_key_or_value(name) or is_inner(name, network))
        )
        if not found:
            layout = network.layout
            fitting = "lora, layers, norms, head or full" if layout.linears else "layers, norms, head or full"
            raise ModelError(
                "method ia3: this base has no keys, values or inner activations of blocks to put factors on; use "
                + (fitting if layout.blocks else "full or head")
            )
        return found

    def beside(self, name: str, base: nn.Module, network: Network) -> Beside:
        from tunesmith.methods._ia3_layer import Ia3Linear

        return Ia3Linear(base, is_inner(name, network))

    def read_beside(self, name: str, base: nn.Module, network: Network, stored: Mapping[str, Tensor]) -> Beside:
        from tunesmith.methods._ia3_layer import FACTOR, Ia3Linear

        return Ia3Linear(base, is_inner(name, network), stored[FACTOR].flatten())

    def shapes(self, name: str, base: nn.Module, network: Network) -> dict[str, tuple[int, ...]]:
        from tunesmith.methods._beside import linear_shape
        from tunesmith.methods._ia3_layer import FACTOR

        inputs, outputs = linear_shape(base)
        return {FACTOR: (1, inputs) if is_inner(name, network) else (outputs, 1)}

    def peft_config(self, network: Network, found: Sequence[str]) -> dict[str, Any]:
        inner = [name for name in self.chosen(network) if is_inner(name, network)]
        return {
            "feedforward_modules": sorted(short for short in found if any(name.endswith(f".{short}") for name in inner))
        }

    def unlike(self, config: Mapping[str, Any], folder: Path) -> list[str]:
        return []
