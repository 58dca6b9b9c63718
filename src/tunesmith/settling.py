"""What a method leaves open, found by measuring the untouched base on the first training rows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tunesmith.assembly import method_of
from tunesmith.data.stored import measures
from tunesmith.errors import ModelError, RecipeError
from tunesmith.methods.base import Method
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Derived, Recipe
from tunesmith.seeds import seed_of, torch_seed
from tunesmith.training.probe import fit_on
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import pooled_features

if TYPE_CHECKING:
    from tunesmith.models.network import Network
    from tunesmith.models.resolve import Source

BATCHES = 8  # whose gradients are measured
KEY = "method.layers"


def settled(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, source: Source, earlier: dict[str, Any]
) -> tuple[Recipe, list[Derived]]:
    """The recipe with a method that leaves nothing open, and what was found; a resumed run takes what it found before.

    Reads the base once more, where something is to be measured. Raises ModelError where it has no blocks.
    """
    method = method_of(recipe)
    if not method.undecided:
        return recipe, []
    if KEY in earlier:
        fields = {**method.model_dump(), "layers": tuple(json.loads(earlier[KEY]))}
        found: Method = type(method).model_validate(fields)
        why = "as before the run was stopped"
    else:
        found, why = method.decided(relative_gradients(recipe, prepared, encoded, source))
    chosen = found.model_dump()["layers"]
    return recipe.model_copy(update={"method": found}), [Derived(KEY, json.dumps(chosen), why)]


def relative_gradients(recipe: Recipe, prepared: Prepared, encoded: Encoded, source: Source) -> list[float]:
    """Of each block its gradient's norm over its weights' norm, a mean over the first batches that training will see.

    The untouched base with a head fitted to its features, without dropout, in float32: with a random head the gradients would
    tell of that.
    """
    from torch import nn

    from tunesmith.models.backbone import load_backbone

    with torch_seed(recipe.seed, "base"):
        backbone = load_backbone(source, recipe.training.dropout)
    task, examples = prepared.task, encoded.examples["train"]
    task.widen(backbone.processor, prepared.texts("train"))
    network = task.head(backbone, prepared.labels, prepared.columns.pair is not None, seed_of(recipe.seed, "head"))
    network.to(recipe.training.device if recipe.training.device != "auto" else "cpu").eval()
    blocks: list[nn.Module] = [network.get_submodule(name) for name in network.layout.blocks]
    if not blocks:
        raise ModelError("method.layers: this base has no ordered list of blocks to choose from; use full or head")
    if len(examples) == 0:
        raise RecipeError("method.layers: auto chooses on training rows, and there are none; give numbers")
    read, targets, pad = measures(examples), prepared.truth("train"), backbone.processor.pad
    size = recipe.training.batch_size
    order = task.order(read.lengths.tolist(), [targets[row] for row in read.sources], size, recipe.seed)
    source_of_rows = FixedRows(examples, order, size, pad, str(network.sample.device))
    steps = min(BATCHES, max(1, order.steps_per_epoch))
    batches = [batch for step in range(steps) for batch in source_of_rows.batch(step)]
    if network.output is not None:
        _fit(network, prepared, examples, sorted({row for batch in batches for row in batch.rows}), pad)
    totals = [0.0] * len(blocks)
    for batch in batches:
        network.zero_grad()
        loss = task.loss(network(batch.inputs), batch)
        (loss.total / loss.weight).backward()
        for place, block in enumerate(blocks):
            totals[place] += _relative(block) / len(batches)
    return totals


def _fit(network: Network, prepared: Prepared, examples: Any, rows: list[int], pad: dict[str, int]) -> None:
    """Puts a head fitted to the features of those rows on the network."""
    from dataclasses import replace

    import torch

    chosen = [replace(examples[row], row=place) for place, row in enumerate(rows)]
    features = {"train": pooled_features(network, chosen, pad)}
    head = fit_on(prepared.task, network.last, features, {"train": chosen}).start
    with torch.no_grad():
        network.last.weight.copy_(head.weight)
        if head.bias is not None:
            network.last.bias.copy_(head.bias)


def _relative(block: Any) -> float:
    weights = [value for value in block.parameters() if value.grad is not None]
    squared = float(sum(value.grad.square().sum() for value in weights))
    return (squared / max(float(sum(value.detach().square().sum() for value in weights)), 1e-24)) ** 0.5
