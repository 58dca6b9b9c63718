"""Whether probabilities are right so often as they say, when the model is sure enough, and which answers may be true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.calibration import (
    Calibration,
    class_losses,
    class_set,
    label_losses,
    tempered_classes,
    tempered_labels,
)
from tunesmith.data.findings import Finding
from tunesmith.evaluation.calibrating import (
    Units,
    calibration_error,
    covered_range,
    error_interval,
    error_of_the_calibrated,
    plain_bins,
    reliability,
    risk_coverage,
)
from tunesmith.evaluation.groups import groups_tested
from tunesmith.evaluation.intervals import Interval, bootstrap, interval_of, share_of
from tunesmith.evaluation.wording import rows_of, with_interval
from tunesmith.evidence.base import Found, Subject
from tunesmith.tasks._certainty import class_places, evidence_of, label_table
from tunesmith.tasks._metrics import mean_of
from tunesmith.tasks.base import Metric, Scores

if TYPE_CHECKING:
    import numpy as np

UNCALIBRATED = "Not measured: what this task gives is no probability of one class or label for each row."
PRECISIONS = (0.9, 0.95, 0.99)
COVERAGES = (0.8, 0.9, 0.95, 0.99)
# Calibration error beyond that of calibrated probabilities, from which on it is told beside the verdict, where the error's
# interval leaves out 0 as well: on few rows calibrated probabilities are as far off now and then (on 80 rows 1 in 5 times).
FAR = 0.02


def gather(subject: Subject) -> Found | None:
    """Of classes and labels how far their probabilities hold; of classes and numbers what sets and ranges cover."""
    kind = subject.task.certainty
    if kind == "numbers":
        return _of_numbers(subject)
    if kind not in ("classes", "labels"):
        return Found({"unmeasured": UNCALIBRATED})
    known = subject.labels.calibration
    shares = evidence_of(subject.test.predictions)
    temperature = 1.0 if known is None else known.temperature
    units, losses, squares = _read(subject, shares)
    data: dict[str, Any] = {
        "kind": kind,
        "rows": units.rows,
        "units": len(units.probability),
        "grouped": units.groups is not None,
        "validation_rows": 0 if known is None else known.rows,
        "temperature": temperature,
        "why": "none fitted: there are no validation rows" if known is None else known.why,
        "measures": _measures(subject, units, losses, squares),
        "calibrated_error": error_of_the_calibrated(units),
        "bins": plain_bins(reliability(units), subject.recipe.evaluation.confidence),
    }
    if temperature != 1:
        undo = tempered_classes if kind == "classes" else tempered_labels
        data["before"] = _measures(subject, *_read(subject, undo(shares, 1 / temperature)))
    if kind == "labels" or known is None:
        return Found(data, said=_said(units, data["measures"]["error"]["low"]))
    data["curve"] = risk_coverage(units)
    data["precision"], broken = _precisions(subject, known, units)
    data["sets"], missed = _sets(subject, known, shares)
    return Found(
        data,
        findings=[*broken, *missed],
        said=[*_asked(subject, data["precision"]), *_said(units, data["measures"]["error"]["low"])],
    )


def _groups(subject: Subject) -> np.ndarray | None:
    """[rows] of whole numbers; None where each is a draw of its own."""
    scores = subject.test.scores
    return None if groups_tested(scores) is None else scores.groups


def _read(subject: Subject, shares: np.ndarray) -> tuple[Units, np.ndarray, np.ndarray]:
    """The probabilities that are judged, and of each row the loss and the Brier score (Brier 1950), both [rows]."""
    import numpy as np

    truth, rows, groups = subject.test.truth, np.arange(len(shares)), _groups(subject)
    if subject.task.certainty == "classes":
        places = class_places(truth, subject.labels)
        units = Units(shares.max(axis=1), shares.argmax(axis=1) == places, rows, len(rows), groups)
        squares = (shares**2).sum(axis=1) - 2 * shares[rows, places] + 1
        return units, class_losses(shares, places)(rows)(1.0), squares
    table = label_table(truth, subject.labels)
    units = Units(shares.ravel(), table.ravel(), np.repeat(rows, shares.shape[1]), len(rows), groups)
    losses = label_losses(shares, table)(rows)(1.0) / shares.shape[1]
    return units, losses, ((shares - table) ** 2).mean(axis=1)


def _measures(subject: Subject, units: Units, losses: np.ndarray, squares: np.ndarray) -> dict[str, dict[str, float]]:
    import numpy as np

    asked, seed = subject.recipe.evaluation, subject.recipe.seed
    columns = {"truth": np.zeros(units.rows), "loss": losses, "brier": squares}
    metrics: dict[str, Metric] = {name: mean_of(name) for name in ("loss", "brier")}
    means = Scores(columns, metrics, "loss", lower=frozenset(metrics), groups=units.groups)
    found = {"error": error_interval(units, asked.resamples, asked.confidence, seed)}
    for name in metrics:
        found[name] = bootstrap(means, name, asked.resamples, asked.confidence, seed)
    return {name: _plain(interval) for name, interval in found.items()}


def _plain(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


def _precisions(subject: Subject, known: Calibration, units: Units) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Of each precision the threshold from the validation rows, and what it gives on the test rows.

    Where rows are in groups no finding is made of it: validation rows of other groups prove less than as many rows alone.
    """
    asked = subject.recipe.evaluation
    wanted = {*PRECISIONS} if asked.precision is None else {*PRECISIONS, asked.precision}
    rows, findings = [], []
    for precision in sorted(wanted):
        step = known.threshold(precision)
        row: dict[str, Any] = {"wanted": precision, "asked": precision == asked.precision, "above": None}
        if step is None:
            row["unproven"] = known.unproven(precision)
            if row["asked"]:
                row["instead"] = known.instead()
        else:
            passed = units.probability > step.above
            answered = int(passed.sum())
            share = share_of(passed, units.groups, asked.confidence)
            row |= {"above": step.above, "answered": answered, "share": _plain(share), "precision": None}
            if answered:
                of_these = None if units.groups is None else units.groups[passed]
                found = share_of(units.right[passed], of_these, asked.confidence)
                row["precision"] = _plain(found)
                if found.high < precision and units.groups is None:
                    findings.append(Finding("precision", answered, _not_held(precision, found, answered), ()))
        rows.append(row)
    return rows, findings


