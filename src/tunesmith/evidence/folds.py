"""The result over all rows, each tested by a model that did not learn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tunesmith.evaluation.intervals import compare
from tunesmith.evaluation.wording import figures, gain_with_interval, metric_title, p_value, rows_of, with_interval
from tunesmith.evidence.base import Found, Subject
from tunesmith.tasks.base import Scores


def gather(subject: Subject) -> Found | None:
    """The primary metric of all folds' rows together, with its gains; None where no folds were asked for.

    The intervals are over rows. That the folds' models learned from many of the same rows is not in them (Bengio and
    Grandvalet 2004): they are a little too narrow, as every interval of cross-validation.
    """
    if not subject.folds:
        return None
    own, asked = subject.test.scores, subject.recipe.evaluation
    first = subject.recipe.data.own_fold + 1
    parts = sorted([(first, own), *((fold.number, fold.scores) for fold in subject.folds)], key=lambda part: part[0])
    rivals = {
        item.name: [item.scores, *(fold.rivals[item.name] for fold in subject.folds)]
        for item in subject.baselines
        if all(item.name in fold.rivals for fold in subject.folds)
    }
    whole = pooled([own, *(fold.scores for fold in subject.folds)])
    found = compare(
        whole, {name: pooled(of) for name, of in rivals.items()}, asked.resamples, asked.confidence, subject.recipe.seed
    )
    what = {item.name: item.what for item in subject.baselines}
    primary = own.primary
    data: dict[str, Any] = {
        "folds": [{"fold": number, "rows": len(of.columns["truth"]), "value": of.value()} for number, of in parts],
        "rows": len(whole.columns["truth"]),
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
            for name in rivals
        ],
    }
    line = (
        f"Over all {rows_of(data['rows'], 'row')}, each tested by one of {len(parts)} models that did not see it, "
        f"{metric_title(primary)} is {with_interval(found.metrics[primary])}"
    )
    if rivals:
        lower = primary in own.lower
        best = (min if lower else max)(rivals, key=lambda name: found.baselines[name][primary].value)
        line += (
            f", against {figures(found.baselines[best][primary].value)[0]} for {what[best]} "
            f"({gain_with_interval(found.gains[best], lower)}, {p_value(found.tests[best].p)})"
        )
    return Found(data, said=(f"{line}.",))


def pooled(parts: Sequence[Scores]) -> Scores:
    """Scores of several sets of rows as one, of the primary metric alone: others may rank rows among those of their set."""
    import numpy as np

    first = parts[0]
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
    )
