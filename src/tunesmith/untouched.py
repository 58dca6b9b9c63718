"""What the untouched base gives: a head fitted to its features, and figures that training has to better."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tunesmith.assembly import Built, as_pretrained
from tunesmith.data.encode import Example
from tunesmith.data.stored import measures
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.infer import infer
from tunesmith.evaluation.verdict import BASE, COSINE, PHRASES
from tunesmith.evidence.base import Frozen
from tunesmith.nearest import neighbours
from tunesmith.phases import PROBE, START, Phases
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Derived, Recipe
from tunesmith.seeds import seed_of
from tunesmith.tasks.base import OutputTask
from tunesmith.training.events import Event, Note
from tunesmith.training.moving import Moving
from tunesmith.training.probe import SOFTER, fit_on, told_by
from tunesmith.training.shelf import Shelf, shelf_of
from tunesmith.training.trunk import Live, Trunk, kept_features
from tunesmith.zero_shot.names import zero_shot

if TYPE_CHECKING:
    from torch import Tensor

    from tunesmith.models.backbone import Backbone
    from tunesmith.models.network import Network

MOST_PROBE_ROWS = 50_000  # of a run that keeps nothing: a linear map learns little from more


def fit_probe(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built, trunk: Trunk, phases: Phases
) -> Iterator[Event]:
    """Fits the head on frozen features, puts it on the network if the recipe says so, and scores it as a baseline.

    What the fit takes counts as training where that starts from it.
    """
    if not built.network.pretrained:
        return  # features of random weights are no start, and no rival
    # A head that goes on from earlier is not fitted anew, and none to features that are about to be drawn anew.
    wanted = recipe.training.probe and not built.plan.started and recipe.training.redraw == 0
    measured = recipe.evaluation.baselines and len(encoded.examples["test"]) > 0
    before = as_pretrained(recipe, prepared, built.network) if measured else built.network
    if measured and prepared.task.untrained:
        built.base = (_untrained(prepared, encoded, before, backbone.processor.pad),)
    if not (wanted or measured) or built.network.output is None:
        return
    import torch

    begun = time.perf_counter()
    network, pad, last = built.network, backbone.processor.pad, built.network.last
    splits = {name: rows for name, rows in encoded.examples.items() if rows and (name != "test" or measured)}
    splits["train"], sources, few = _enough(splits["train"], trunk, recipe.seed)
    shelf = shelf_of(recipe.training.cache)
    with phases.phase(START if wanted else PROBE):
        learned = {split: rows for split, rows in splits.items() if split != "test"}
        features, said_where = _features(network, trunk, learned, pad, shelf)
        fitted = fit_on(prepared.task, last, features, splits)
    seconds = time.perf_counter() - begun
    if measured:
        more, also_where = _features(network, trunk, {"test": splits["test"]}, pad, shelf)
        features |= more
        said_where = list(dict.fromkeys([*said_where, *also_where]))
    strength, unmeasured = fitted.best.strength, list[str]()
    if measured:
        alone = fitted
        untrained = network.fresh - {
            name for name, value in network.named_parameters() if value is last.weight or value is last.bias
        }
        if untrained or before is not network:
            # What reaches the last map went through layers that nothing has trained yet: no fair rival.
            again = kept_features(before, splits, pad, shelf, base=bool(untrained))
            features, said_where = again.values, [*said_where, *([again.said] if again.said else [])]
            width = features["train"].shape[1]
            alone = fit_on(prepared.task, torch.nn.Linear(width, last.out_features), features, splits)
        labels, strength = prepared.labels, alone.best.strength
        found = told_by(alone.best, prepared.task, features["test"], splits["test"], labels)
        if "validation" in features:
            held = told_by(alone.best, prepared.task, features["validation"], splits["validation"], labels)
            labels = prepared.task.settle(held, prepared.truth("validation"), labels)
        scores = prepared.task.score(prepared.task.restate(found, labels), prepared.truth("test"), labels)
        took = time.perf_counter() - begun
        probe = Baseline("probe", "frozen features with a new head", scores, took)
        built.base = (*_cosine(prepared, network, features, sources, took), probe)
        named, why = zero_shot(prepared, backbone, before, features, encoded.limit)
        near, unsearched = neighbours(prepared, features, splits, recipe.seed)
        built.base = (*built.base, *(rival for rival in (near, named) if rival is not None))
        unmeasured = [line for line in (unsearched, why) if line]
        built.uncompared = (*built.uncompared, *unmeasured)
    if not recipe.evaluation.quick:
        built.frozen = Frozen(features, splits, strength)
    said = f"head fitted on frozen features in {seconds:.1f} s: penalty C = {fitted.best.strength:g}, {fitted.why}"
    if wanted:
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        base_trains = any(name not in network.fresh for name in built.plan.trainable)
        start = fitted.start if base_trains else fitted.best
        values = {names[id(last.weight)]: start.weight}
        if start.bias is not None:
            values[names[id(last.bias)]] = start.bias
        built.masters.overwrite(values)
        softer = f"a penalty {fitted.best.strength / start.strength:g} times the best head's (at most {SOFTER:g})"
        why = softer if base_trains else fitted.why
        built.derived.append(Derived("probe.strength", start.strength, why))
        said += f"; training starts from C = {start.strength:g}" if base_trains else ""
    if said_where:
        said += f"; frozen features: {'; '.join(said_where)}"
    yield Note("probe", (f"{said}{few}", *unmeasured))


def _features(
    network: Network, trunk: Trunk, splits: Mapping[str, Sequence[Example]], pad: dict[str, int], shelf: Shelf
) -> tuple[dict[str, Tensor], list[str]]:
    """Of each split before anything trains, and where they stand on disk: [] where they do not."""
    if not isinstance(trunk, Live | Moving):
        return {split: trunk.features(split, rows, pad) for split, rows in splits.items()}, []
    kept = kept_features(network, splits, pad, shelf)
    return kept.values, [kept.said] if kept.said else []


def measure_base(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built
) -> Iterator[Event]:
    """What the base says of the test rows before anything trains, and what frequencies alone say of them."""
    task, labels, test = prepared.task, prepared.labels, encoded.examples["test"]
    if not (recipe.evaluation.baselines and task.judges_by_truth and test and built.network.pretrained):
        return
    begun = time.perf_counter()
    network = as_pretrained(recipe, prepared, built.network).eval()
    truth, device = prepared.truth("test"), str(network.sample.device)
    found, loss = infer(
        lambda batch: network(batch.inputs), task, test, labels, backbone.processor.pad, device,
        prepared.splits.test.place,
    )  # fmt: skip
    scores = task.score(task.answered(found, test, network), truth, labels)
    took = time.perf_counter() - begun
    outputs = max(backbone.module.config.vocab_size, len(backbone.text.tokenizer))
    floors = task.floors(encoded.examples["train"], prepared.truth("train"), test, outputs)
    rivals = [] if network.fresh else [Baseline(BASE, PHRASES[BASE], scores, took)]
    for name, floor in floors.items():
        scores = task.score(floor, truth, labels)
        rivals.append(Baseline(name, PHRASES[name], scores, time.perf_counter() - begun - took))
    built.base = (*built.base, *rivals)
    said = f"the untouched base has loss {loss:.3f} on the test rows ({took:.1f} s)"
    if network.fresh:  # what untrained weights say is no rival, and nothing that could be forgotten
        said += "; its checkpoint lacks the head, so that is what a random one says, and nothing is compared with it"
    yield Note("base", (said,))


def _untrained(prepared: Prepared, encoded: Encoded, network: Network, pad: dict[str, int]) -> Baseline:
    """The network as it is before the first step, on the test rows, by the task's own rules."""
    begun, task, device = time.perf_counter(), prepared.task, str(network.sample.device)
    network.eval()
    found, _ = infer(lambda batch: network(batch.inputs), task, encoded.examples["test"], prepared.labels, pad, device)
    scores = task.score(found, prepared.truth("test"), prepared.labels)
    return Baseline(task.untrained, PHRASES[task.untrained], scores, time.perf_counter() - begun)


