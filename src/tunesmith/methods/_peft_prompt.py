"""Learned vectors in PEFT's on-disk format for prompts and prefixes: one table, [vectors, numbers of each]."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.methods._continued import Kept
from tunesmith.methods._peft_format import (
    CONFIG,
    LABELS,
    WEIGHTS,
    base_of,
    head_in,
    labels_of,
    plain,
    read_files,
    write_head,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network

TABLE = "prompt_embeddings"  # PEFT's name
APART = "_OF_TUNESMITH"  # behind the name of a kind that PEFT reads otherwise on this base


@dataclass(frozen=True)
class Prompt(Kept):
    """What a folder holds for a network."""

    table: Tensor  # [vectors, numbers of each]


def write_prompt(folder: Path, network: Network, config: Mapping[str, Any], table: Tensor, alike: bool) -> None:
    """`config`: what PEFT's own has of this kind. The head lies beside it, in a file of its own.

    alike: whether PEFT would read it as it is read here; else the kind is one that PEFT does not know, and refuses.
    """
    from safetensors.torch import save_file

    whole = {
        **config,
        "peft_type": config["peft_type"] if alike else f"{config['peft_type']}{APART}",
        "task_type": "CAUSAL_LM" if network.writes else "FEATURE_EXTRACTION",
        **base_of(network),
        "inference_mode": True,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CONFIG, whole)
    write_json(folder / LABELS, list(labels_of(network)))
    save_file({TABLE: plain(table)}, folder / WEIGHTS, metadata={"format": "pt"})
    write_head(folder, network)


def read_prompt(folder: Path, network: Network, kinds: Collection[str], shape: tuple[int, int], asked: str) -> Prompt:
    """What `write_prompt`, or PEFT, wrote of one of `kinds`. Raises ModelError where it is of another kind or shape.

    asked: what the folder was named by, for the problems.
    """
    config, tensors, head, labels = read_files(folder, asked)
    kind = str(config.get("peft_type"))
    if kind.removesuffix(APART) not in kinds:
        raise ModelError(f"{asked}{folder} is of another kind (its peft_type is {kind}); expected {' or '.join(kinds)}")
    table = tensors.get(TABLE)
    if table is None or tuple(table.shape) != shape:
        has = f"has shape {tuple(table.shape)}" if table is not None else "is not there"
        raise ModelError(
            f"{asked}{folder}: {TABLE} {has}, expected {shape}; set method.length to its first number, and the base "
            "to the one that it was made for"
        )
    further = sorted(set(tensors) - {TABLE})
    if further and not head:
        said = f"{folder} holds {len(further)} weights of a head of PEFT's ({further[0]}), left aside; a new one is trained"
        return Prompt({}, said, True, table)
    return Prompt(*head_in(folder, head, labels, network), table)
