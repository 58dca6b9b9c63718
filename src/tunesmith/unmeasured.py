"""The report of a run without test rows: not how good the model is, but all that is known without them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.evaluation.advising import advised
from tunesmith.evaluation.cost import Cost, cost_lines
from tunesmith.evaluation.report import SCHEMA, Split, plain, write_report
from tunesmith.evaluation.verdict import Verdict
from tunesmith.evidence import health
from tunesmith.evidence.base import Course, Found, Measured
from tunesmith.evidence.gathering import guarded
from tunesmith.preparing import SPLITS, Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.events import Event, Note
from tunesmith.training.ledger import Ledger

if TYPE_CHECKING:
    from tunesmith.assembly import Built

SAID = "No test rows were held out, so nothing can be said of how good this model is."


def report_unmeasured(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    built: Built,
    ledger: Ledger,
    opens: str,
    cost: Cost,
    course: Course,
    held: Measured | None,
) -> Iterator[Event]:
    """Writes report.json and report.html. `held`: the validation rows, where there are any.

    Of the examinations health alone: it is of the course of training. Slices, calibration and the learning curve tell how
    good the model is on rows that chose nothing, and validation rows have chosen its best state, its temperature and the
    penalty of the heads that the curve is made of.
    """
    found: dict[str, Found] = {}
    if not recipe.evaluation.quick:
        task, labels = prepared.task, prepared.labels
        item = guarded("health", lambda: health.examined(recipe, task, labels, course, held, "validation"))
        found = {} if item is None else {"health": item}
    findings = [
        *prepared.findings,
        *encoded.findings,
        *built.audit,
        *(one for of in found.values() for one in of.findings),
    ]
    beside = [line for of in found.values() for line in of.said]
    splits = [Split(name, len(prepared.table(name)), prepared.splits.why.get(name, "")) for name in SPLITS]
    report = {
        "schema": SCHEMA,
        "tunesmith": __version__,
        "name": ledger.folder.name,
        "task": prepared.task.part_name(),
        "pipeline_tag": prepared.task.pipeline_tag,
        "model": recipe.model,
        "method": recipe.method_name,
        "seed": recipe.seed,
        "data": {
            "path": recipe.data.path,
            "splits": [asdict(split) for split in splits],
            "unexamined": list(built.unexamined),
        },
        "derived": [asdict(item) for item in built.derived],
        "findings": [item.brief() for item in findings],
        "lower": [] if held is None else sorted(held.scores.lower),
        "metrics": {},
        "baselines": [],
        "uncompared": [],
        "verdict": asdict(Verdict(None, SAID, lead=SAID)),
        "cost": asdict(cost),
        "curves": {
            "losses": [asdict(point) for point in course.losses],
            "evaluations": [asdict(point) for point in course.evaluations],
            "best_step": course.kept,
        },
        "evidence": {name: of.data for name, of in found.items()},
        "beside": beside,
        "beside_of": [name for name, of in found.items() for _ in of.said],
        "recipe": ledger.recipe().to_plain(),
        "manifest": ledger.manifest(),
        "opens": opens,
    }
    report = advised(plain(report))
    write_report(report, ledger.folder)
    yield from (Note("verdict", (SAID, *beside)), Note("cost", cost_lines(cost)), advice_note(report))


def advice_note(report: Mapping[str, Any]) -> Note:
    """What to do next, the last that a run says."""
    return Note("advice", (report["advice"]["paragraph"],))
