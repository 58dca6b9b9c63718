"""LoRA (Hu 2022): a low-rank change beside frozen linear maps, kept in PEFT's format."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunesmith.errors import ModelError, did_you_mean
from tunesmith.methods._groups import full_rate, head_rate, plan_for
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from tunesmith.methods._peft_format import Adapter
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network


class Lora(Method):
    """Low-rank maps on the chosen linear layers, and the head, train."""

    main_option: ClassVar[str | None] = "rank"
    epochs: ClassVar[int] = 5

    rank: Annotated[int, Field(ge=1)] = Field(default=16, description="rank of each change")
    alpha: Annotated[float, Field(gt=0)] = Field(default=32.0, description="the change is scaled by alpha / rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="on the input of each change")
    targets: tuple[str, ...] = Field(
        default=(),
        description="last parts of module names, such as query or dense; all linear layers of the blocks by default",
    )
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank) in place of alpha / rank")
    dora: bool = Field(default=False, description="the length of each output's weights trains apart from its direction")
    up_rate: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="rate of the second map, as times that of the first; LoRA+ takes 16"
    )
    initial: Literal["kaiming", "gaussian", "orthogonal", "pissa", "olora"] = Field(
        default="kaiming",
        description="how the first map starts; pissa and olora start both from the weight's own parts",
    )
    start: str | None = Field(
        default=None, description="folder of a PEFT LoRA adapter to go on from, and from its head"
    )

    def rates(self, width: int | None, steps: int) -> Rates:
        """Ten times the rate of full fine-tuning, 15 times under 100 steps, whatever the rank.

        Source: Schulman and Thinking Machines, "LoRA Without Regret" (2025); alpha 32 comes from there too. The head is a
        full matrix, so it keeps full fine-tuning's rate for heads.
        """
        times, base = (15 if steps < 100 else 10), full_rate(width)
        return Rates(
            times * base,
            head_rate(width),
            f"{times} * full's {base:g} for LoRA ({steps} steps), 5 times full's for the head",
        )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.start is not None and self.initial != "kaiming":
            raise ValueError(
                f"start: an adapter is gone on from as it is, so initial: {self.initial} has no use; keep one"
            )
        return self

    @property
    def scale(self) -> float:
        """What the low-rank change is multiplied by; by the root of the rank it keeps its size at any rank.

        rsLoRA: Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA", theorem 3.2.
        """
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    @property
    def from_weight(self) -> bool:
        """Whether the maps start as a part of the base's weight, which is taken off again beside them."""
        return self.initial in ("pissa", "olora")

    @property
    def stored_rank(self) -> int:
        """Of the adapter on disk, which holds what is taken off too."""
        return 2 * self.rank if self.from_weight else self.rank

    @property
    def stored_alpha(self) -> float:
        """By which the adapter on disk has the scale of this method."""
        return self.scale * (math.sqrt(self.stored_rank) if self.rslora else self.stored_rank)

    def averaged(self, name: str) -> bool:
        """All but `down`: the change is up @ down, and with both averaged it would be neither half nor along the same line.

        Of maps that start from the weight both: only both as they were at the start are no change.
        """
        return self.from_weight or name.rpartition(".")[2] != "down"

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        from tunesmith.methods._peft_format import read_adapter

        adapter = read_adapter(Path(self.start), network, self) if self.start is not None else None
        trained = self._put_on(network, seed, adapter)
        times = {name: self.up_rate for name in trained if name.endswith(".up")}
        plan = plan_for(network, trained, rates, 0, times)
        if adapter is None:
            return plan
        said = (f"method.start: {adapter.said}",)
        warned, notes = (said, ()) if adapter.left else ((), said)
        return replace(plan, started=frozenset(adapter.head), notes=notes, warnings=warned)

    def load(self, network: Network, folder: Path) -> None:
        from tunesmith.methods._peft_format import read_adapter

        adapter = read_adapter(folder, network, self)
        if adapter.head.keys() != network.fresh:
            raise ModelError(f"{adapter.said}; it cannot be used without")
        self._put_on(network, 0, adapter)

    def _put_on(self, network: Network, seed: int, adapter: Adapter | None) -> list[str]:
        """Changes the network in place; gives the names of the low-rank maps."""
        import torch

        from tunesmith.methods._lora_layer import LoraLinear, first_maps

        trained = []
        for name in self.chosen(network):
            parent, _, last = name.rpartition(".")
            base = network.get_submodule(name)
            if adapter is None:
                with torch_seed(seed, "lora", name):
                    maps, starts = first_maps(base, self.rank, self.initial, self.scale, self.dora)
            else:
                maps, starts = adapter.maps[name], False
            layer = LoraLinear(base, maps, self.scale, self.dropout, starts)
            setattr(network.get_submodule(parent), last, layer)
            trained += [f"{name}.{own}" for own, _ in layer.named_parameters() if not own.startswith("base.")]
        if adapter is not None:
            with torch.no_grad():
                for name, value in adapter.head.items():
                    network.get_parameter(name).copy_(value)
        return trained

    def chosen(self, network: Network) -> tuple[str, ...]:
        """The linear layers to change: those `matched`, less those that start untrained and train whole."""
        return tuple(name for name in self.matched(network.layout) if f"{name}.weight" not in network.fresh)

    def given_files(self) -> tuple[Path, ...]:
        from tunesmith.methods._peft_format import ADAPTER_FILES

        if self.start is None:
            return ()
        return tuple(path for name in ADAPTER_FILES if (path := Path(self.start) / name).is_file())

    def reading(self, folder: Path) -> Method:
        return self if self.start is None else self.model_copy(update={"start": str(folder)})

    def matched(self, layout: Layout) -> tuple[str, ...]:
        """The linear layers to change. Raises ModelError when there are none, or a target matches nothing."""
        if not layout.linears:
            raise ModelError(
                "method lora: this base has no linear layers inside its blocks; use full"
                + (", layers or head" if layout.blocks else " or head")
            )
        unmatched = [target for target in self.targets if not any(_ends_with(name, target) for name in layout.linears)]
        if unmatched:
            ends = {name.rpartition(".")[2] for name in layout.linears}
            raise ModelError(
                *(
                    f'method.targets: "{target}" matches no linear layer; {did_you_mean(target, ends)}'
                    for target in unmatched
                )
            )
        if not self.targets:
            return layout.linears
        return tuple(name for name in layout.linears if any(_ends_with(name, target) for target in self.targets))

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        from tunesmith.methods._peft_format import write_adapter

        write_adapter(folder, network, self)
        return True

    def fold(self, network: Network) -> None:
        from tunesmith.methods._lora_layer import LoraLinear

        for name, module in list(network.named_modules()):
            if isinstance(module, LoraLinear):
                parent, _, last = name.rpartition(".")
                setattr(network.get_submodule(parent), last, module.fuse())


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
