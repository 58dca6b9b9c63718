"""What a method leaves open, found by measuring the untouched base on the first training rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Batch, Example
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods.base import Findings, Method
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Derived, Recipe
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.training.ordering import order_of
from tunesmith.training.precision import device_of
from tunesmith.training.probe import fit_on
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import pooled_features

if TYPE_CHECKING:
    from torch import nn

    from tunesmith.models.network import Network
    from tunesmith.models.resolve import Source

NAMED = ("full", "lora")  # methods that are named where one is wanted
BATCHES = 8  # whose gradients are measured
AT_ONCE = 16  # rows in memory, but where the loss of a row depends on the others


@dataclass(frozen=True)
class _OnTrainingRows(Findings):
    recipe: Recipe
    prepared: Prepared
    encoded: Encoded
    network: Network

    def relative_gradients(self) -> Sequence[float]:
        assert self.network.source is not None, "a base that is trained was read from somewhere"
        return relative_gradients(self.recipe, self.prepared, self.encoded, self.network.source)

    def information(self) -> tuple[float, str]:
        task, examples = self.prepared.task, self.encoded.examples["train"]
        return task.information(examples, self.prepared.truth("train"), self.prepared.labels)


def settled(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, network: Network, earlier: Mapping[str, Any]
) -> tuple[Method, list[Derived]]:
    """The method with nothing left open, and what was found; a resumed run takes what it found before.

    `network`: the untouched base with its head, which stays as it is; where gradients are to be measured the base is read
    once more. Raises ModelError where it has nothing to choose from.
    """
    method = recipe.method
    if not isinstance(method, Method):
        raise RecipeError(
            f"method: auto is chosen by `tunesmith train` alone; name one here, such as {' or '.join(NAMED)}"
        )
    option = method.undecided
    if not option:
        return method, []
    key = f"method.{option}"
    if key in earlier:
        value, why = json.loads(str(earlier[key])), "as its training was begun"
    else:
        value, why = method.decided(_OnTrainingRows(recipe, prepared, encoded, network))
    found: Method = type(method).model_validate({**method.model_dump(), option: value})
    return found, [Derived(key, value if isinstance(value, int) else json.dumps(value), why)]


def relative_gradients(recipe: Recipe, prepared: Prepared, encoded: Encoded, source: Source) -> list[float]:
    """Of each block its gradient's norm over its weights' norm, a mean over the rows of the first batches of training.

    Of the untouched base with a head fitted to its features: with a random head the gradients would tell of that. In
    evaluation mode and float32, each row as it was read: not packed, and pictures not varied. Raises RecipeError for a device
    that is not there, and ModelError where there are no blocks or no gradient reaches them.
    """
    from tunesmith.models.backbone import load_backbone

    device = device_of(recipe.training)
    with torch_seed(recipe.seed, "base"):
        backbone = load_backbone(source, recipe.training.dropout)
    task, examples = prepared.task, encoded.examples["train"]
    task.widen(backbone.processor, prepared.texts("train"))
    network = task.head(backbone, prepared.labels, prepared.columns.pair is not None, seed_of(recipe.seed, "head"))
    network.to(device).eval()
    blocks = [network.get_submodule(name) for name in network.layout.blocks]
    if not blocks:
        raise ModelError("method.layers: this base has no ordered list of blocks to choose from; use full or head")
    order, pad = order_of(task, examples, prepared.truth("train"), recipe.training, recipe.seed), backbone.processor.pad
    rows = FixedRows(examples, order, order.most_rows if task.joint else min(order.most_rows, AT_ONCE), pad, device)
    steps = min(BATCHES, max(1, order.first(1)))
    drawn = sorted({row for step in range(steps) for row in order.batch(step)})
    if network.output is not None:
        _fit(network, prepared, examples, drawn, pad)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(tuple(f"{block}." for block in network.layout.blocks)))
    totals, counted = [0.0] * len(blocks), 0
    for step in range(steps):
        found = _of_step(network, prepared, rows.batch(step), blocks)
        if found is not None:
            totals, counted = [before + value for before, value in zip(totals, found, strict=True)], counted + 1
    if counted == 0 or not all(map(math.isfinite, totals)):
        raise ModelError(
            "method.layers: no finite gradient reaches the blocks on the first training rows; give their numbers"
        )
    return [total / counted for total in totals]


def _of_step(network: Network, prepared: Prepared, batches: list[Batch], blocks: list[nn.Module]) -> list[float] | None:
    """Of the mean loss of one step's rows; None where these hold nothing to learn."""
    network.zero_grad()
    weight = 0.0
    for batch in batches:
        loss = prepared.task.loss(network(batch.inputs), batch)
        loss.total.backward()
        weight += float(loss.weight)
    return [_relative(block) / weight for block in blocks] if weight > 0 else None


def _fit(
    network: Network, prepared: Prepared, examples: Sequence[Example], rows: list[int], pad: dict[str, int]
) -> None:
    """Puts a head fitted to the features of those rows on the network."""
    import torch

    chosen = [replace(examples[row], row=place) for place, row in enumerate(rows)]
    features = {"train": pooled_features(network, chosen, pad)}
    head = fit_on(prepared.task, network.last, features, {"train": chosen}).start
    with torch.no_grad():
        network.last.weight.copy_(head.weight)
        if head.bias is not None:
            network.last.bias.copy_(head.bias)


def _relative(block: nn.Module) -> float:
    import torch

    gradients = [value.grad for value in block.parameters() if value.grad is not None]
    weights = [value.detach() for value in block.parameters() if value.grad is not None]
    if not weights:
        return 0.0
    total = torch.nn.utils.get_total_norm
    return float(total(gradients)) / max(float(total(weights)), 1e-12)
