"""Would more training rows help? Quality against the share of the rows, and what a law through it says of twice as many.

The heads are those of the probe, fitted to the frozen features of ever larger parts of the training rows with one penalty,
the one that all rows chose; the method's own curve takes their place where the recipe asks for it. Everything is measured on
the test rows: the curve chooses no model, it decides an advice alone, and validation rows are fewer and have chosen the
penalty already.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Example, unit_targets
from tunesmith.data.nested import nested_order
from tunesmith.evaluation.intervals import Interval, stretched, unseen_share
from tunesmith.evaluation.resampling import drawn_groups, weights_of
from tunesmith.evaluation.wording import gain_in_words, metric_title
from tunesmith.evidence.base import CurvePoint, Found, Frozen, Subject
from tunesmith.evidence.power_law import LEAST_SIZES, Points, extrapolate
from tunesmith.seeds import seed_of
from tunesmith.tasks._weighted import weigh
from tunesmith.tasks.base import CORRELATIONS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tunesmith.tasks.base import Scores
    from tunesmith.training.probe import FittedHead

HALVINGS = 4  # the smallest part is 1/16 of the largest
REPEATS = 3  # parts of one size
# Of L-BFGS for each head, begun from that of half the rows. Banking77: 24 give the same curve as 40 to 0.1 points, 12 do not.
ITERATIONS = 24
LEAST_ROWS, LEAST_A_CLASS = 24, 2  # of a part
RESAMPLES = 100  # of the test rows
OF_GROUPS = 600  # of test rows in groups: one for each law that an interval is read from
MOST_WORK = 2.5e9  # units times width times (outputs + OTHER_WORK), over all fits: about four CPU seconds
OTHER_WORK = 64  # a unit's loss, and reading its features, as so many outputs more
AHEAD = (2, 4)  # times the training rows
DRAWN = 24  # places of the line in the chart
UNHEADED = "this kind of model is not cheaply tried on parts of them; evaluation.curve=method trains it on parts"
NO_WIDTH = 1e-6  # of a gain, below which only rounding moves it
HARDLY = 0.005  # of a metric from 0 to 1, below which more rows are not worth their labels
HARDLY_OF = 0.02  # of one without bounds, as a share of what it is


def gather(subject: Subject) -> Found | None:
    asked = subject.recipe.evaluation.curve
    if asked == "off":
        return None
    frozen = subject.frozen
    headed = frozen is not None and "test" in frozen.features and "train" in frozen.features
    measured = [*subject.curve, CurvePoint(len(subject.train), subject.test.scores)]
    if asked == "method" and subject.curve and (len(measured) >= LEAST_SIZES or not headed):
        return _found(subject, measured, "method")
    if frozen is None or not headed:
        if asked == "method":
            return _unmeasured("the runs on parts of them that were asked for came to nothing")
        return _unmeasured(UNHEADED if subject.recipe.evaluation.baselines else "evaluation.baselines is off")
    measured = _with_heads(subject, frozen, frozen.strength)
    return _found(subject, measured, "frozen") if measured else _unmeasured("there are too few training rows")


def _unmeasured(why: str) -> Found:
    return Found({"unmeasured": why}, said=(f"Whether more training rows would help was not measured: {why}.",))


def _with_heads(subject: Subject, frozen: Frozen, strength: float) -> list[CurvePoint]:
    """Of nested parts of the training rows, each begun from the next smaller one's head."""
    import torch

    examples = frozen.examples["train"]
    units = _units(examples)
    outputs = len(subject.labels.names)
    plan = _parts(examples, len(units), frozen.features["train"].numel() * (outputs + OTHER_WORK))
    if not plan.sizes:
        return []
    features, target = frozen.features["train"], unit_targets(examples)
    length = float(features.norm(dim=1).mean().clamp_min(1e-12))
    shape = torch.nn.Linear(features.shape[1], outputs)
    measured = []
    for repeat in range(plan.repeats):
        order = nested_order(_classes(examples), seed_of(subject.recipe.seed, "curve", repeat))
        head: FittedHead | None = None
        for size in plan.sizes:
            if size == len(units) and repeat > 0:
                continue  # all rows are the same rows
            places = torch.cat([units[row] for row in sorted(order[:size])])
            head = _fit(subject, shape, features[places], target[places], strength, length, head)
            measured.append(CurvePoint(size, _scores(subject, frozen, head)))
    return measured


