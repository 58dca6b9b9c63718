"""What decides the numbers that a network, or its frozen part, makes of a row: told in one digest."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from tunesmith.models.around import Around
from tunesmith.models.network import Network, TransformersNetwork
from tunesmith.models.pooling import Pooling
from tunesmith.models.unpadded import other_hooks

KNOWN = ("torch", "transformers", "tunesmith")  # whose code is known by version, or by the digest of this package
# Of configs and modules, what decides no number: names, what comes after the base, and the format, which the weights tell
# themselves. Rates of dropout do not either, in evaluation mode.
BESIDE = {
    "id2label", "label2id", "num_labels", "problem_type", "_name_or_path", "architectures", "dtype", "torch_dtype",
    "gradient_checkpointing", "task_specific_params", "finetuning_task", "name_or_path", "loss_type", "training",
    "_is_hf_initialized",
}  # fmt: skip
PLAIN = (bool, int, float, str, tuple, Pooling, torch.dtype)  # None says no more than a setting that is missing


def beyond(network: Network, cut: int, trainable: Collection[str]) -> tuple[str, ...]:
    """Names of modules and parameters that what leaves block `cut` - 1 cannot depend on.

    A head that starts untrained stands after the base, since nothing before a cut trains. Whatever is not known to come
    after the cut counts as before it.
    """
    layout = network.layout
    inside = f"{layout.body}." if layout.body else ""
    heads = [name for name in trainable if name in network.fresh and not name.startswith(inside)]
    return (*layout.blocks[cut:], *layout.tail, *last_map(network), *heads)


def last_map(network: Network) -> tuple[str, ...]:
    """The name of the last linear map, which features do not depend on; () where there is none."""
    return tuple(name for name, module in network.named_modules() if module is network.output)


def beside_base(network: Network) -> tuple[str, ...]:
    """Names of what `base_features` cannot depend on: heads that start untrained, which it leaves out."""
    inside = f"{network.layout.body}."
    heads = network.fresh if isinstance(network, TransformersNetwork) else ()
    return (*last_map(network), *sorted(name for name in heads if not name.startswith(inside)))


def structure(network: Network, spared: Collection[str]) -> str | None:
    """How the network computes, in evaluation mode, as one text; of modules named in `spared`, or in those, nothing.

    An adapter that adds nothing yet is not there, so that all methods share what the untouched base gives. None where it
    cannot be told whole, since hooks may hold anything and code may stand in no file; and for a network of random weights,
    which no other run has.
    """
    if not network.pretrained:
        return None
    silent = _silent(network)
    modules = [
        (plain, part)
        for name, part in network.named_modules()
        if not _within(name, spared) and name not in silent and (plain := _alone(name, silent)) is not None
    ]
    if other_hooks(part for _, part in modules) or any("forward" in vars(part) for _, part in modules):
        return None
    kinds = [type(part) for _, part in modules]
    try:
        sources = {_source(kind) for kind in kinds if kind.__module__.split(".")[0] not in KNOWN}
    except (OSError, TypeError):  # Python has said it by the one and by the other
        return None
    said = [
        (name, f"{type(part).__module__}.{type(part).__qualname__}", _settings(part))
        for name, part in modules
        if not isinstance(part, nn.Dropout)
    ]
    body: Any = network.get_submodule(network.layout.body)
    config = {key: value for key, value in body.config.to_dict().items() if key not in BESIDE and "drop" not in key}
    own = [network.per_token, network.processor.pad, body.config._attn_implementation, transformers.__version__]
    if network.processor.pictures:
        own.append(network.processor.fingerprint())  # pixels are put on the base's scale in every forward
    if silent and network.sample.dtype != torch.float32:
        own.append("adapters")  # a `FusedEncoder`, which rounds otherwise, goes around none
    return json.dumps([said, sorted(sources), config, own], sort_keys=True, default=str)


def weights_digest(network: Network, spared: Collection[str]) -> str | None:
    """sha256, in hex, of every tensor outside `spared`, buffers too, with names, shapes and formats.

    None where something in the network's state is no tensor. Takes 90 ms for MiniLM (90 MB).
    """
    # Buffers that are not saved, such as rotary frequencies, are in no state; what is no buffer either stands in modules.
    tensors: dict[str, Any] = {**dict(network.named_buffers()), **network.state_dict()}
    for name, part in network.named_modules():
        tensors |= {f"{name}.{key}": value for key, value in vars(part).items() if isinstance(value, Tensor)}
    digest, silent = hashlib.sha256(), _silent(network)
    for name in sorted(tensors):
        plain = _alone(name, silent)
        if plain is None or _within(name, spared):
            continue
        value = tensors[name]
        if not isinstance(value, Tensor) or value.is_meta:
            return None
        digest.update(f"{plain} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(as_bytes(value.detach()))
    return digest.hexdigest()


def weights_bytes(network: Network, spared: Collection[str]) -> int:
    """How many bytes `weights_digest` reads, about."""
    return sum(value.nbytes for name, value in network.named_parameters() if not _within(name, spared))


def as_bytes(value: Tensor) -> Any:
    """The tensor's own bytes as a flat array of numpy, on the CPU; not a copy of one that lies there in order."""
    return value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _silent(network: Network) -> frozenset[str]:
    """Names of what stands around pretrained modules and adds nothing."""
    return frozenset(name for name, part in network.named_modules() if isinstance(part, Around) and part.silent)


def _alone(name: str, silent: Collection[str]) -> str | None:
    """The name that a module or tensor had if what is in `silent` were its base alone; None for what were not there then."""
    for outer in silent:
        if name.startswith(f"{outer}."):
            rest = name.removeprefix(f"{outer}.")
            return outer + rest.removeprefix("base") if rest == "base" or rest.startswith("base.") else None
    return name


def _settings(part: nn.Module) -> list[tuple[str, str]]:
    """What a module holds as plain values, but for what decides nothing in evaluation mode."""
    return sorted(
        (key, repr(value))
        for key, value in vars(part).items()
        if isinstance(value, PLAIN) and key not in BESIDE and "drop" not in key
    )


def _within(name: str, spared: Collection[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in spared)


def _source(kind: type) -> str:
    file = inspect.getsourcefile(kind)
    if file is None:
        raise OSError(f"{kind.__qualname__} stands in no file")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
