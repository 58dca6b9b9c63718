"""What the run was worth: the delivered model on the test rows, against baselines, with intervals and a verdict."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith import __version__
from tunesmith.data.audit import clean
from tunesmith.data.columns import Columns, find_columns
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError
from tunesmith.evaluation.baselines import Baseline, majority, tfidf_logistic
from tunesmith.evaluation.intervals import bootstrap, compare
from tunesmith.evaluation.predictions import write_predictions
from tunesmith.evaluation.report import (
    SCHEMA,
    EvaluationPoint,
    LossPoint,
    Outcome,
    Split,
    build_report,
    write_report,
)
from tunesmith.evaluation.terminal import result_lines
from tunesmith.evaluation.verdict import Cost, judge
from tunesmith.evaluation.wording import metric_title, with_interval
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Evaluated, Event, Note, StepDone
from tunesmith.training.ledger import Ledger

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.predictor import Predictor
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.tasks.base import Prediction

# Findings that compare labels with the stand-ins for the training rows, which are text and two of each label.
OF_STAND_INS = ("rare_class", "label_case", "decimal_label", "mixed_types")


@dataclass(frozen=True)
class Spent:
    """What a run took so far."""

    seconds: float
    cpu_seconds: float
    peak_memory_mb: float


def measure_result(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    built: Built,
    predictor: Predictor,
    opens: str,
    ledger: Ledger,
    spent: Spent,
) -> Iterator[Event]:
    """Writes predictions/, report.json and report.html, and gives the verdict."""
    run, labels = ledger.folder, prepared.labels
    if len(prepared.splits.test) == 0:
        if len(prepared.splits.validation) > 0:
            _predict_split("validation", prepared, predictor, run)
        yield from _unmeasured(recipe, prepared, opens, run)
        return
    _predict_split("validation", prepared, predictor, run)
    found = _predict_split("test", prepared, predictor, run)
    scores = prepared.task.score(found, prepared.truth("test"), labels)
    baselines = baselines_of(recipe, prepared, built, scores)
    chosen = recipe.evaluation
    comparison = compare(
        scores, {item.name: item.scores for item in baselines}, chosen.resamples, chosen.confidence, recipe.seed
    )
    cost = Cost(
        spent.seconds,
        spent.cpu_seconds,
        spent.peak_memory_mb,
        trainable=built.trainable,
        total=sum(parameter.numel() for parameter in predictor.network.parameters()),
        rows=len(prepared.splits.train),
    )
    verdict = judge(
        scores.primary,
        comparison.metrics[scores.primary],
        comparison.of_baselines(scores.primary),
        comparison.gains,
        cost,
        len(found),
        recipe.method.part_name(),
        confidence=chosen.confidence,
    )
    losses, evaluations, best = _curves(ledger)
    outcome = Outcome(
        version=__version__,
        name=run.name,
        task=prepared.task.part_name(),
        model=recipe.model,
        method=recipe.method.part_name(),
        seed=recipe.seed,
        confidence=chosen.confidence,
        data=recipe.data.path,
        splits=[
            Split(name, len(prepared.table(name)), prepared.splits.why.get(name, ""))
            for name in ("train", "validation", "test")
        ],
        scores=scores,
        texts=prepared.texts("test"),
        places=[prepared.splits.test.place(row) for row in range(len(found))],
        comparison=comparison,
        baselines=baselines,
        verdict=verdict,
        cost=cost,
        opens=opens,
        derived=built.derived,
        findings=[*prepared.findings, *encoded.findings],
        losses=losses,
        evaluations=evaluations,
        best_step=best,
    )
    report = build_report(outcome)
    write_report(report, run)
    yield Note("verdict", (verdict.paragraph,))
    yield Note("result", tuple(result_lines(report)[2:]))
    yield Note("model", (f"{run / 'model'} {opens}",))


def baselines_of(recipe: Recipe, prepared: Prepared, built: Built, scores: Scores) -> list[Baseline]:
    """Majority class, TF-IDF with logistic regression, and the frozen features; none where the recipe wants none."""
    if not recipe.evaluation.baselines:
        return []
    index = {name: place for place, name in enumerate(prepared.labels.names)}
    train = [index[label] for label in prepared.truth("train")]
    test = [index[label] for label in prepared.truth("test")]
    names, primary = prepared.labels.names, scores.primary
    found = [
        majority(train, test, names, scores.metrics, primary),
        tfidf_logistic(
            prepared.texts("train"), train, prepared.texts("test"), test, names, scores.metrics, primary, recipe.seed
        ),
    ]
    return found if built.probe is None else [*found, built.probe]


def _predict_split(split: str, prepared: Prepared, predictor: Predictor, run: Path) -> list[Prediction]:
    """Predicts a split's rows and writes them to predictions/. Cut texts were counted when the rows were encoded."""
    found = predictor.quiet_predictions(prepared.texts(split))
    path = run / "predictions" / f"{split}.parquet"
    table, truth = prepared.table(split), prepared.truth(split)
    write_predictions(path, table, prepared.columns.text, truth, found, prepared.labels.names)
    return found


