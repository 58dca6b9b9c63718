"""After the last step: what a task does to the trained weights before they are delivered."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tunesmith.assembly import Built, fit_on, share_kept
from tunesmith.preparing import Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.events import Note
from tunesmith.training.loop import Run

if TYPE_CHECKING:
    from torch import Tensor

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # of the base's own weights, tried for retention.keep: auto


def finished(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, built: Built, run: Run, best: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], list[Note]]:
    """The parameters to deliver, and what was done to them: averaged with the base, and the head fitted again.

    The average of a base's weights with those it was tuned to is often better than either (Wortsman 2022, WiSE-FT, arXiv
    2109.01903). A head fitted to features that have moved since is not the best one for them.
    """
    task, network, said = prepared.task, built.network, []
    keep = share_kept(recipe, task) if built.start else 0.0
    if keep == "auto":
        keep, why = _largest_free(built, run, best)
        said.append(why)
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


def _averaged(built: Built, best: Mapping[str, Tensor], keep: float) -> dict[str, Tensor]:
    """The trained parameters, of which those of the base count 1 - `keep` and what they were at the start `keep`."""
    found = dict(best)
    for name, start in built.start.items():
        found[name] = start.to(found[name].device) * keep + found[name] * (1 - keep)
    return found


def _largest_free(built: Built, run: Run, best: Mapping[str, Tensor]) -> tuple[float, str]:
    """The largest share of the base's own weights up to which none is worse than none on the validation rows, and why.

    Worse is a lower value or a higher loss: on few rows many shares have the same value by luck, of which the largest would
    cost (Banking77, 154 validation rows: 0.9 by the value alone, and then 0.895 rather than 0.909 on the test rows).

    Leaves the network with other weights than it found.
    """
    if run.evaluate is None:
        return 0.0, "nothing of the base's own weights kept: there are no validation rows to choose a share on"
    measured = {}
    for share in SHARES:
        run.masters.overwrite(_averaged(built, best, share))
        measured[share] = run.evaluate()
    none = measured[0.0]
    costs = [share for share, found in measured.items() if found.rank < none.rank or found.loss > none.loss]
    chosen = max(share for share in SHARES if share < min(costs, default=1.0))
    curve = ", ".join(f"{share:g}: {found.value:.4f}, {found.loss:.4f}" for share, found in measured.items())
    return chosen, (
        f"trained weights averaged with the base's own, which count {chosen:g}: the largest share that costs nothing on the "
        f"validation rows ({none.metric} and loss by share: {curve})"
    )