def _enough(examples: Sequence[Example], trunk: Trunk, seed: int) -> tuple[Sequence[Example], Sequence[int], str]:
    """The rows that a head is fitted to, where they stand in the table, and what is to be said of them.

    All, unless they are very many and nothing is kept of them.

    Their features would take more memory than training does, and as long as a third of an epoch.
    """
    if len(examples) <= MOST_PROBE_ROWS or not isinstance(trunk, Live | Moving):
        return examples, measures(examples).sources.tolist(), ""
    rows = sorted(random.Random(seed_of(seed, "probe")).sample(range(len(examples)), MOST_PROBE_ROWS))
    taken = [examples[row] for row in rows]
    said = f"; on {MOST_PROBE_ROWS:,} of the {len(examples):,} training rows"
    return [replace(example, row=place) for place, example in enumerate(taken)], [row.source for row in taken], said


def _cosine(
    prepared: Prepared, network: Network, features: dict[str, Tensor], sources: Sequence[int], seconds: float
) -> tuple[Baseline, ...]:
    """The base's own cosine of two texts, put on the scale of one number by least squares on the training rows."""
    import numpy as np

    task, labels = prepared.task, prepared.labels
    train, test = network.cosine(features["train"]), network.cosine(features["test"])
    if train is None or test is None or len(labels.scale) != 1 or not isinstance(task, OutputTask):
        return ()
    truth = (np.array([prepared.truth("train")[row] for row in sources])[:, 0] - labels.center[0]) / labels.scale[0]
    slope, start = np.polyfit(train.numpy(), truth, 1)
    found = task.predictions((slope * test.numpy() + start)[:, None].tolist(), range(len(test)), labels)
    scores = task.score(found, prepared.truth("test"), labels)
    return (Baseline(COSINE, PHRASES[COSINE], scores, seconds),)
