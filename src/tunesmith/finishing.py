"""After the last step: what a task does to the trained weights before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.assembly import Built, share_kept
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.retention.sweep import Point, Sweep, cheapest, keeps, limiting, tried, within
from tunesmith.training.events import Note
from tunesmith.training.loop import Measured, Run
from tunesmith.training.probe import fit_on
from tunesmith.training.soup import greedy, stirred, uniform

if TYPE_CHECKING:
    from torch import Tensor


def finished(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    built: Built,
    run: Run,
    best: Mapping[str, Tensor],
    others: Sequence[Path] = (),
) -> tuple[dict[str, Tensor], list[Note]]:
    """The parameters to deliver, and what was done to them: averaged with the base, and the head fitted again.

    The average of a base's weights with those it was tuned to is often better than either (Wortsman 2022, WiSE-FT, arXiv
    2109.01903). A head fitted to features that have moved since is not the best one for them. others: files with what
    trained in other runs from the same start, which is averaged in where the validation rows say that it is better.
    """
    task, network, said = prepared.task, built.network, []
    best, built.delivered, mixed = _mixed(recipe, run, best)
    said += mixed
    if others and run.evaluate is not None:
        best, what, stirred_in = _with_others(run, best, others)
        built.delivered = what if what else built.delivered
        said.append(stirred_in)
    keep = share_kept(recipe, task) if built.start else 0.0
    if recipe.retention.swept and built.start:
        built.sweep = _swept(recipe, built, run, best)
        keep = built.sweep.chosen
        said.append(built.sweep.why)
    elif keep > 0:
        said.append(f"trained weights averaged with the base's own, which count {keep:g}")
    found = _averaged(built, best, keep)
    if task.refits and network.output is not None:
        begun = time.perf_counter()
        run.masters.overwrite(found)
        network.eval()
        splits = {name: rows for name, rows in encoded.examples.items() if rows and name != "test"}
        features = {name: run.trunk.features(name, rows, run.source.pad) for name, rows in splits.items()}
        head = fit_on(task, network.last, features, splits).best
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        found[names[id(network.last.weight)]] = head.weight
        if head.bias is not None:
            found[names[id(network.last.bias)]] = head.bias
        seconds = time.perf_counter() - begun
        said.append(f"head fitted again to the features of {len(splits['train']):,} training rows in {seconds:.1f} s")
    return found, [Note("finish", tuple(said))] if said else []


def _mixed(recipe: Recipe, run: Run, best: Mapping[str, Tensor]) -> tuple[Mapping[str, Tensor], str, list[str]]:
    """The average of the run's states in the place of the best one, where one is asked for, what it is, and what was done.

    Leaves other weights behind.
    """
    asked, kept = recipe.training.soup, run.soup
    if asked is None or kept is None or not kept.steps():
        return best, "", []
    if run.evaluate is not None and run.state.carry.best_step == 0:
        return best, "", ["no states averaged: none is as good as the one before the first step"]
    evaluate = run.evaluate
    if evaluate is None:  # greedy is refused then
        found, what = uniform(kept)
        return found, what, [what]

    def measure(tensors: Mapping[str, Tensor]) -> Measured:
        run.masters.overwrite(dict(tensors))
        return evaluate()

    if asked == "greedy":
        found, what, said = greedy(kept, measure)
        return found, what, [said]
    found, what = uniform(kept)
    mixed = measure(found)
    return found, what, [f"{what}: {mixed.metric} {mixed.value:.4f} and loss {mixed.loss:.4f} on the validation rows"]


def _with_others(run: Run, best: Mapping[str, Tensor], others: Sequence[Path]) -> tuple[Mapping[str, Tensor], str, str]:
    """The average with those of the others that make it better, what it is, or "", and what was found.

    Leaves other weights behind.
    """
    from safetensors.torch import load_file

    evaluate = run.evaluate
    assert evaluate is not None, "asked before"

    def measure(tensors: Mapping[str, Tensor]) -> Measured:
        run.masters.overwrite(dict(tensors))
        return evaluate()

    # Their names begin with the place in which they are to be tried: 0-trial-12.
    given = {path.stem.partition("-")[2].replace("-", " "): partial(load_file, path) for path in others}
    found, taken, before, after = stirred(best, given, measure)
    held = f"{before.metric} {before.value:.4f} and loss {before.loss:.4f} on the validation rows"
    if not taken:
        return best, "", f"no average with {' or '.join(given)} is better than the best trial alone: {held}"
    what = f"the average of this run and {' and '.join(taken)}"
    return found, what, f"{what}: {after.metric} {after.value:.4f} and loss {after.loss:.4f}; this run alone: {held}"


def _averaged(built: Built, best: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """The trained parameters, of which those of the base count 1 - `keep` and what they were at the start `keep`."""
    found = dict(best)
    for name, start in built.start.items():
        found[name] = start.to(found[name].device) * keep + found[name] * (1 - keep)
    return found


def _swept(recipe: Recipe, built: Built, run: Run, best: Mapping[str, Tensor]) -> Sweep:
    """What the shares of the base's own weights cost and keep, and the one to take.

    Leaves the network with other weights than it found.
    """
    meters, budget = limiting(built.meters), recipe.retention.budget

    def set_share(share: float) -> None:
        run.masters.overwrite(_averaged(built, best, share))

    def readings() -> list[float]:
        return [meter.read(built.network).lost for meter in meters]

    if run.evaluate is None and budget is None:
        return cheapest([Point(0.0, None, None)], "")
    set_share(1.0)
    rounding = readings()  # the base itself in the run's number format: what the meters then read is not forgotten

    def lost() -> float:
        return max(found - here for found, here in zip(readings(), rounding, strict=True))

    def enough(point: Point) -> bool:
        return budget is None or (point.lost is not None and keeps(point.lost, budget))

    points = tried(set_share, run.evaluate, lost if meters else None, enough)
    loses = " or ".join(dict.fromkeys(meter.loses for meter in meters))
    return cheapest(points, loses) if budget is None else within(points, loses, budget)
