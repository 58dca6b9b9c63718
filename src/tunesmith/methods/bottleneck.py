"""Bottleneck adapters (Houlsby 2019, Pfeiffer 2021): two narrow maps behind the sublayers of frozen blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.errors import ModelError
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate, plan_for
from tunesmith.methods._sublayers import ends_attention, is_inner, is_key_or_value
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from tunesmith.models.network import Network

WEIGHTS = "adapter.safetensors"


class Bottleneck(Method):
    """Two narrow maps behind attention and feed-forward of every block, and the head, train.

    They stand where Houlsby 2019 puts them, before the bridge around the sublayer; the norms of the blocks stay frozen, which
    are trained there. `pfeiffer` is their second half alone: Pfeiffer 2021 ("AdapterFusion") puts it behind bridge and norm.

    They cannot be made part of the base's own weights, so the model needs Tunesmith where it is used.
    """

    main_option: ClassVar[str | None] = "size"
    epochs: ClassVar[int] = 5
    folds: ClassVar[bool] = False

    size: Annotated[int, Field(ge=1)] = Field(default=64, description="width between the two maps")
    kind: Literal["houlsby", "pfeiffer"] = Field(
        default="houlsby", description="behind attention and feed-forward, or behind feed-forward alone"
    )

    def rates(self, width: int | None, steps: int) -> Rates:
        """30 times the rate of full fine-tuning, 3e-3 at width 384; head: full's own.

        Houlsby 2019 (section 3.2) searches 3e-5, 3e-4 and 3e-3 for BERT. Of 3e-4, 1e-3 and 3e-3 the last had the lowest
        validation loss on Banking77 with MiniLM (docs/log.md).
        """
        base = full_rate(width)
        return Rates(30 * base, head_rate(width), f"30 * full's {base:g} for the adapters", HEAD_WHY)

    def chosen(self, network: Network) -> tuple[str, ...]:
        """Names of the linear maps that end a sublayer. Raises ModelError where there are none."""
        found = tuple(
            name
            for name in network.layout.linears
            if f"{name}.weight" not in network.fresh
            and not is_key_or_value(name)
            and (is_inner(name, network) or (self.kind == "houlsby" and ends_attention(name, network)))
        )
        if not found:
            raise ModelError(
                "method bottleneck: this base has no blocks of attention and feed-forward to put adapters into; use "
                + ("layers, norms, head or full" if network.layout.blocks else "full or head")
            )
        return found

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        return plan_for(network, self._put_on(network, seed), rates, cut=0)

    def averaged(self, name: str) -> bool:
        """The second maps alone: without these nothing is added, whatever the first ones are."""
        return name.rpartition(".")[0].endswith(".up")

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        from safetensors.torch import save_file

        parameters = dict(network.named_parameters())
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: parameters[name].detach().float().cpu().contiguous() for name in plan.trainable}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        return True

    def load(self, network: Network, folder: Path) -> None:
        import torch
        from safetensors.torch import load_file

        tensors = load_file(folder / WEIGHTS)
        added = self._put_on(network, 0)
        parameters = dict(network.named_parameters())
        missing = sorted({*added, *network.fresh} - tensors.keys())
        unlike = sorted(
            name for name, value in tensors.items() if name not in parameters or value.shape != parameters[name].shape
        )
        if missing or unlike:
            raise ModelError(
                f"{folder}: these adapters belong to another base or head (missing {missing[:3]}, beyond or of another shape "
                f"{unlike[:3]})"
            )
        with torch.no_grad():
            for name, value in tensors.items():
                parameters[name].copy_(value)

    def take_off(self, network: Network) -> None:
        from tunesmith.methods._adapter_method import put
        from tunesmith.methods._bottleneck_layer import BottleneckLinear

        for name, module in list(network.named_modules()):
            if isinstance(module, BottleneckLinear):
                put(network, name, module.base)

    def _put_on(self, network: Network, seed: int) -> list[str]:
        """Changes the network in place; gives the names of what trains in the adapters."""
        from tunesmith.methods._adapter_method import put
        from tunesmith.methods._bottleneck_layer import BottleneckLinear

        added = []
        for name in self.chosen(network):
            base = network.get_submodule(name)
            with torch_seed(seed, "bottleneck", name):
                layer = BottleneckLinear(base, self.size)
            put(network, name, layer.to(network.sample.device))
            added += [f"{name}.{own}" for own, _ in layer.named_parameters() if not own.startswith("base.")]
        return added
