"""The result of a run as plain data (report.json), and as a page (report.html)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.baselines import Baseline
from tunesmith.evaluation.intervals import Comparison
from tunesmith.evaluation.page import render
from tunesmith.evaluation.verdict import Cost, Verdict
from tunesmith.recipe import Derived
from tunesmith.tasks.base import Scores

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.data.audit import Finding

SCHEMA = 1  # of report.json; raised when a key changes its meaning or goes away
MISTAKES = 30
PAIRS = 20
TEXT_SHOWN = 600  # characters of a mistaken text; the whole of it is in predictions/


@dataclass(frozen=True)
class Split:
    """One part of the data: "train", "validation", "test"."""

    name: str
    rows: int
    why: str  # how it came about


@dataclass(frozen=True)
class LossPoint:
    step: int
    epoch: float
    loss: float
    rate: float


@dataclass(frozen=True)
class EvaluationPoint:
    step: int
    epoch: float
    metric: str
    value: float


@dataclass(frozen=True)
class Outcome:
    """All that the report tells, filled in by whoever ran it."""

    version: str  # of Tunesmith
    name: str  # of the run
    task: str
    model: str
    method: str
    seed: int
    confidence: float  # coverage of every interval
    data: str  # path or name, as asked
    splits: Sequence[Split]
    scores: Scores  # of the test rows
    texts: Sequence[str]  # of the test rows, in the order of `scores`
    places: Sequence[str]  # "file:line" of the test rows, in the same order
    comparison: Comparison
    baselines: Sequence[Baseline]
    verdict: Verdict
    cost: Cost
    opens: str  # how model/ opens, in one line
    derived: Sequence[Derived] = ()
    findings: Sequence[Finding] = ()
    losses: Sequence[LossPoint] = ()
    evaluations: Sequence[EvaluationPoint] = ()
    best_step: int | None = None  # of the checkpoint that was kept


def build_report(outcome: Outcome) -> dict[str, Any]:
    """Plain data (None, bool, int, float, str, list, dict) that JSON holds without loss.

    Raises ValueError when texts or places are not one a test row.
    """
    rows = len(outcome.scores.columns["truth"])
    if not rows == len(outcome.texts) == len(outcome.places):
        raise ValueError(f"{rows} scores for {len(outcome.texts)} texts and {len(outcome.places)} places")
    matrix = confusion_matrix(outcome.scores)
    labels = list(outcome.scores.labels)
    comparison = outcome.comparison
    report = {
        "schema": SCHEMA,
        "tunesmith": outcome.version,
        "name": outcome.name,
        "task": outcome.task,
        "model": outcome.model,
        "method": outcome.method,
        "seed": outcome.seed,
        "confidence": outcome.confidence,
        "data": {"path": outcome.data, "splits": [asdict(split) for split in outcome.splits]},
        "derived": [asdict(item) for item in outcome.derived],
        "findings": [asdict(item) for item in outcome.findings],
        "primary": outcome.scores.primary,
        "metrics": {name: asdict(interval) for name, interval in comparison.metrics.items()},
        "per_class": per_class(matrix, labels),
        "confusion": {"labels": labels, "matrix": matrix.tolist(), "confused": confused(matrix, labels)},
        "baselines": [_baseline(item, comparison) for item in outcome.baselines],
        "gains": {name: asdict(interval) for name, interval in comparison.gains.items()},
        "verdict": asdict(outcome.verdict),
        "cost": asdict(outcome.cost),
        "curves": {
            "losses": [asdict(point) for point in outcome.losses],
            "evaluations": [asdict(point) for point in outcome.evaluations],
            "best_step": outcome.best_step,
        },
        "mistakes": mistakes(outcome.scores, outcome.texts, outcome.places),
        "opens": outcome.opens,
    }
    return _plain(report)


def write_report(report: dict[str, Any], run: Path) -> None:
    """Writes report.html and then report.json into `run`, each whole or not at all.

    report.json is last, since it marks the run as finished.
    """
    page = render(report)
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    # A lone surrogate cannot be UTF-8: in JSON its escape says the same, in HTML "?" stands for it.
    _write(run / "report.html", page.encode("utf-8", "replace"))
    _write(run / "report.json", text.encode("utf-8", "backslashreplace"))


def confusion_matrix(scores: Scores) -> np.ndarray:
    """Test rows by [true class, predicted class]."""
    import numpy as np

    classes = len(scores.labels)
    cells = scores.columns["truth"] * classes + scores.columns["predicted"]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and test rows (support) of each class; a ratio with nothing below the line is 0."""
    lines = []
    for place, label in enumerate(labels):
        hits, true, said = (int(n) for n in (matrix[place, place], matrix[place].sum(), matrix[:, place].sum()))
        lines.append(
            {
                "label": label,
                "precision": hits / said if said else 0.0,
                "recall": hits / true if true else 0.0,
                "f1": 2 * hits / (true + said) if true + said else 0.0,
                "support": true,
            }
        )
    return lines


def confused(matrix: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs most often confused: `count` of the `support` rows of class `truth` were called `predicted`."""
    pairs = [
        (int(matrix[truth, predicted]), truth, predicted)
        for truth, predicted in zip(*matrix.nonzero(), strict=True)
        if truth != predicted
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    return [
        {
            "truth": labels[truth],
            "predicted": labels[predicted],
            "count": number,
            "support": int(matrix[truth].sum()),
        }
        for number, truth, predicted in pairs[:PAIRS]
    ]


def mistakes(scores: Scores, texts: Sequence[str], places: Sequence[str]) -> list[dict[str, Any]]:
    """The 30 wrong predictions that the model was surest of, surest first."""
    columns = scores.columns
    wrong = (columns["truth"] != columns["predicted"]).nonzero()[0].tolist()
    wrong.sort(key=lambda row: (-columns["probability"][row], row))
    return [
        {
            "place": places[row],
            "text": _shortened(str(texts[row])),
            "truth": scores.labels[columns["truth"][row]],
            "predicted": scores.labels[columns["predicted"][row]],
            "probability": float(columns["probability"][row]),
        }
        for row in wrong[:MISTAKES]
    ]


def _baseline(baseline: Baseline, comparison: Comparison) -> dict[str, Any]:
    metrics = {name: asdict(interval) for name, interval in comparison.baselines[baseline.name].items()}
    return {"name": baseline.name, "what": baseline.what, "metrics": metrics, "seconds": baseline.seconds}


def _shortened(text: str) -> str:
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].rstrip() + " ..."


def _plain(value: Any) -> Any:
    """Tuples as lists, and None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _write(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