def _fit(
    subject: Subject,
    shape: Any,
    features: Tensor,
    target: Tensor,
    strength: float,
    length: float,
    start: FittedHead | None,
) -> FittedHead:
    from tunesmith.training.probe import fit_one

    return fit_one(copy.deepcopy(shape), subject.task, features, target, strength, length, start, ITERATIONS)


def _scores(subject: Subject, frozen: Frozen, head: FittedHead) -> Scores:
    """On the test rows, with what the task settles on validation rows settled anew."""
    from tunesmith.training.probe import told_by

    task, labels = subject.task, subject.labels

    def told(split: str) -> list[Any]:
        return told_by(head, task, frozen.features[split], frozen.examples[split], labels)

    found = told("test")
    if subject.validation is not None and "validation" in frozen.features:
        settled = task.settle(told("validation"), subject.validation.truth, labels)
        if settled is not labels:
            found = task.restate(found, settled)
    return task.score(found, subject.test.truth, labels)


@dataclass(frozen=True)
class _Plan:
    sizes: list[int]  # rows of each part, ascending
    repeats: int


def _parts(examples: Sequence[Example], rows: int, work: float) -> _Plan:
    """Halves of halves of the rows, as many of them as say anything; fewer and smaller ones where all would take long."""
    classes = set(_classes(examples))
    least = max(LEAST_ROWS, LEAST_A_CLASS * len(classes))
    largest, repeats = 1.0, REPEATS
    while largest * work * (repeats + 1) > MOST_WORK and repeats > 1:
        repeats -= 1
    while largest * work * (repeats + 1) > MOST_WORK and largest * rows > 2**HALVINGS * least:
        largest /= 2
    sizes = {round(rows * largest / 2**halving) for halving in range(HALVINGS + 1)}
    kept = sorted(size for size in sizes if size >= least)
    return _Plan(kept if len(kept) > 1 else [], repeats)


def _classes(examples: Sequence[Example]) -> list[int]:
    """What parts are to hold in the same shares: the class of each row, where it has one; by row of the split."""
    rows = sorted({example.source: example.target for example in examples}.items())
    return [target if isinstance(target, int) else 0 for _, target in rows]


def _units(examples: Sequence[Example]) -> list[Tensor]:
    """Where the units of each row stand among the features."""
    import torch

    of_row: dict[int, list[int]] = {}
    place = 0
    for example in examples:
        of_row.setdefault(example.source, []).extend(range(place, place + example.units))
        place += example.units
    return [torch.tensor(places, dtype=torch.long) for _, places in sorted(of_row.items())]


def _found(subject: Subject, measured: Sequence[CurvePoint], of: str) -> Found | None:
    scores = measured[0].scores
    metric, groups = scores.primary, subject.test.scores.groups
    if metric in scores.other_scale and metric not in CORRELATIONS:  # 1 is not the most that it can be
        return _unmeasured(f"{metric_title(metric)} has no most that a curve could lead to")
    lower, rows, confidence = metric in scores.lower, len(subject.train), subject.recipe.evaluation.confidence
    seed = seed_of(subject.recipe.seed, "curve")
    measured = [replace(point, scores=replace(point.scores, groups=groups)) for point in measured]  # rows are the same
    points = _points(measured, metric, seed, confidence)
    smallest = min(point.rows for point in measured)
    line = [smallest * (max(AHEAD) * rows / smallest) ** (place / (DRAWN - 1)) for place in range(DRAWN)]
    law = extrapolate(points, [*(times * rows for times in AHEAD), *line], rows, confidence, seed)
    data: dict[str, Any] = {
        "of": of,
        "metric": metric,
        "lower": lower,
        "rows": rows,
        "points": [
            {"rows": size, "values": [_value(e, lower) for e in points.errors[points.rows == size].tolist()]}
            for size in sorted({point.rows for point in measured})
        ],
        "law": None if law is None else asdict(law.law),
        "line": [],
        "ahead": [],
        "says": "untold",
    }
    if law is None:
        return Found(data)
    unseen = 0.0 if lower else _unseen(points, measured[0].scores, metric, confidence)
    gains = [_at_least(gain, unseen) for gain in law.gains]
    told = [asdict(_flipped(_at_least(item, unseen), metric, lower)) for item in law.errors]
    data["ahead"] = [
        {"times": times, "rows": times * rows, **value, "gain": asdict(gain)}
        for times, value, gain in zip(AHEAD, told, gains, strict=False)
    ]
    data["line"] = [{"rows": size, **value} for size, value in zip(line, told[len(AHEAD) :], strict=True)]
    data["says"] = _says(gains[0], _value(law.law.at(rows), lower), lower)
    return Found(data, said=(sentence(data),))


