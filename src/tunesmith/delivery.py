"""The artifact: written from the untouched base and the best parameters, read back, and proven equal before it counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.assembly import build_network, method_of, resolve_rates
from tunesmith.errors import ArtifactError
from tunesmith.predictor import Card, Predictor, load
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.ledger import write_whole

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.network import Network
    from tunesmith.models.resolve import Source

PROBES = 8  # stored texts whose outputs are compared each time the model is written or read elsewhere
TOLERANCE = 1e-4  # largest difference of a probability between the network in memory and the one read back


def deliver(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    source: Source,
    best: Mapping[str, Tensor],
    kept_rows: Mapping[str, Tensor],
    run: Path,
) -> tuple[Predictor, str]:
    """Writes model/ (and adapter/), reloads it and compares; gives the reloaded model and how model/ opens.

    Raises ArtifactError when the model read back does not predict what the network in memory does.
    """
    import torch

    from tunesmith.models.backbone import load_backbone

    with torch_seed(recipe.seed, "base"):  # as the pipeline reads it
        backbone = load_backbone(source)
    width = backbone.module.config.hidden_size
    rates, _, _ = resolve_rates(recipe, width, len(encoded.examples["train"]))
    network, plan = build_network(recipe, prepared, backbone, rates)
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in best.items():
            if name in kept_rows:
                parameters[name][kept_rows[name]] = value.cpu()
            else:
                parameters[name].copy_(value)
    card = Card(prepared.task, prepared.labels, prepared.columns.text, prepared.columns.label, encoded.limit)
    texts = _probe_texts(prepared)
    expected = _probabilities(network, card, run, texts)
    method = method_of(recipe)
    shutil.rmtree(run / "adapter", ignore_errors=True)
    method.save(network, plan, run / "adapter")
    method.fold(network)
    partial, final = run / ".partial-model", run / "model"
    shutil.rmtree(partial, ignore_errors=True)
    opens = network.save(partial, prepared.labels.names).replace(str(partial), str(final))
    write_whole(partial / "tunesmith.json", json.dumps(card.to_plain(), indent=2) + "\n")
    probes = {"texts": texts, "probabilities": expected, "tolerance": TOLERANCE}
    write_whole(partial / "probes.json", json.dumps(probes, indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    predictor = load(final)
    check_parity(predictor, final)
    return predictor, opens


def check_parity(predictor: Predictor, folder: Path) -> None:
    """Replays the stored texts. Raises ArtifactError when a probability differs by more than the stored tolerance."""
    probes = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    found = predictor.predict_proba(probes["texts"]).tolist()
    worst = max(
        abs(here - there)
        for row, stored in zip(found, probes["probabilities"], strict=True)
        for here, there in zip(row, stored, strict=True)
    )
    if not worst <= probes["tolerance"]:
        raise ArtifactError(
            f"{folder}: the model read back differs from the one trained by {worst:.2g} in a probability (at most "
            f"{probes['tolerance']:g} is rounding); do not use it: please report this with the run's manifest.json"
        )


def _probe_texts(prepared: Prepared) -> list[str]:
    for split in ("validation", "test", "train"):
        texts = prepared.texts(split)
        if texts:
            return texts[:PROBES]
    return []


def _probabilities(network: Network, card: Card, folder: Path, texts: list[str]) -> list[list[float]]:
    return Predictor(folder, network, card).predict_proba(texts).tolist()
