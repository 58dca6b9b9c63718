"""The network of a model/ folder: whole where its method folds into the base's weights, else the base and what is added."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.catalog import build
from tunesmith.errors import ArtifactError, TunesmithError
from tunesmith.methods.base import Method, Plan

if TYPE_CHECKING:
    from tunesmith.models.network import Network

# Were both in one folder, other libraries would open it without a word, and leave out what they do not know.
BARE, ADDED = "base", "adapter"
OPTIONS = "adapter.json"  # in ADDED: the method, as a recipe has it


def write_network(
    method: Method, network: Network, plan: Plan, labels: tuple[str, ...], limit: int, folder: Path
) -> str:
    """Writes the network, on which `method` has folded what it folds, and says how the folder opens.

    What a method cannot fold is taken off the network.
    """
    if method.folds:
        return network.save(folder, labels, limit)
    method.save(network, plan, folder / ADDED)
    (folder / ADDED / OPTIONS).write_text(json.dumps(method.to_plain(), indent=2) + "\n", encoding="utf-8")
    method.take_off(network)
    network.save(folder / BARE, labels, limit)
    (folder / BARE / "README.md").write_text(
        f"# Not the fine-tuned model\n\nThe base and the head of a model without what method {method.part_name()} adds, "
        "which answers otherwise. Use the folder above.\n",
        encoding="utf-8",
    )
    return (
        f'opens with tunesmith.load("{folder}") alone: {BARE}/ is the base with the head, and {ADDED}/ what method '
        f"{method.part_name()} adds to it"
    )


def read_network(folder: Path) -> tuple[Network, tuple[str, ...]]:
    """What `write_network` wrote, in evaluation mode, and its labels.

    Raises ArtifactError and ModelError where something of it is not there, or does not fit.
    """
    from tunesmith.models.transformers_import import import_transformers

    import_transformers()
    from tunesmith.models.loading import load_network

    if not (folder / BARE).is_dir():
        return load_network(folder)
    network, labels = load_network(folder / BARE)
    path = folder / ADDED / OPTIONS
    try:
        method = build("methods", json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TunesmithError) as error:
        raise ArtifactError(f"{path}: cannot be read ({error})") from None
    if not isinstance(method, Method):
        raise ArtifactError(f"{path}: names no method; copy the whole model/ folder from its run again")
    method.load(network, folder / ADDED)
    return network.eval(), labels
