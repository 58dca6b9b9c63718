"""How far the seed moves the result, apart from how far other test rows would."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.intervals import standard_error
from tunesmith.evaluation.verdict import PROBE
from tunesmith.evaluation.wording import digits_for, figures, metric_title
from tunesmith.evidence.base import Found, Subject


def gather(subject: Subject) -> Found | None:
    """Each metric by seed, its mean and standard deviation; None where only one seed was asked for."""
    if not subject.repeats:
        return None
    scores = subject.test.scores
    own = {name: scores.value(name) for name in scores.metrics}
    seeds = [subject.recipe.seed, *(item.seed for item in subject.repeats)]
    by_metric: dict[str, dict[str, Any]] = {}
    for name, value in own.items():
        others = [item.metrics.get(name) for item in subject.repeats]
        known = [one for one in others if one is not None]
        if math.isfinite(value) and len(known) == len(others):
            by_metric[name] = _spread([value, *known])
    if scores.primary not in by_metric:
        return None  # it says nothing of these rows
    primary = scores.primary
    spread, error = by_metric[primary], standard_error(scores)
    best = _best_rival(subject)
    data: dict[str, Any] = {
        "seeds": seeds,
        "metrics": by_metric,
        "sampling_error": error,
        "rival": None
        if best is None
        else {"what": best[0], "value": best[1], "ahead": _ahead(subject, spread, best[1])},
    }
    return Found(data, said=(_said(primary, data),))


def _spread(values: list[float]) -> dict[str, Any]:
    """Standard deviation over seeds with n - 1 below, since they are a sample of all seeds."""
    return {"values": values, "mean": statistics.fmean(values), "deviation": statistics.stdev(values)}


def _best_rival(subject: Subject) -> tuple[str, float] | None:
    scores = subject.test.scores
    own = {PROBE} if subject.recipe.method_name == "head" else set()  # which is that very thing
    values = [(item.what, item.scores.value(scores.primary)) for item in subject.baselines if item.name not in own]
    if not values:
        return None
    return (min if scores.primary in scores.lower else max)(values, key=lambda pair: pair[1])


def _ahead(subject: Subject, spread: Mapping[str, Any], rival: float) -> int:
    """From how many seeds the model is better than the rival."""
    lower = subject.test.scores.primary in subject.test.scores.lower
    return sum(value < rival if lower else value > rival for value in spread["values"])


def _said(primary: str, data: Mapping[str, Any]) -> str:
    spread, count = data["metrics"][primary], len(data["seeds"])
    digits = digits_for(spread["deviation"], data["sampling_error"])
    line = (
        f"Over {count} seeds {metric_title(primary)} is {figures(spread['mean'])[0]} on average, with a standard deviation "
        f"of {spread['deviation']:.{digits}f} from seed to seed; other test rows would move it by "
        f"{data['sampling_error']:.{digits}f} (one standard error)."
    )
    rival = data["rival"]
    if rival is None:
        return line
    return f"{line} From {rival['ahead']} of them it is better than {rival['what']} ({figures(rival['value'])[0]})."
