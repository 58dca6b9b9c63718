"""Whether training was in order: rate, gradients, what moved, classes that are never said, learning by heart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tunesmith.data.findings import Finding
from tunesmith.data.targets.tags import types_of
from tunesmith.evaluation import health
from tunesmith.evaluation.collapse import Said, collapsed, constant
from tunesmith.evaluation.health import Check, History, Moved, ValidationPoint
from tunesmith.evaluation.overfitting import by_heart
from tunesmith.evaluation.wording import metric_title
from tunesmith.evidence.base import Course, Found, Measured, Subject
from tunesmith.methods.base import Method
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    import numpy as np


def gather(subject: Subject) -> Found | None:
    """One line a rule, and a finding of each that is broken. What overfitted is told by a finding of its own."""
    return examined(subject.recipe, subject.task, subject.labels, subject.course, subject.test, "test")


def examined(
    recipe: Recipe, task: Task, labels: Labels, course: Course, rows: Measured | None, split: str
) -> Found | None:
    """The same of a run without test rows too: what is said of other rows is looked at then, or, without any, nothing is."""
    lower = frozenset[str]() if rows is None else rows.scores.lower
    history, moved = _history(task, labels, course, lower), _moved(course)
    training = course.training
    assert isinstance(training.epochs, int) and isinstance(recipe.method, Method)
    keep = recipe.retention.keep if isinstance(recipe.retention.keep, float) else 0.0
    usual = recipe.method.epochs
    high = health.too_high(history, moved)
    checks = [health.nothing_learned(history, moved, keep, training.clip, usual), high]
    checks.append(health.too_low(history, moved, training.clip))
    if not task.refits:  # what is measured on the way there is not the head that is delivered
        checks.append(health.stopped_early(history, training.epochs))
    checks.append(health.gradients(history, moved, training.clip))
    if rows is not None:
        checks += _of_predictions(task, labels, rows.scores.columns, high, split)
    checks = _one_cause(checks)
    findings = [Finding("health", len(history.losses), check.message, ()) for check in checks if check.cause]
    heart = by_heart(course.evaluations, sorted(lower))
    if heart is not None:
        learned = not high.cause and history.end < history.losses[0]
        follows = "follows from the rate" if heart.cause and high.cause else ""
        checks.append(heart if learned else replace(heart, cause="", fix=follows))
    said = [f"Health: {item.message}." for item in findings if not item.message.startswith("it stopped")]
    return Found({"checks": [asdict(check) for check in checks], "steps": len(history.losses)}, findings, said)


def _one_cause(checks: list[Check]) -> list[Check]:
    """What follows from a rate that is too high is told with it, and found once."""
    if not any(check.rule == "rate too high" and check.cause for check in checks):
        return checks
    own = ("rate too high", "collapsed class")
    return [
        replace(check, cause="", fix="follows from the rate") if check.cause and check.rule not in own else check
        for check in checks
    ]


def _history(task: Task, labels: Labels, course: Course, lower: Collection[str]) -> History:
    points = course.evaluations
    return History(
        [point.loss for point in course.losses],
        [point.norm for point in course.losses],
        [ValidationPoint(point.step, point.epoch, point.value, point.error, point.loss) for point in points],
        metric_title(points[0].metric) if points else "",
        bool(points) and points[0].metric in lower,
        _decay(course),
        _chance(task, labels),
    )


def _decay(course: Course) -> float:
    """Of a weight that no gradient moves; 0 for plain steps, which may be smaller than the decay."""
    training = course.training
    return (
        0.0 if training.optimizer == "sgd" else training.weight_decay * math.fsum(item.rate for item in course.losses)
    )


def _chance(task: Task, labels: Labels) -> float:
    """The entropy of the classes in nats: the loss of who knows how frequent each is, and no more."""
    counts = labels.counts
    if "per_class" not in task.views or not sum(counts):
        return 0.0
    shares = [count / sum(counts) for count in counts if count > 0]
    return -math.fsum(share * math.log(share) for share in shares)


def _moved(course: Course) -> list[Moved]:
    usual = course.usual
    return [
        Moved(
            item.part,
            item.trained,
            item.delivered,
            item.rate,
            0.0 if usual is None else usual.base if item.part == "base" else usual.head,
        )
        for item in course.travel
    ]


def _of_predictions(task: Task, labels: Labels, columns: dict[str, np.ndarray], high: Check, split: str) -> list[Check]:
    """Of classes, labels, entity types and numbers; of what else is predicted none."""
    import numpy as np

    if "numbers" in task.views:
        true, said = (np.asarray(columns[name], dtype=np.float64) for name in ("truth", "predicted"))
        true, said = true.reshape(len(true), -1), said.reshape(len(said), -1)
        spread = [(float(a), float(b)) for a, b in zip(true.std(0), said.std(0), strict=True)]
        return [constant(dict(zip(labels.names, spread, strict=False)))] if len(true) > 1 else []
    classes = _classes(task, labels, columns)
    return [collapsed(classes, high.fix if high.cause else "", split)] if classes else []


def _classes(task: Task, labels: Labels, columns: dict[str, np.ndarray]) -> list[Said]:
    import numpy as np

    views, names, counts = task.views, labels.names, labels.counts
    true, said = columns.get("truth"), columns.get("predicted")
    if true is None or said is None:
        return []
    if "per_class" in views:
        total, width = [np.bincount(rows, minlength=len(names)) for rows in (true, said)], len(names)
        hits = np.bincount(true[true == said], minlength=width)
        taken = [Counter(said[(true == place) & (said != place)].tolist()).most_common(1) for place in range(width)]
        wrong = [names[found[0][0]] if found else "" for found in taken]
        return _said(names, counts, total[0], total[1], hits, wrong)
    if "per_label" in views:
        return _said(names, counts, true.sum(0), said.sum(0), (true & said).sum(0), [""] * len(names))
    if "per_entity" in views:
        kinds = types_of(names)
        rows = dict(zip(names, counts, strict=False))
        begun = [max((rows.get(f"{lead}-{kind}", 0) for lead in "BIESLU"), default=0) for kind in kinds]
        totals = [columns[name].sum(0) for name in ("truth", "predicted", "hits")]
        return _said(kinds, begun, totals[0], totals[1], totals[2], [""] * len(kinds))
    return []


def _said(
    names: tuple[str, ...] | list[str],
    rows: tuple[int, ...] | list[int],
    true: np.ndarray,
    said: np.ndarray,
    hits: np.ndarray,
    wrong: list[str],
) -> list[Said]:
    columns = (names, rows, true.tolist(), said.tolist(), hits.tolist(), wrong)
    return [Said(*values) for values in zip(*columns, strict=True)]
