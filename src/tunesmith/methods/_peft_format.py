"""Adapters on linear maps in PEFT's on-disk format: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.methods._continued import ADAPTER_FILES, Kept

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from tunesmith.methods._adapter_method import AdapterMethod
    from tunesmith.models.network import Network

CONFIG, WEIGHTS, HEAD, LABELS = ADAPTER_FILES
PREFIX = "base_model.model."  # before the names of PEFT's tensors


@dataclass(frozen=True)
class Adapter(Kept):
    """What an adapter's folder holds for a network."""

    stored: dict[str, dict[str, Tensor]]  # what `Beside.stored` gave, by module name in the network


def write_adapter(folder: Path, network: Network, method: AdapterMethod) -> None:
    """Writes the adapter so that `peft.PeftModel.from_pretrained(base, folder)` opens it.

    Where the network is a transformers classifier, the head is inside, as PEFT keeps it. A head on a sentence
    encoder's pooling is no part of what PEFT wraps: it lies beside, in head.safetensors. The outputs' names are in
    labels.json, for which PEFT has no place.
    """
    from safetensors.torch import save_file

    from tunesmith.methods._beside import Beside, is_transposed

    root, model = wrapped(network), _wrapped_model(network)
    tensors, transposed, found = {}, False, []
    for name, module in network.named_modules():
        if isinstance(module, Beside):
            short = name.removeprefix(root)
            found.append(short)
            tensors |= {f"{PREFIX}{short}.{key}": plain(value) for key, value in module.stored().items()}
            transposed = transposed or is_transposed(module.base)
    outside = _outside(network)
    whole = _whole_modules(model, {name.removeprefix(root) for name in network.fresh - set(outside.values())})
    for name in whole:
        for key, value in model.get_submodule(name).state_dict().items():
            tensors[f"{PREFIX}{name}.{key}"] = plain(value)
    config: dict[str, Any] = {
        "peft_type": method.peft_type,
        "task_type": "FEATURE_EXTRACTION" if outside else _task_type(network),
        **base_of(network),
        **method.peft_config(network, found),
        "target_modules": sorted(found),
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "modules_to_save": whole or None,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, config)
    write_json(folder / LABELS, list(labels_of(network)))
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    if outside:
        parameters = dict(network.named_parameters())
        save_file({key: plain(parameters[name]) for key, name in outside.items()}, folder / HEAD)


def read_adapter(folder: Path, network: Network, method: AdapterMethod) -> Adapter:
    """What stands beside linear maps, and the head where it is one for this network, from a folder of PEFT's or of ours.

    Raises ModelError, with every problem, when the adapter is of another kind or does not fit the method or the model.
    """
    config, tensors, beside, labels = read_files(folder, "method.start: ")
    kind = config.get("peft_type")
    problems = method.unlike(config, folder) if kind == method.peft_type else []
    if kind != method.peft_type:
        problems.append(
            f"method.start: {folder} is not a plain {method.peft_type} adapter (its peft_type is {kind}); only that kind can "
            "be continued"
        )
    root, mark = wrapped(network), f".{method.mark}"
    found = {root + key.removeprefix(PREFIX).rpartition(mark)[0] for key in tensors if mark in key}
    wanted = set(method.chosen(network))
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing or extra:
        problems.append(
            f"method.start: {folder} changes other layers than the recipe (missing {missing[:3]}, beyond {extra[:3]}); "
            "set method.targets to the adapter's target_modules"
        )
    whole = {root + key.removeprefix(PREFIX): value for key, value in tensors.items() if mark not in key}
    of_base = sorted(whole.keys() & {name for name, _ in network.named_parameters()} - network.fresh)
    if of_base:
        problems.append(
            f"method.start: {folder} also holds {len(of_base)} trained weights of the base itself ({of_base[0]}), so it is "
            "not an adapter alone; merge it into the base with PEFT, and give that as model"
        )
    if problems:
        raise ModelError(*problems)
    outside = _outside(network)
    whole |= {outside.get(key, f"{HEAD}: {key}"): value for key, value in beside.items()}
    return Adapter(*head_in(folder, whole, labels, network), _beside(folder, tensors, network, method))


def read_files(folder: Path, asked: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], Any]:
    """Config, tensors, the head that lies beside them, and the names of its outputs (None where there are none).

    asked: what the folder was named by, for the problem. Raises ModelError where it holds no adapter.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(folder / WEIGHTS)
        head = load_file(folder / HEAD) if (folder / HEAD).is_file() else {}
        labels = json.loads((folder / LABELS).read_text(encoding="utf-8")) if (folder / LABELS).is_file() else None
    except (OSError, ValueError, SafetensorError) as error:
        near = (folder / "adapter", folder.parent / "adapter", folder / "model" / "adapter")
        there = next((f"; give {path}" for path in near if (path / CONFIG).is_file() and path != folder), "")
        raise ModelError(
            f"{asked}{folder} is not a PEFT adapter ({error}); it must hold {CONFIG} and {WEIGHTS}{there}"
        ) from None
    return config, tensors, head, labels


def rank_in(folder: Path) -> int:
    """Of a LoRA adapter. Raises ModelError where the folder holds none that says so."""
    config, *_ = read_files(folder, "method.start: ")
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ModelError(
            f"method.start: {folder} says no rank (r = {rank!r}), so it is no LoRA adapter; give another one"
        )
    return rank


def write_head(folder: Path, network: Network) -> None:
    """The fresh parameters by their names in the network, where there are any: for kinds that PEFT keeps without a head."""
    from safetensors.torch import save_file

    if network.fresh:
        parameters = dict(network.named_parameters())
        save_file({name: plain(parameters[name]) for name in sorted(network.fresh)}, folder / HEAD)


def base_of(network: Network) -> dict[str, Any]:
    """What PEFT's configs say of the base."""
    source = network.source
    return {
        "base_model_name_or_path": None if source is None else source.public_name,
        "revision": source.revision if source is not None and source.kind == "hub" else None,
    }