def _unseen(points: Points, scores: Scores, metric: str, confidence: float) -> float:
    """What the error of all training rows may be at most where not one mistake was seen; 0 where there was one.

    No resample of rows without a mistake holds one, and nothing can be gained beyond the error that there is: so that share
    of rows, or groups of them, is as much as more training rows may bring (`unseen_share`; twice that of a correlation).
    """
    least, most = scores.bounds(metric) or (0.0, 0.0)
    if points.errors[points.rows == points.rows.max()].any():
        return 0.0
    drawn = drawn_groups(scores.groups_of(metric))
    draws = len(scores.of(metric)["truth"]) if drawn is None else drawn.groups
    return (most - least) * unseen_share(draws, confidence)


def _at_least(error: Interval, unseen: float) -> Interval:
    return Interval(error.value, error.low, max(error.high, unseen))


def _points(measured: Sequence[CurvePoint], metric: str, seed: int, confidence: float) -> Points:
    import numpy as np

    lower = metric in measured[0].scores.lower
    values = [point.scores.value(metric) for point in measured]
    kept = [place for place, value in enumerate(values) if value == value]  # undefined of what says one thing only
    rows = np.array([measured[place].rows for place in kept])
    drawn = np.stack([_resampled(measured[place].scores, metric, seed, confidence) for place in kept], axis=1)
    here = np.array([values[place] for place in kept])
    drawn = np.where(np.isnan(drawn), here, drawn)
    return Points(rows, here, drawn) if lower else Points(rows, 1 - here, 1 - drawn)


def _resampled(scores: Scores, metric: str, seed: int, confidence: float) -> np.ndarray:
    """[resamples] the metric on test rows drawn again; the same draws for all scores of as many rows.

    Of whole groups where they are in groups, and then as far apart as the interval of a metric is wide (`stretched`).
    """
    import numpy as np

    if drawn_groups(scores.groups_of(metric)) is None:
        columns = scores.of(metric)
        weighed, rows = weigh(scores.metrics[metric], columns), len(columns["truth"])
        return np.concatenate([weighed(some) for some in weights_of(rows, RESAMPLES, seed, np.zeros(rows, np.int64))])
    return stretched(scores, metric, OF_GROUPS, confidence, seed)


def _value(error: float, lower: bool) -> float:
    return error if lower else 1 - error


def _flipped(error: Interval, metric: str, lower: bool) -> Interval:
    """The metric of an error, within what it can be: from 0 on, to 1 where more is better; correlations from -1 on."""
    if lower:
        return Interval(*(max(0.0, edge) for edge in (error.value, error.low, error.high)))
    least = -1.0 if metric in CORRELATIONS else 0.0
    return Interval(*(min(1.0, max(least, 1 - edge)) for edge in (error.value, error.high, error.low)))


def _says(gain: Interval, value: float, lower: bool) -> str:
    hardly = HARDLY_OF * value if lower else HARDLY
    if gain.high - gain.low < NO_WIDTH:
        return "unclear"  # no resample differs: too few rows, or none right
    if gain.high < hardly:
        return "hardly"
    return "helps" if gain.low > 0 and gain.value >= hardly else "unclear"


def sentence(data: Mapping[str, Any]) -> str:
    """What twice the rows would bring, for who has a deadline."""
    twice = data["ahead"][0]
    gain = Interval(twice["gain"]["value"], twice["gain"]["low"], twice["gain"]["high"])
    much = gain_in_words(gain, data["metric"], data["lower"])
    by = "the frozen features' curve" if data["of"] == "frozen" else "this method's own curve"
    if data["says"] == "helps":
        return f"Twice the training rows would bring about {much} ({by})."
    if data["says"] == "hardly":
        return f"More training rows would hardly help: twice as many would bring about {much} ({by})."
    return f"Whether more training rows would help cannot be told: twice as many would bring about {much} ({by})."
