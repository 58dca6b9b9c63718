"""After the last step: what a task does to the trained weights before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunesmith.assembly import Built, fit_on
from tunesmith.preparing import Encoded, Prepared
from tunesmith.training.events import Note
from tunesmith.training.loop import Run

if TYPE_CHECKING:
    from torch import Tensor


def finished(
    prepared: Prepared, encoded: Encoded, built: Built, run: Run, best: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Note]]:
    """The parameters to deliver, and what was done to them: averaged with the base, and the head fitted again.

    The average of a base's weights with those it was tuned to is often better than either (Wortsman 2022, WiSE-FT, arXiv
    2109.01903). A head fitted to features that have moved since is not the best one for them.
    """
    task, network, said = prepared.task, built.network, []
    found, keep = dict(best), task.kept()
    for name, start in built.start.items():
        found[name] = start.to(found[name].device) * keep + found[name] * (1 - keep)
    if built.start:
        said.append(f"trained weights averaged with the base's own, which count {keep:g}")
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
