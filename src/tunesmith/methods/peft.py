"""Any tuner of the library PEFT that is put beside layers and can be merged: VeRA, LoHa, LoKr, OFT, BOFT, HRA and so on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from tunesmith.errors import ModelError, RecipeError, did_you_mean
from tunesmith.methods._adapter_method import put
from tunesmith.methods._groups import HEAD_WHY, full_rate, head_rate, plan_for
from tunesmith.methods._peft_format import HEAD, PREFIX, WEIGHTS, plain, wrapped, write_head
from tunesmith.methods.base import Method, Plan, Rates
from tunesmith.seeds import torch_seed

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

NAME = "default"  # of the adapter, as PEFT calls one that nobody named
# Kinds of which there is a method here, in PEFT's format too.
OWN = {
    "LORA": "lora", "IA3": "ia3", "PROMPT_TUNING": "prompt", "P_TUNING": "p_tuning", "PREFIX_TUNING": "prefix",
}  # fmt: skip
UNFIT = (
    "ADALORA", "ADAPTION_PROMPT", "CARTRIDGE", "CPT", "MULTITASK_PROMPT_TUNING", "POLY", "SHADOW", "TRAINABLE_TOKENS",
    "XLORA",
)  # kinds that PEFT does not put beside layers, or that need more than a base, or calls from the loop (AdaLoRA)  # fmt: skip
SAME = 1e-5  # share of the largest hidden state by which rounding may part the base from one with a tuner on it
INSTEAD = "change its options, or use lora, full or head"
# Options of PEFT's that say what is trained, or for what: Tunesmith's own to say.
TAKEN = (
    "layers_to_transform",
    "layers_pattern",
    "peft_type",
    "task_type",
    "modules_to_save",
    "inference_mode",
    "base_model_name_or_path",
    "revision",
)


class Peft(Method):
    """PEFT's tuner on the linear layers of the blocks, and the head, train.

    Options that are none of ours are PEFT's own: `{peft: VERA, r: 64}`. Nearly all kinds begin as the base; a run says where
    one does not.
    """

    main_option: ClassVar[str | None] = "kind"
    epochs: ClassVar[int] = 5

    kind: str = Field(description="PEFT's name of it, such as VERA, LOHA, LOKR, OFT, BOFT or HRA")
    options: dict[str, Any] = Field(default_factory=dict, description="options of PEFT's config of that kind")

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        own = {name: value for name, value in given.items() if name in cls.model_fields}
        rest = {name: value for name, value in given.items() if name not in cls.model_fields}
        if "peft" in rest and "kind" not in own:  # as a recipe has it: {peft: VERA, r: 64}
            own["kind"] = rest.pop("peft")
        if isinstance(own.get("kind"), str):
            own["kind"] = own["kind"].upper()
        inside = own.get("options", {})
        if not isinstance(inside, Mapping):
            raise ValueError("options: expected a mapping of PEFT's options")
        twice = sorted(set(inside) & set(rest))
        if twice:
            raise ValueError(f"{twice[0]}: is given twice, in options and beside them; keep one")
        return {**own, "options": {**inside, **rest}} if rest else own

    def rates(self, width: int | None, steps: int) -> Rates:
        """Ten times the rate of full fine-tuning, as for LoRA, of which most kinds are relatives; head: full's own.

        It is not measured for each kind: those that train scales of fixed maps (VeRA) may want more.
        """
        base = full_rate(width)
        why = f"10 * full's {base:g}, as for LoRA (kinds differ: try others)"
        return Rates(10 * base, head_rate(width), why, HEAD_WHY)

    def attach(self, network: Network, rates: Rates, seed: int) -> Plan:
        """Raises RecipeError for options that PEFT does not know, and ModelError for what it refuses on this base."""
        before = _given(network)
        root = self._put_on(network, seed)
        moved = float((_given(network) - before).abs().max()) / max(1.0, float(before.abs().max()))
        added = [
            name
            for name, parameter in network.named_parameters()
            if parameter.requires_grad and name.startswith(root) and name not in network.fresh
        ]
        if not added:
            raise ModelError(f"method peft: {self.kind} finds nothing to train on this base; {INSTEAD}")
        plan = replace(plan_for(network, added, rates, cut=0), single=_fixed(network, self.kind))
        if moved < SAME:
            return plan
        said = f"method.peft: {self.kind} does not begin as the base: what that gives is another by {moved:.1g} of its size"
        return replace(plan, warnings=(f"{said}; look for an option of PEFT's that says how it starts",))

    def averaged(self, name: str) -> bool:
        """None: what half of a tuner's numbers do is another thing for each kind."""
        return False

    def save(self, network: Network, plan: Plan, folder: Path) -> bool:
        """Writes what PEFT opens beside the base, and the head, which it does not wrap, beside that.

        Kinds whose layers share what they train are kept by PEFT in its own wrapper alone: of these there is model/ only.
        """
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        config = self._config(network)
        if _tuner(config).uses_shared_state:
            return False
        config.inference_mode = True
        config.base_model_name_or_path = None if network.source is None else network.source.public_name
        folder.mkdir(parents=True, exist_ok=True)
        config.save_pretrained(str(folder))
        root: Any = network.get_submodule(wrapped(network).rstrip("."))
        found = get_peft_model_state_dict(root, adapter_name=NAME)
        save_file({f"{PREFIX}{name}": plain(value).clone() for name, value in found.items()}, folder / WEIGHTS)
        write_head(folder, network)
        return True

    def load(self, network: Network, folder: Path) -> None:
        import torch
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        root: Any = network.get_submodule(self._put_on(network, 0).rstrip("."))
        tensors = {name.removeprefix(PREFIX): value for name, value in load_file(folder / WEIGHTS).items()}
        left = set_peft_model_state_dict(root, tensors, adapter_name=NAME).unexpected_keys
        head = load_file(folder / HEAD) if network.fresh else {}
        if left or head.keys() != network.fresh:
            raise ModelError(f"{folder}: this adapter belongs to another base or head")
        with torch.no_grad():
            for name, value in head.items():
                network.get_parameter(name).copy_(value)

    def fold(self, network: Network) -> None:
        for name, layer in _layers(network).items():
            layer.merge()
            put(network, name, layer.get_base_layer())
        vars(network.get_submodule(wrapped(network).rstrip("."))).pop("peft_config", None)

    def _put_on(self, network: Network, seed: int) -> str:
        """Changes the network in place; gives what the names begin with of all that PEFT could change."""
        config, root = self._config(network), wrapped(network)
        with torch_seed(seed, "peft"), _refusals(self.kind):
            _tuner(config)(network.get_submodule(root.rstrip(".")), config, adapter_name=NAME)
            _try_merging(network)
        lost = network.fresh - {name for name, _ in network.named_parameters()}
        if lost:
            raise ModelError(
                f"method.target_modules: {min(lost)} is of the head, which trains whole; name layers of the base"
            )
        network.to(network.sample.device)
        return root

    def _config(self, network: Network) -> Any:
        """PEFT's config of this kind, for the layers of this base."""
        made = _config_class(self.kind)
        known = {item.name for item in dataclasses.fields(made) if item.init} - set(TAKEN)
        problems = [
            f"method.{name}: {self.kind} has no such option in PEFT, or Tunesmith says it itself; {did_you_mean(name, known)}"
            for name in self.options
            if name not in known
        ]
        if problems:
            raise RecipeError(*problems)
        options = dict(self.options)
        if "target_modules" in known and "target_modules" not in options:
            options["target_modules"] = self._targets(network)
        try:
            return made(**options)
        except (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise RecipeError(f"method.peft: PEFT refuses these options of {self.kind} ({_line(error)})") from None

    def _targets(self, network: Network) -> list[str]:
        """Norms for the kind that tunes these, else the linear layers of the blocks; names inside what PEFT changes."""
        layout, root = network.layout, wrapped(network)
        found = layout.norms if self.kind == "LN_TUNING" else layout.linears
        names = [name.removeprefix(root) for name in found if f"{name}.weight" not in network.fresh]
        if not names:
            what = "norms" if self.kind == "LN_TUNING" else "linear layers"
            raise ModelError(f"method peft: this base has no {what} for {self.kind}; use full or head")
        return names


def _given(network: Network) -> Tensor:
    """What the base gives for the smallest inputs there are; of an encoder-decoder its encoder."""
    import torch

    from tunesmith.models.layout import example_inputs
    from tunesmith.models.soft_prompt import body_of

    body = body_of(network)
    body = network.get_submodule(network.layout.body) if body is None else body
    training = body.training
    body.eval()
    with torch.no_grad():
        found = body(**example_inputs(body)).last_hidden_state.float()
    body.train(training)
    return found


def _config_class(kind: str) -> Any:
    """Raises RecipeError for a kind that is not PEFT's, is a method here, or is none that stands beside layers."""
    try:
        from peft import PEFT_TYPE_TO_CONFIG_MAPPING
        from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
    except ImportError:
        raise RecipeError('method.kind: needs the library PEFT; install it: pip install "tunesmith[peft]"') from None
    if kind in OWN:
        raise RecipeError(f"method.kind: {kind} is a method here, in PEFT's format too; use --method {OWN[kind]}")
    fit = {item.value for item in PEFT_TYPE_TO_TUNER_MAPPING if item.value not in (*OWN, *UNFIT)}
    if kind not in fit:
        raise RecipeError(
            f"method.kind: {kind!r} is no kind of PEFT's that goes beside layers; {did_you_mean(kind, fit)}"
        )
    return next(made for item, made in PEFT_TYPE_TO_CONFIG_MAPPING.items() if item.value == kind)


def _tuner(config: Any) -> Any:
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    return PEFT_TYPE_TO_TUNER_MAPPING[config.peft_type]


def _layers(network: Network) -> dict[str, Any]:
    """What PEFT put in the place of the base's layers, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in network.named_modules() if isinstance(module, BaseTunerLayer)}


def _try_merging(network: Network) -> None:
    """Merges a copy of the first layer that PEFT changed, so that what cannot be delivered is refused before it trains."""
    for layer in [*_layers(network).values()][:1]:
        copy.deepcopy(layer).merge()


@contextmanager
def _refusals(kind: str) -> Iterator[None]:
    """What PEFT refuses, in our words."""
    try:
        yield
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"method peft: PEFT refuses {kind} with these options on this base ({_line(error)}); {INSTEAD}"
        ) from None


def _fixed(network: Network, kind: str) -> str:
    """Why such layers compute in float32 alone; "" where they take any format."""
    fixed = any(value.is_floating_point() for layer in _layers(network).values() for value in layer.buffers())
    return f"PEFT keeps fixed matrices of {kind} in float32" if fixed else ""


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
