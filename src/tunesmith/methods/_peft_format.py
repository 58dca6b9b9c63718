"""LoRA adapters in PEFT's on-disk format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tunesmith.methods.lora import Lora
    from tunesmith.models.network import Network

_PREFIX = "base_model.model."
_NOT_PLAIN = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "layer_replication", "lora_bias")


def write_adapter(folder: Path, network: Network, method: Lora) -> None:
    """Writes the adapter so that `peft.PeftModel.from_pretrained(base, folder)` opens it.

    Where the network is a transformers classifier, the head is inside, as PEFT keeps it. A head on a sentence
    encoder's pooling is no part of what PEFT wraps: it lies beside, in head.safetensors.
    """
    from safetensors.torch import save_file
    from transformers import PreTrainedModel
    from transformers.pytorch_utils import Conv1D

    from tunesmith.methods._lora_layer import LoraLinear

    root = wrapped(network)
    model = network.get_submodule(root.rstrip("."))
    assert isinstance(model, PreTrainedModel)
    tensors, transposed, found = {}, False, []
    for name, module in network.named_modules():
        if isinstance(module, LoraLinear):
            short = name.removeprefix(root)
            found.append(short)
            tensors[f"{_PREFIX}{short}.lora_A.weight"] = module.down.detach().float().cpu().contiguous()
            tensors[f"{_PREFIX}{short}.lora_B.weight"] = module.up.detach().float().cpu().contiguous()
            transposed = transposed or isinstance(module.base, Conv1D)
    parameters = dict(network.named_parameters())
    inside = sorted(name for name in network.fresh if name.startswith(root))
    outside = sorted(name for name in network.fresh if not name.startswith(root))
    for name in inside:
        tensors[_PREFIX + name.removeprefix(root)] = parameters[name].detach().float().cpu().contiguous()
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": ("TOKEN_CLS" if network.per_token else "SEQ_CLS") if inside else "FEATURE_EXTRACTION",
        "base_model_name_or_path": model.name_or_path,
        "r": method.rank,
        "lora_alpha": method.alpha,
        "lora_dropout": method.dropout,
        "target_modules": sorted(found),
        "fan_in_fan_out": transposed,
        "bias": "none",
        "inference_mode": True,
        "modules_to_save": sorted({name.removeprefix(root).split(".")[0] for name in inside}) or None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    if outside:
        head = {name.rpartition(".")[2]: parameters[name].detach().float().cpu().contiguous() for name in outside}
        save_file(head, folder / "head.safetensors")


def read_adapter(folder: Path, network: Network, method: Lora) -> dict[str, tuple[Tensor, Tensor]]:
    """(down, up) by module name in the network, from a folder that PEFT or `write_adapter` wrote.

    Raises ModelError, with every problem, when the adapter is no plain LoRA or does not fit the method or the model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"method.start: {folder} is not a PEFT adapter ({error}); it must hold adapter_config.json and "
            "adapter_model.safetensors"
        ) from None
    problems = _unlike(config, folder, method)
    root = wrapped(network)
    found = {root + key.removeprefix(_PREFIX).rpartition(".lora_")[0] for key in tensors if ".lora_" in key}
    wanted = set(method.matched(network.layout))
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        problems.append(
            f"method.start: {folder} changes other layers than the recipe (missing {missing[:3]}, beyond {extra[:3]}); "
            "set method.targets to the adapter's target_modules"
        )
    if problems:
        raise ModelError(*problems)
    pairs = {}
    for name in wanted:
        keys = [f"{_PREFIX}{name.removeprefix(root)}.lora_{letter}.weight" for letter in "AB"]
        for key, shape in zip(keys, _shapes(network.get_submodule(name), method.rank), strict=True):
            if key not in tensors or tuple(tensors[key].shape) != shape:
                has = f"has shape {tuple(tensors[key].shape)}" if key in tensors else "is not there"
                problems.append(
                    f"method.start: {folder}: {key} {has}, expected {shape}; it belongs to another base model"
                )
        if not problems:
            pairs[name] = (tensors[keys[0]], tensors[keys[1]])
    if problems:
        raise ModelError(*problems)
    return pairs


def _unlike(config: dict[str, Any], folder: Path, method: Lora) -> list[str]:
    """What an adapter's config says that the recipe does not, or that no plain LoRA has."""
    problems = [
        f"method.start: {folder} says {key} = {config.get(key)!r}, and the recipe {option} = {asked!r}; set method.{option}"
        for key, option, asked in (("r", "rank", method.rank), ("lora_alpha", "alpha", method.alpha))
        if config.get(key) != asked
    ]
    special = [key for key in _NOT_PLAIN if config.get(key)]
    special += [] if config.get("bias", "none") == "none" else ["bias"]
    if config.get("peft_type") != "LORA" or special:
        said = f"it sets {', '.join(special)}" if special else f"its peft_type is {config.get('peft_type')}"
        problems.append(f"method.start: {folder} is not a plain LoRA adapter ({said}); only that kind can be continued")
    return problems


def _shapes(base: nn.Module, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Of `down` and `up` on a linear map."""
    from tunesmith.methods._lora_layer import linear_shape

    inputs, outputs = linear_shape(base)
    return (rank, inputs), (outputs, rank)


def wrapped(network: Network) -> str:
    """The name, with a dot behind it, of the transformers model inside the network: what PEFT wraps."""
    return network.layout.body.partition(".")[0] + "."