def _beside(
    folder: Path, tensors: dict[str, Tensor], network: Network, method: AdapterMethod
) -> dict[str, dict[str, Tensor]]:
    problems, found, root = [], {}, wrapped(network)
    for name in method.chosen(network):
        start = f"{PREFIX}{name.removeprefix(root)}."
        shapes = method.shapes(name, network.get_submodule(name), network)
        for key, shape in shapes.items():
            if start + key not in tensors or tuple(tensors[start + key].shape) != shape:
                has = f"has shape {tuple(tensors[start + key].shape)}" if start + key in tensors else "is not there"
                problems.append(
                    f"method.start: {folder}: {start}{key} {has}, expected {shape}; it belongs to another base model"
                )
        if not problems:
            found[name] = {key: tensors[start + key] for key in shapes}
    if problems:
        raise ModelError(*problems)
    return found


def head_in(
    folder: Path, whole: dict[str, Tensor], labels: Any, network: Network
) -> tuple[dict[str, Tensor], str, bool]:
    """The values of the fresh parameters, or none; what to say of it; and whether a head was there and is left.

    All or none: what a part of a head was trained to read, an untrained part does not give.
    """
    if not whole:
        return {}, f"{folder} holds no head; a new one is trained", False
    own = labels_of(network)
    parameters = dict(network.named_parameters())
    lacking = sorted(network.fresh - whole.keys())
    unlike = sorted(name for name in network.fresh & whole.keys() if whole[name].shape != parameters[name].shape)
    why = ""
    if labels is not None and labels != list(own):
        why = f"its labels are {_few(labels)}, and those of the data {_few(own)}"
    elif unlike:
        shapes = f"{tuple(whole[unlike[0]].shape)} where the data needs {tuple(parameters[unlike[0]].shape)}"
        why = f"{unlike[0]} is {shapes}"
    elif lacking:
        why = f"it lacks {_few(lacking)}"
    if why:
        return {}, f"the head in {folder} ({_tensors(len(whole))}) is left aside: {why}; a new one is trained", True
    known = "its labels are those of the data" if labels is not None else f"by its shape, as one of {_few(own)}"
    further = sorted(whole.keys() - network.fresh)
    less = f"; {_tensors(len(further))} of it without a use here: {_few(further)}" if further else ""
    said = f"training goes on from the head in {folder} ({known}); none is fitted anew{less}"
    return {name: whole[name] for name in sorted(network.fresh)}, said, bool(further)


def wrapped(network: Network) -> str:
    """The name, with a dot behind it, of the transformers model inside the network: what PEFT wraps."""
    return network.layout.body.partition(".")[0] + "."


def _task_type(network: Network) -> str:
    from tunesmith.models.sequence import SequenceNetwork

    if isinstance(network, SequenceNetwork):
        return "SEQ_2_SEQ_LM"
    return "TOKEN_CLS" if network.per_token else "SEQ_CLS"


def _wrapped_model(network: Network) -> PreTrainedModel:
    from transformers import PreTrainedModel

    model = network.get_submodule(wrapped(network).rstrip("."))
    assert isinstance(model, PreTrainedModel)
    return model


def labels_of(network: Network) -> tuple[str, ...]:
    """What the outputs mean, in their order."""
    names: Any = _wrapped_model(network).config.id2label
    return tuple(names[index] for index in range(len(names)))


def _outside(network: Network) -> dict[str, str]:
    """Fresh parameters that are no part of what PEFT wraps: key in head.safetensors -> name in the network."""
    root = wrapped(network)
    return {name.rpartition(".")[2]: name for name in sorted(network.fresh) if not name.startswith(root)}


def _whole_modules(model: nn.Module, fresh: set[str]) -> list[str]:
    """The modules of `model` that are stored whole: for each fresh parameter the outermost one that holds nothing else.

    PEFT keeps whole modules only, and none inside another one.
    """
    found = set()
    for name in fresh:
        path = name.split(".")[:-1]
        outwards = [".".join(path[:depth]) for depth in range(1, len(path) + 1)]
        untrained = (
            outer
            for outer in outwards
            if {f"{outer}.{key}" for key, _ in model.get_submodule(outer).named_parameters()} <= fresh
        )
        found.add(next(untrained, outwards[-1]))
    return sorted(found)


def plain(value: Tensor) -> Tensor:
    return value.detach().float().cpu().contiguous()


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tensors(count: int) -> str:
    return "1 tensor" if count == 1 else f"{count} tensors"


def _few(names: Iterable[Any]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:5]) + (f", ... ({len(listed)} in all)" if len(listed) > 5 else "")