def _unmeasured(recipe: Recipe, prepared: Prepared, opens: str, run: Path) -> Iterator[Event]:
    said = (
        "No test rows were held out, so nothing can be said of how good this model is. Hold some out with "
        "data.test, or measure it on labelled rows it has not seen: tunesmith evaluate."
    )
    report = {
        "schema": SCHEMA,
        "tunesmith": __version__,
        "name": run.name,
        "task": prepared.task.part_name(),
        "model": recipe.model,
        "method": recipe.method.part_name(),
        "seed": recipe.seed,
        "data": {"path": recipe.data.path},
        "metrics": {},
        "baselines": [],
        "verdict": {"helped": None, "paragraph": said},
        "opens": opens,
    }
    write_report(report, run)
    yield Note("verdict", (said,))


def _curves(ledger: Ledger) -> tuple[list[LossPoint], list[EvaluationPoint], int | None]:
    """From the ledger, the last word on each step: a resumed run may have done some steps twice."""
    losses: dict[int, LossPoint] = {}
    evaluations: dict[int, EvaluationPoint] = {}
    best = None
    for event in ledger.events():
        if isinstance(event, StepDone):
            losses[event.step] = LossPoint(event.step, event.epoch, event.loss, event.rate)
        elif isinstance(event, Evaluated):
            evaluations[event.step] = EvaluationPoint(event.step, event.epoch, event.metric, event.value)
            best = event.step if event.best else best
    return [losses[step] for step in sorted(losses)], [evaluations[step] for step in sorted(evaluations)], best


def evaluate_run(run: Path, data: Any, text: str | None = None, label: str | None = None) -> dict[str, Any]:
    """A finished run's model on labelled rows: {"metrics": {name: {value, low, high}}, "rows", "lines", "findings"}.

    Of data in splits only the test rows are taken, or the first split where there is no test; a finding says which.
    Warns with a TunesmithWarning when texts were cut. Raises DataError when the columns cannot be found, or hold
    labels that the model does not know.
    """
    from tunesmith.predictor import load

    predictor = load(run)
    table, chosen = _rows_of(data)
    card = predictor.card
    columns = find_columns(
        table,
        card.text_column if text is None and card.text_column in table.columns else text,
        card.label_column if label is None and card.label_column in table.columns else label,
    )
    known = Table(
        "the run's training rows",
        _one_of_each(columns, card.labels.names),
        tuple(range(1, 2 * len(card.labels.names) + 1)),
    )
    tables, findings = clean({"train": known, "test": table}, columns, "keep")
    if "test" not in tables:
        said = [finding.message for finding in findings]
        raise DataError(f"{table.path}: no labelled rows are left to evaluate on", *said)
    rows = tables["test"]
    found = predictor.predictions(rows.columns[columns.text])
    scores = card.task.score(found, rows.columns[columns.label], card.labels)
    intervals = {name: bootstrap(scores, name, 2000, 0.95, 0) for name in scores.metrics}
    lines = [
        f"{metric_title(name)} {with_interval(interval)} on {len(found):,} rows" for name, interval in intervals.items()
    ]
    return {
        "metrics": {
            name: {"value": item.value, "low": item.low, "high": item.high} for name, item in intervals.items()
        },
        "rows": len(found),
        "lines": lines,
        "findings": [*chosen, *(finding.message for finding in findings if finding.kind not in OF_STAND_INS)],
    }


def _one_of_each(columns: Columns, labels: tuple[str, ...]) -> dict[str, list[Any]]:
    # The audit checks test labels against training labels: two rows of each known label stand for the latter.
    names = [label for label in labels for _ in range(2)]
    return {columns.text: [f"row {place} of label {name}" for place, name in enumerate(names)], columns.label: names}


def _rows_of(data: Any) -> tuple[Table, list[str]]:
    """The rows to measure on, and what is to be said of the splits that they were taken from."""
    from os import PathLike

    if not isinstance(data, str | PathLike):
        return table_of(data, "rows"), []
    tables = read_data(str(data))
    used = "test" if "test" in tables else next(iter(tables))
    others = ", ".join(f"{name} ({len(table):,} rows)" for name, table in tables.items() if name != used)
    if not others:
        return tables[used], []
    return tables[used], [f"{data}: measured on {used} ({len(tables[used]):,} rows); not used: {others}"]
