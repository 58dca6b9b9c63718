"""The result over all rows, each tested by a model that did not learn from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.intervals import compare
from tunesmith.evaluation.verdict import PHRASES, SCRATCH
from tunesmith.evaluation.wording import rows_of
from tunesmith.evidence.base import Found, Pooled, Subject
from tunesmith.tasks._weighted import Weighted
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.evaluation.baselines.base import Baseline
    from tunesmith.folding import Fold
    from tunesmith.recipe import Recipe


def over_folds(recipe: Recipe, own: Scores, baselines: Sequence[Baseline], folds: Sequence[Fold]) -> Pooled | None:
    """What the run's own fold and the others measured, as one; None without folds.

    The intervals are over rows. That the folds' models learned from many of the same rows is not in them (Bengio and
    Grandvalet 2004): they are a little too narrow, as every interval of cross-validation. Where folds hold whole groups, so
    do the resamples.
    """
    if not folds:
        return None
    asked = recipe.evaluation
    by_fold = {recipe.data.own_fold + 1: {item.name: item.scores for item in baselines}}
    by_fold |= {fold.number: dict(fold.rivals) for fold in folds}
    names = list(dict.fromkeys(name for of in by_fold.values() for name in of))
    lacking = {name: [number for number, of in sorted(by_fold.items()) if name not in of] for name in names}
    rivals = {name: pooled([of[name] for of in by_fold.values()]) for name in names if not lacking[name]}
    whole = pooled([own, *(fold.scores for fold in folds)])
    compared = compare(whole, rivals, asked.resamples, asked.confidence, recipe.seed)
    return Pooled(whole, compared, {name: without for name, without in lacking.items() if without})


def gather(subject: Subject) -> Found | None:
    """The figures of all folds' rows, which the verdict is about, and fold by fold; None where no folds were asked for."""
    if subject.pooled is None:
        return None
    whole, found = subject.pooled.scores, subject.pooled.comparison
    own = subject.test.scores
    first = subject.recipe.data.own_fold + 1
    parts = sorted([(first, own), *((fold.number, fold.scores) for fold in subject.folds)], key=lambda part: part[0])
    what = {item.name: item.what for item in subject.baselines}
    primary, rows = own.primary, len(whole.columns["truth"])
    data: dict[str, Any] = {
        "folds": [{"fold": number, "rows": len(of.columns["truth"]), "value": of.value()} for number, of in parts],
        "rows": rows,
        "metric": asdict(found.metrics[primary]),
        "rivals": [
            {
                "name": name,
                "what": what[name],
                "metric": asdict(found.baselines[name][primary]),
                "gain": asdict(found.gains[name]),
                "p": found.tests[name].p,
                "adjusted": found.tests[name].adjusted,
            }
            for name in found.baselines
        ],
    }
    every = len(parts) == subject.recipe.data.folds
    which = "" if every else f" ({len(parts)} of {subject.recipe.data.folds} folds)"
    line = (
        f"The verdict is over {'all ' if every else ''}{rows_of(rows, 'row')}, each tested by one of {len(parts)} models "
        f"that did not see it{which}. Delivered is the model of fold {first}, which learned from "
        f"{rows_of(len(subject.train), 'row')} and is what the rest of the report is about: it is not trained again on all "
        "rows, which would be a model that nothing was measured of (data.test=0 without folds gives that)."
    )
    data["left_out"] = [
        {"name": name, "what": what.get(name, PHRASES.get(name, name)), "why": _why(name, without)}
        for name, without in subject.pooled.lacking.items()
    ]
    return Found(data, said=(line, *left_out(data)))


def _why(name: str, without: Sequence[int]) -> str:
    if name == SCRATCH:
        return "is trained beside the delivered model alone, not in the other folds"
    folds = ", ".join(map(str, without))
    return f"was not measured in fold{'' if len(without) == 1 else 's'} {folds}"


def left_out(data: Mapping[str, Any]) -> list[str]:
    """Which rivals are not in the figures over all folds, and why: a sentence, or none."""
    parts = [f"{item['what']}, which {item['why']}" for item in data.get("left_out", ())]
    return [f"Not among the rivals of this verdict: {'; '.join(parts)}."] if parts else []


def pooled(parts: Sequence[Scores]) -> Scores:
    """Scores of several sets of rows as one, of the primary metric alone: others may rank rows among those of their set."""
    import numpy as np

    first = parts[0]
    metric = first.metrics[first.primary]
    if isinstance(metric, Weighted):  # correlations know no unit, and models of several folds share none: ranks in each
        parts = [replace(part, columns={**part.columns, **metric.common(part.columns)}) for part in parts]
    shared = [name for name in first.columns if all(name in part.columns for part in parts)]
    columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in shared}
    rows = np.concatenate(
        [part.rows_of.get(first.primary, np.ones(len(part.columns["truth"]), dtype=bool)) for part in parts]
    )
    return Scores(
        columns,
        {first.primary: first.metrics[first.primary]},
        first.primary,
        first.shares & {first.primary},
        first.lower & {first.primary},
        rows_of={first.primary: rows} if first.primary in first.rows_of else {},
        other_scale=first.other_scale & {first.primary},
        each={
            name: np.concatenate([part.each[name] for part in parts])
            for name in first.each
            if all(name in part.each for part in parts)
        },
        groups=_apart(parts),
    )


def _apart(parts: Sequence[Scores]) -> np.ndarray | None:
    """[rows] the groups of all parts, each of one part alone: folds hold whole groups."""
    import numpy as np

    found, used = [], 0
    for part in parts:
        if part.groups is None:
            return None
        found.append(part.groups + used)
        used += int(part.groups.max()) + 1
    return np.concatenate(found)
