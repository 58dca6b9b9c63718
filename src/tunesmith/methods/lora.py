"""LoRA (Hu 2022): a low-rank change beside frozen linear maps, kept in PEFT's format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from tunesmith.errors import ModelError, did_you_mean
from tunesmith.methods._adapter_method import AdapterMethod
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate
from tunesmith.methods.base import Findings, Plan, Rates

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith.methods._beside import Beside
    from tunesmith.models.layout import Layout
    from tunesmith.models.network import Network

# Options of PEFT's LoraConfig (0.21) that make the change another function than scale * up(down(x)).
_NOT_PLAIN = (
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "lora_bias",
    "trainable_token_indices",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
# The starts that leave the base as it is. Others (pissa, olora, corda, loftq, lora_ga ...) take a part out of its weights.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")

BITS_A_PARAMETER = 2
LEAST_RANK, MOST_RANK = 8, 256  # that `auto` takes


class Lora(AdapterMethod):
    """Low-rank maps on the chosen linear layers, and the head, train."""

    main_option: ClassVar[str | None] = "rank"
    peft_type: ClassVar[str] = "LORA"
    mark: ClassVar[str] = "lora_"
    epochs: ClassVar[int] = 5

    rank: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        default="auto", description="rank of each change; auto: by how much the training rows have to teach"
    )
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
    quantised: Literal["no", "nf4", "nf4_double"] = Field(
        default="no",
        description="keep the weights of all linear maps of the blocks in 4 bits (QLoRA); nf4_double: their scales in 8 bits",
    )

    def rates(self, width: int | None, steps: int) -> Rates:
        """Ten times the rate of full fine-tuning, 15 times under 100 steps, whatever the rank.

        Source: Schulman and Thinking Machines, "LoRA Without Regret" (2025); alpha 32 comes from there too. The head is a
        full matrix, so it keeps full fine-tuning's rate for heads. With `up_rate` (LoRA+, Hayou 2024, arXiv 2402.12354) the
        first map's is that over its root: the geometric mean of both maps' rates stays, and neither grows 16 times.
        """
        times, base = (15 if steps < 100 else 10), full_rate(width)
        apart = "" if self.up_rate == 1 else f" / the root of method.up_rate = {self.up_rate:g}"
        return Rates(
            times * base / math.sqrt(self.up_rate),
            head_rate(width),
            f"{times} * full's {base:g}{apart} for LoRA ({steps} steps)",
            HEAD_WHY,
        )

    @model_validator(mode="after")
    def _one_start(self) -> Self:
        if self.start is not None and self.initial != "kaiming":
            raise ValueError(
                f"start: an adapter is gone on from as it is, so initial: {self.initial} has no use; keep one"
            )
        if self.quantised != "no" and self.from_weight:
            raise ValueError(
                f"initial: {self.initial} takes parts out of the weights, and what is left would have to be kept in 4 bits "
                "with those in mind (LoftQ), which is not done here; leave initial or quantised out"
            )
        return self

    def check_libraries(self) -> None:
        from tunesmith.methods._nf4_layer import check_bitsandbytes

        if self.quantised != "no":
            check_bitsandbytes()

    @property
    def alters(self) -> bool:
        return self.quantised != "no"

    @property
    def undecided(self) -> str:
        return "rank" if self.rank == "auto" else ""

    def decided(self, findings: Findings) -> tuple[int, str]:
        """The least power of two at which the maps hold what there is to learn, from 8 to 256; of a start its own rank.

        2 bits a parameter: Allen-Zhu & Li 2024, "Physics of language models: part 3.3" (arXiv 2404.05405), section 3, as
        Schulman and Thinking Machines, "LoRA Without Regret" (2025), size adapters. The head holds some of it too, which is
        not counted. 8 at least: docs/log.md, "The rank of LoRA".
        """
        if self.start is not None:
            from tunesmith.methods._peft_format import rank_in

            return rank_in(Path(self.start)), f"that of the adapter in {self.start}"
        from tunesmith.methods._beside import linear_shape

        network = findings.network
        shapes = [linear_shape(network.get_submodule(name)) for name in self.chosen(network)]
        bits, why = findings.information()
        wanted = max(1, math.ceil(bits / BITS_A_PARAMETER / sum(map(sum, shapes))))
        # More than the smallest map has would add nothing to it.
        most = min(MOST_RANK, 2 ** math.floor(math.log2(min(map(min, shapes)))))
        rank = min(max(LEAST_RANK, 2 ** math.ceil(math.log2(wanted))), most)
        bound = f", {LEAST_RANK} at least" if rank > wanted and rank == LEAST_RANK else ""
        bound = f", {most} at most: give a higher one if it learns too little" if wanted > most else bound
        return rank, (
            f"the training rows teach about {_round(bits)} bits ({why}), which rank {wanted} holds at {BITS_A_PARAMETER} "
            f"bits in each of its parameters{bound}"
        )

    @property
    def known_rank(self) -> int:
        """Raises ModelError where it is still to be found."""
        if self.rank == "auto":
            raise ModelError("method.rank: auto chooses by training rows, which there are none of here; give a number")
        return self.rank

    @property
    def scale(self) -> float:
        """What the low-rank change is multiplied by; by the root of the rank it keeps its size at any rank.

        rsLoRA: Kalajdzievski 2023, "A rank stabilization scaling factor for fine-tuning with LoRA", theorem 3.2.
        """
        return self.alpha / (math.sqrt(self.known_rank) if self.rslora else self.known_rank)

    @property
    def from_weight(self) -> bool:
        """Whether the maps start as a part of the base's weight, which is taken off again beside them."""
        return self.initial in ("pissa", "olora")

    @property
    def stored_rank(self) -> int:
        """Of the adapter on disk, which holds what is taken off too."""
        return 2 * self.known_rank if self.from_weight else self.known_rank

    @property
    def stored_alpha(self) -> float:
        """By which the adapter on disk has the scale of this method."""
        return self.scale * (math.sqrt(self.stored_rank) if self.rslora else self.stored_rank)

    def averaged(self, name: str) -> bool:
        """All but `down`: the change is up @ down, and with both averaged it would be neither half nor along the same line.

        Of maps that start from the weight both: only both as they were at the start are no change.
        """
        return self.from_weight or name.rpartition(".")[2] != "down"

    def times(self, trained: Sequence[str]) -> dict[str, float]:
        return {name: self.up_rate for name in trained if name.endswith(".up")}

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        plan = super().attach(network, rates, seed)
        if self.quantised == "no":
            return plan
        from tunesmith.methods._nf4_layer import size_line

        said = (
            "what is delivered is the change on what NF4 gives back: model/ holds both, and adapter/ fits no other base"
        )
        return replace(plan, notes=(*plan.notes, f"method.quantised: {size_line(network)}; {said}"))

    def prepare(self, network: Network) -> None:
        """All linear maps of the blocks go to 4 bits, also those that no change stands beside: memory is what it is for."""
        if self.quantised == "no":
            return
        from tunesmith.methods._nf4_layer import pack

        self.check_libraries()
        names = [name for name in network.layout.linears if f"{name}.weight" not in network.fresh]
        pack(network, names, self.quantised == "nf4_double")

    def fold(self, network: Network) -> None:
        if self.quantised != "no":
            from tunesmith.methods._nf4_layer import unpack

            unpack(network)
        super().fold(network)

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        from tunesmith.methods._nf4_layer import adapter_note

        saved = super().save(network, plan, folder)
        if self.quantised != "no":
            note = adapter_note(self.quantised == "nf4_double")
            (folder / "README.md").write_text(note, encoding="utf-8")
        return saved

    def beside(self, name: str, base: nn.Module, network: Network) -> Beside:
        from tunesmith.methods._beside import linear_shape
        from tunesmith.methods._lora_layer import LoraLinear, first_maps

        if self.from_weight and self.known_rank > min(linear_shape(base)):
            raise ModelError(
                f"method.rank: initial: {self.initial} starts from {self.known_rank} parts of each weight, and {name} has "
                f"{min(linear_shape(base))}; give at most that"
            )
        maps, starts = first_maps(base, self.known_rank, self.initial, self.scale, self.dora)
        return LoraLinear(base, maps, self.scale, self.dropout, starts)

    def read_beside(self, name: str, base: nn.Module, network: Network, stored: Mapping[str, Tensor]) -> Beside:
        from tunesmith.methods._lora_layer import DOWN, MAGNITUDE, UP, LoraLinear, Maps

        return LoraLinear(base, Maps(stored[DOWN], stored[UP], stored.get(MAGNITUDE)), self.scale, self.dropout)

    def shapes(self, name: str, base: nn.Module, network: Network) -> dict[str, tuple[int, ...]]:
        from tunesmith.methods._beside import linear_shape
        from tunesmith.methods._lora_layer import DOWN, MAGNITUDE, UP

        inputs, outputs = linear_shape(base)
        found: dict[str, tuple[int, ...]] = {DOWN: (self.stored_rank, inputs), UP: (outputs, self.stored_rank)}
        return {**found, MAGNITUDE: (outputs,)} if self.dora else found

    def peft_config(self, network: Network, found: Sequence[str]) -> dict[str, Any]:
        return {
            "r": self.stored_rank,
            "lora_alpha": self.stored_alpha,
            "use_rslora": self.rslora,
            "use_dora": self.dora,
            "lora_dropout": self.dropout,
            "bias": "none",
        }

    def unlike(self, config: Mapping[str, Any], folder: Path) -> list[str]:
        """What an adapter's config says that the recipe does not, or that no plain LoRA has."""
        asked_for = (
            ("r", "rank", None, self.stored_rank),
            ("lora_alpha", "alpha", None, self.stored_alpha),
            ("use_rslora", "rslora", False, self.rslora),
            ("use_dora", "dora", False, self.dora),
        )
        problems = [
            f"method.start: {folder} says {key} = {said!r}, and the recipe {option} = {asked!r}; set method.{option}"
            for key, option, usual, asked in asked_for
            if (said := config.get(key, usual)) != asked
        ]
        started = config.get("init_lora_weights")
        if started not in _PLAIN_STARTS:
            problems.append(
                f"method.start: {folder} began with init_lora_weights = {started!r}, which changes the base's own weights, "
                "so it does not fit the base as it is; let PEFT convert it (path_initial_model_for_weight_conversion) or "
                "merge it"
            )
        special = [key for key in _NOT_PLAIN if config.get(key)]
        special += [] if config.get("bias", "none") == "none" else ["bias"]
        if special:
            problems.append(
                f"method.start: {folder} is not a plain LoRA adapter (it sets {', '.join(special)}); only that kind can be "
                "continued"
            )
        return problems

    def chosen(self, network: Network) -> tuple[str, ...]:
        """The linear layers to change: those `matched`, less those that start untrained and train whole."""
        return tuple(name for name in self.matched(network.layout) if f"{name}.weight" not in network.fresh)

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


def _ends_with(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _round(bits: float) -> str:
    """Two digits: more would promise too much."""
    return f"{float(f'{bits:.2g}'):,.0f}"
