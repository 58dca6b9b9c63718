"""What a finished model says with care: only where it is sure enough, or all that may be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.calibration import Calibration, Step, class_set
from tunesmith.errors import DataError
from tunesmith.tasks.base import Labels, Prediction, Task


def threshold(task: Task, labels: Labels, precision: float) -> Step:
    """`Calibration.threshold` of a model. Raises DataError where it has none."""
    _between_0_and_1("precision", precision)
    known = _calibrated(task, labels, "precision", ("classes",), "of one class a row")
    found = known.threshold(precision)
    if found is None:
        raise DataError(
            f"precision: {precision:g} is not proven for this model: {known.unproven(precision)}; {known.instead()}; ask for "
            "less, or train with more validation rows (data.validation)"
        )
    return found


def sure_of(found: Sequence[Prediction], step: Step) -> list[bool]:
    """Whether each prediction of a class passes the threshold."""
    return [max(item.evidence) > step.above for item in found]


def sets_of(task: Task, labels: Labels, found: Sequence[Prediction], coverage: float) -> list[Any]:
    """Of each prediction a tuple of classes, the most probable first; of a number (low, high), of several a tuple of these.

    Raises DataError where the model has no sets, or none of this coverage.
    """
    _between_0_and_1("sets", coverage)
    known = _calibrated(task, labels, "sets", ("classes", "numbers"), "of one class a row, or of numbers")
    quantile = known.quantile(coverage)
    if quantile is None:
        raise DataError(
            f"sets: {known.rows:,} validation rows promise a coverage of {known.most_coverage():.4g} at most, and "
            f"{coverage:g} was asked for; ask for less, or train with more validation rows (data.validation)"
        )
    if task.certainty == "classes":
        return [tuple(labels.names[place] for place in class_set(item.evidence, quantile)) for item in found]
    several = [item.value if isinstance(item.value, tuple) else (item.value,) for item in found]
    reach = [quantile * scale for scale in labels.scale]
    ranges = [
        tuple((number - far, number + far) for number, far in zip(numbers, reach, strict=True)) for numbers in several
    ]
    return [each[0] for each in ranges] if len(reach) == 1 else ranges


def set_columns(task: Task, labels: Labels, found: Sequence[Prediction], coverage: float) -> dict[str, list[Any]]:
    """`sets_of` as columns of a table: "set", or "low" and "high", of several numbers "low NAME" and "high NAME"."""
    sets = sets_of(task, labels, found, coverage)
    if task.certainty == "classes":
        return {"set": [list(each) for each in sets]}
    sides = ("low", "high")
    if len(labels.names) == 1:
        return {side: [each[place] for each in sets] for place, side in enumerate(sides)}
    return {
        f"{side} {name}": [each[at][place] for each in sets]
        for at, name in enumerate(labels.names)
        for place, side in enumerate(sides)
    }


def _calibrated(task: Task, labels: Labels, option: str, kinds: tuple[str, ...], wanted: str) -> Calibration:
    if task.certainty not in kinds:
        raise DataError(f"{option}: is for models {wanted}; leave it out")
    if labels.calibration is None:
        raise DataError(
            f"{option}: this model stores nothing of how sure it is: it was trained without validation rows, or by an "
            "earlier release; train it again with data.validation"
        )
    return labels.calibration


def _between_0_and_1(option: str, value: float) -> None:
    if not 0 < value < 1:
        raise DataError(f"{option}: {value:g} is not between 0 and 1; give a share such as 0.95")
