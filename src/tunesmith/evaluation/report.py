"""The result of a run as plain data (report.json), and as a page (report.html)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.encode import Text
from tunesmith.data.images import Picture
from tunesmith.evaluation.advising import advised
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.card import render_card
from tunesmith.evaluation.groups import groups_tested
from tunesmith.evaluation.intervals import Comparison
from tunesmith.evaluation.page import render
from tunesmith.evaluation.verdict import Cost, Verdict
from tunesmith.evaluation.views import view
from tunesmith.files import whole_file
from tunesmith.recipe import Derived
from tunesmith.tasks.base import Labels, Mistake, Scores

if TYPE_CHECKING:
    from tunesmith.data.findings import Finding

SCHEMA = 3  # of report.json; raised when a key changes its meaning or goes away
MISTAKES = 100
PICTURED = 30  # mistakes where each is a picture, so that the page stays below 1 MB
BEFORE = 150  # characters shown before the first marked mistake of a long text
BETWEEN = "  |  "  # two texts of a row
THUMBNAIL = 128  # pixels of the longer side of a mistaken picture
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
    norm: float = 0.0  # of the gradient, before clipping


@dataclass(frozen=True)
class EvaluationPoint:
    step: int
    epoch: float
    metric: str
    value: float
    loss: float  # mean over the validation rows
    error: float = 0.0  # one standard error of `value`


@dataclass(frozen=True)
class Outcome:
    """All that the report tells, filled in by whoever ran it."""

    version: str  # of Tunesmith
    name: str  # of the run
    task: str
    pipeline_tag: str  # what the hub calls such models
    model: str
    method: str
    seed: int
    confidence: float  # coverage of every interval
    data: str  # path or name, as asked
    splits: Sequence[Split]
    scores: Scores  # of the test rows
    labels: Labels
    views: Sequence[str]  # files of evaluation/views/
    worst: str  # what is said over the worst mistakes
    truth_is: str  # what a mistake's target is called
    texts: Sequence[Text]  # of the test rows, in the order of `scores`
    mistakes: Sequence[Mistake | None]  # of the test rows, in the same order
    places: Sequence[str]  # "file:line" of the test rows, in the same order
    comparison: Comparison
    baselines: Sequence[Baseline]
    verdict: Verdict
    cost: Cost
    opens: str  # how model/ opens, in one line
    derived: Sequence[Derived] = ()
    findings: Sequence[Finding] = ()
    unexamined: Sequence[str] = ()  # what the audit did not look at, and why
    uncompared: Sequence[str] = ()  # why rivals that could be expected are missing
    losses: Sequence[LossPoint] = ()
    evaluations: Sequence[EvaluationPoint] = ()
    best_step: int | None = None  # of the checkpoint that was kept
    shares: Mapping[str, Any] | None = None  # of the base's own weights, that were tried
    evidence: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # by panel
    beside: Sequence[str] = ()  # what the evidence has to say beside the verdict
    beside_of: Sequence[str] = ()  # the panel of each of these
    recipe: Mapping[str, Any] = field(default_factory=dict)  # as asked
    manifest: Mapping[str, Any] = field(default_factory=dict)  # what the run stands on: base, rows, versions, machine


def build_report(outcome: Outcome) -> dict[str, Any]:
    """Plain data (None, bool, int, float, str, list, dict) that JSON holds without loss.

    Raises ValueError when texts or places are not one a test row.
    """
    rows = len(outcome.scores.columns["truth"])
    sizes = [len(part) for part in (outcome.texts, outcome.places, outcome.mistakes)]
    if sizes != [rows] * len(sizes):
        raise ValueError(f"{rows} scores for {sizes} texts, places and mistakes")
    comparison = outcome.comparison
    report = {
        "schema": SCHEMA,
        "tunesmith": outcome.version,
        "name": outcome.name,
        "task": outcome.task,
        "pipeline_tag": outcome.pipeline_tag,
        "model": outcome.model,
        "method": outcome.method,
        "seed": outcome.seed,
        "confidence": outcome.confidence,
        "data": {
            "path": outcome.data,
            "splits": [asdict(split) for split in outcome.splits],
            "unexamined": list(outcome.unexamined),
        },
        "derived": [asdict(item) for item in outcome.derived],
        "findings": [item.brief() for item in outcome.findings],
        "primary": outcome.scores.primary,
        "lower": sorted(outcome.scores.lower),
        "metrics": {name: asdict(interval) for name, interval in comparison.metrics.items()},
        "rows_tested": rows,
        "groups_tested": groups_tested(outcome.scores),
        "views": list(outcome.views),
        **{name: view(name).build(outcome.scores, outcome.labels) for name in outcome.views},
        "baselines": [_baseline(item, comparison) for item in outcome.baselines],
        "uncompared": list(outcome.uncompared),
        "gains": {name: asdict(interval) for name, interval in comparison.gains.items()},
        "tests": {name: asdict(test) for name, test in comparison.tests.items()},
        "verdict": asdict(outcome.verdict),
        "cost": asdict(outcome.cost),
        "curves": {
            "losses": [asdict(point) for point in outcome.losses],
            "evaluations": [asdict(point) for point in outcome.evaluations],
            "best_step": outcome.best_step,
        },
        "shares": outcome.shares,
        "evidence": outcome.evidence,
        "beside": outcome.beside,
        "beside_of": outcome.beside_of,
        "recipe": outcome.recipe,
        "manifest": outcome.manifest,
        "worst": outcome.worst,
        "truth_is": outcome.truth_is,
        "mistakes": mistakes(outcome.mistakes, outcome.texts, outcome.places),
        "opens": outcome.opens,
    }
    return advised(plain(report))


def write_report(report: dict[str, Any], run: Path) -> None:
    """Writes report.html, README.md and then report.json into `run`, each whole or not at all.

    report.json is last, since it marks the run as finished.
    """
    page = render(report)
    text = json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False)
    # A lone surrogate cannot be UTF-8: in JSON its escape says the same, in HTML "?" stands for it.
    write_page(run / "report.html", page)
    write_page(run / "README.md", render_card(report, run))
    _write(run / "report.json", text.encode("utf-8", "backslashreplace"))


def mistakes(found: Sequence[Mistake | None], texts: Sequence[Text], places: Sequence[str]) -> list[dict[str, Any]]:
    """The 100 worst of the wrong predictions (30 of pictures), worst first.

    `found` has one entry a test row, None where it is right.
    """
    wrong = [(row, item) for row, item in enumerate(found) if item is not None]
    wrong.sort(key=lambda pair: (-pair[1].severity, pair[0]))
    return [
        {
            "place": places[row],
            "text": _shortened(texts[row]),
            "truth": item.truth,
            "predicted": item.said,
            "detail": item.detail,
            "severity": item.severity,
        }
        | _marked(texts[row], item)
        | _pictured(texts[row])
        for row, item in wrong[: PICTURED if texts and isinstance(texts[0], Picture) else MISTAKES]
    ]


def _marked(read: Text, item: Mistake) -> dict[str, Any]:
    """An excerpt around the first mistake of a text with marked places, and the places in it; {} without marks.

    Of several texts that with the marks, the others before it.
    """
    if not item.marks:
        return {}
    first = min((mark for mark in item.marks if mark.kind != "right"), key=lambda mark: mark.start)
    whole = read if isinstance(read, str) else read[first.part]
    others = () if isinstance(read, str) else (text for part, text in enumerate(read) if part != first.part)
    start = max(0, first.start - BEFORE) if len(whole) > TEXT_SHOWN else 0
    lead = "".join(f"{_shortened(text)}{BETWEEN}" for text in others) + ("... " if start > 0 else "")
    tail = " ..." if len(whole) > start + TEXT_SHOWN else ""
    marks = [
        {
            "start": max(0, mark.start - start) + len(lead),
            "end": min(mark.end - start, TEXT_SHOWN) + len(lead),
            "label": mark.label,
            "kind": mark.kind,
        }
        for mark in item.marks
        if mark.part == first.part and mark.end > start and mark.start < start + TEXT_SHOWN
    ]
    return {"text": lead + whole[start : start + TEXT_SHOWN] + tail, "marks": marks}


def _pictured(read: Text) -> dict[str, Any]:
    return {"picture": read.thumbnail(THUMBNAIL)} if isinstance(read, Picture) else {}


def _baseline(baseline: Baseline, comparison: Comparison) -> dict[str, Any]:
    metrics = {name: asdict(interval) for name, interval in comparison.baselines[baseline.name].items()}
    return {"name": baseline.name, "what": baseline.what, "metrics": metrics, "seconds": baseline.seconds}


def _shortened(read: Text) -> str:
    text = read if isinstance(read, str) else BETWEEN.join(read)
    return text if len(text) <= TEXT_SHOWN else text[:TEXT_SHOWN].rstrip() + " ..."


def plain(value: Any) -> Any:
    """Tuples as lists, and None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_page(path: Path, page: str) -> None:
    """Whole or not at all; half an emoji is shown as "?"."""
    _write(path, page.encode("utf-8", "replace"))


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as partial:
        partial.write_bytes(content)
