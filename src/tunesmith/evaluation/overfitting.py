"""How much better a model is on rows that it learned from, and from where on more learning cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

from tunesmith.data.findings import Finding
from tunesmith.evaluation.groups import groups_tested
from tunesmith.evaluation.health import Check
from tunesmith.evaluation.intervals import Interval, bootstrap, standard_error
from tunesmith.evaluation.subsets import apart
from tunesmith.evaluation.wording import figures, metric_title, rows_of

if TYPE_CHECKING:
    from tunesmith.evaluation.report import EvaluationPoint
    from tunesmith.tasks.base import Scores

LEAST = 0.005  # that is not 0 % in words
RESAMPLES = 2_000  # of test rows in groups
ROSE = 0.05  # share by which the validation loss rises from its lowest value before it is called overfitting


@dataclass(frozen=True)
class Gap:
    """How much better a metric is on training rows than on test rows, with an interval."""

    metric: str
    trained: float
    tested: float
    rows: int  # training rows
    better: float  # positive where it is better on training rows, whichever way the metric goes
    low: float
    high: float


def gap_between(trained: Scores, tested: Scores, confidence: float) -> Gap:
    """Of the primary metric. The rows are other ones on both sides, so the variances of both values add up.

    Of shares by Newcombe's method (1998, "Interval estimation for the difference between independent proportions", method
    10): the normal one has no width where no mistake is seen, which is usual on training rows. Of test rows in groups with
    the ends of `bootstrap` (as Zou and Donner 2008 do with any interval).
    """
    name = tested.primary
    times = NormalDist().inv_cdf((1 + confidence) / 2)
    counted = name in tested.shares
    here, there = (
        _wilson(scores.value(name), _rows(scores, name), times) if counted else _normal(scores, name, times)
        for scores in (trained, tested)
    )
    if groups_tested(tested) is not None:
        there = bootstrap(tested, name, RESAMPLES, confidence, 0)
    gap = apart(here, there, name in tested.lower)
    return Gap(name, here.value, there.value, _rows(trained, name), gap.value, gap.low, gap.high)


def _rows(scores: Scores, metric: str) -> int:
    return len(scores.of(metric)["truth"])


def _normal(scores: Scores, metric: str, times: float) -> Interval:
    """`times` standard errors to each side."""
    value, reach = scores.value(metric), times * standard_error(scores, metric)
    return Interval(value, value - reach, value + reach)


def _wilson(share: float, rows: int, times: float) -> Interval:
    """The score interval of a share (Wilson 1927), `times` standard errors to each side."""
    square = times * times / rows
    middle = (share + square / 2) / (1 + square)
    reach = times / (1 + square) * math.sqrt(share * (1 - share) / rows + square / (4 * rows))
    return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))


def overfitting(gap: Gap | None, points: Sequence[EvaluationPoint], lower: Sequence[str]) -> Finding | None:
    """In words, with what to change where the validation loss rose; None where nothing was measured."""
    said = [] if gap is None else [_gap_said(gap)]
    if len(points) > 1:
        said.append(_loss_said(points, lower, gap is None or gap.better > 0))
    numbers = {} if gap is None else {"gap": gap.better, "low": gap.low, "high": gap.high}
    return (
        Finding("overfitting", 0 if gap is None else gap.rows, "; ".join(said), (), numbers=numbers) if said else None
    )


def by_heart(points: Sequence[EvaluationPoint], lower: Sequence[str]) -> Check | None:
    """The same as a line among other checks; None where nothing was measured before the end."""
    if len(points) < 2:
        return None
    least, last = min(points, key=lambda point: point.loss), points[-1]
    figure = f"lowest {least.loss:.4g} at epoch {least.epoch:g}, step {least.step:,}; {last.loss:.4g} at the end"
    rises = least.loss > 0 and last.loss / least.loss - 1 >= ROSE
    if not rises or not _worse(least, last, lower):
        return Check("overfitting", "validation loss", figure)
    cause = f"from step {least.step:,} on it learned its training rows by heart: the validation loss rose"
    return Check(
        "overfitting", "validation loss", figure, cause, f"give --set training.epochs={max(1, round(least.epoch))}"
    )


def _worse(least: EvaluationPoint, last: EvaluationPoint, lower: Sequence[str]) -> bool:
    return last.value > least.value if last.metric in lower else last.value < least.value


def _gap_said(gap: Gap) -> str:
    value, low, high = figures(gap.better, gap.low, gap.high)
    return (
        f"{metric_title(gap.metric)} is {figures(gap.trained)[0]} on {rows_of(gap.rows, 'training row')} and "
        f"{figures(gap.tested)[0]} on the test rows, a gap of {value} [{low}, {high}]"
    )


def _loss_said(points: Sequence[EvaluationPoint], lower: Sequence[str], learned: bool) -> str:
    """`learned`: whether the model is better on its training rows than on others."""
    least, last = min(points, key=lambda point: point.loss), points[-1]
    if least is last or least.loss <= 0:
        return f"the validation loss was still at its lowest at the end ({last.loss:.4f})"
    rise = last.loss / least.loss - 1
    lowest = f"the validation loss was lowest at epoch {least.epoch:g}, step {least.step:,} ({least.loss:.4f})"
    curve = f"{lowest}, and {100 * rise:.0f} % higher at the end"
    if rise < ROSE:
        return curve if rise >= LEAST else lowest
    worse = _worse(least, last, lower)
    if worse and not learned:
        return f"{curve}: not for learning its training rows by heart; give a lower training.rate"
    if worse:
        return (
            f"{curve}: from there on it learned its training rows by heart; give fewer training.epochs or a lower "
            "training.rate, use a method that changes less (lora, layers, head), or more rows"
        )
    return f"{curve}, while {metric_title(last.metric)} did not fall: it is surer of its mistakes, and makes no more of them"