def _not_held(precision: float, found: Interval, answered: int) -> str:
    return (
        f"answers that are to be right in {100 * precision:g} % of the cases are right in {with_interval(found)} of "
        f"{rows_of(answered, 'test row')}: the test rows seem unlike the validation rows that the threshold comes from"
    )


def _asked(subject: Subject, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the threshold for the precision that the recipe asks for gives."""
    row = next((row for row in rows if row["asked"]), None)
    if row is None:
        return []
    wanted = f"a precision of {row['wanted']:g}"
    if row["above"] is None:
        return [f"No threshold for {wanted} is proven: {row['unproven']}; {row['instead']}."]
    if row["precision"] is None:
        return [f"At {wanted} none of the test rows is answered: no probability is above {row['above']:.4g}."]
    right, share = (with_interval(interval_of(row[name])) for name in ("precision", "share"))
    return [
        f"Above a probability of {row['above']:.4g}, the threshold for {wanted}, {share} of the test rows are answered, and "
        f"{right} of these answers are right."
    ]


def _sets(subject: Subject, known: Calibration, shares: np.ndarray) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Of each coverage how often the sets of classes hold the true one, and how large they are."""
    import numpy as np

    places = class_places(subject.test.truth, subject.labels)
    rows, findings = [], []
    for coverage in COVERAGES:
        quantile = known.quantile(coverage)
        if quantile is None:
            continue
        sets = [class_set(row, quantile) for row in shares.tolist()]
        held = np.array([place in each for place, each in zip(places.tolist(), sets, strict=True)])
        sizes = sorted(map(len, sets))
        row, finding = _covered(subject, known, coverage, held)
        row |= {
            "mean": sum(sizes) / len(sizes),
            "single": sum(size == 1 for size in sizes) / len(sizes),
            "largest": sizes[-1],
        }
        rows.append(row)
        findings += finding
    return rows, findings


def _covered(
    subject: Subject, known: Calibration, coverage: float, held: np.ndarray
) -> tuple[dict[str, Any], list[Finding]]:
    """How many of the rows are `held` [rows], and within which shares that is chance.

    The latter is None where rows are in groups: it would need to be known how unlike the groups are, and no finding is made.
    """
    confidence, tested, groups = subject.recipe.evaluation.confidence, len(held), _groups(subject)
    found = share_of(held, groups, confidence)
    row = {"wanted": coverage, "coverage": _plain(found), "expected": None}
    if groups is not None:
        return row, []
    row["expected"] = list(covered_range(known.rows, tested, coverage, confidence))
    least, _ = covered_range(known.rows, tested, coverage, 1 - (1 - confidence) / len(COVERAGES))
    if found.value >= least:  # of several coverages some are out of their ranges by chance
        return row, []
    message = (
        f"sets that are to hold the truth in {100 * coverage:g} % of the cases hold it in {with_interval(found)} of "
        f"{rows_of(tested, 'test row')}, where at least {least:.3f} is expected: they seem unlike the validation rows"
    )
    return row, [Finding("coverage", tested, message, ())]


def _of_numbers(subject: Subject) -> Found | None:
    """How often the ranges hold all numbers of a row, and how wide they are, in the numbers' own units."""
    import numpy as np

    known = subject.labels.calibration
    if known is None:
        return None
    center, scale = np.array(subject.labels.center), np.array(subject.labels.scale)
    wanted = (np.array(subject.test.truth, dtype=np.float64).reshape(len(subject.test.truth), -1) - center) / scale
    off = np.abs(evidence_of(subject.test.predictions) - wanted).max(axis=1)
    rows, findings = [], []
    for coverage in COVERAGES:
        quantile = known.quantile(coverage)
        if quantile is None:
            continue
        row, finding = _covered(subject, known, coverage, off <= quantile)
        rows.append(row | {"reach": [quantile * unit for unit in subject.labels.scale]})
        findings += finding
    data = {
        "kind": "numbers", "rows": len(off), "validation_rows": known.rows, "names": list(subject.labels.names),
        "sets": rows, "grouped": _groups(subject) is not None,
    }  # fmt: skip
    return Found(data, findings=findings)


def _said(units: Units, least: float) -> list[str]:
    """Whether the probabilities are far off, in which direction; nothing where they are not, or where it may be luck.

    least: the low end of the calibration error's interval.
    """
    beyond = calibration_error(units) - error_of_the_calibrated(units)
    if beyond < FAR or least <= 0:
        return []
    mean, right = float(units.probability.mean()), float(units.right.mean())
    if abs(mean - right) < beyond / 2:
        return [
            f"Do not take its probabilities at their word: they are {beyond:.3f} off on average, some too high and others "
            "too low."
        ]
    side = "higher" if mean > right else "lower"
    return [
        f"Do not take its probabilities at their word: they are {mean:.3f} on average where {right:.3f} are right, {side} "
        "than they should be."
    ]
