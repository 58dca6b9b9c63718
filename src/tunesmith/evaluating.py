"""`tunesmith evaluate` without its printing: a finished run's model on rows that the caller names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.audit import clean
from tunesmith.data.columns import Asked
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.data.units import groups_of_rows
from tunesmith.errors import DataError
from tunesmith.evaluation.groups import grouped, groups_tested, too_few
from tunesmith.evaluation.intervals import RESAMPLES, compare
from tunesmith.evaluation.wording import metric_title, rows_of, with_interval
from tunesmith.predictor import load
from tunesmith.preparing import texts_of
from tunesmith.recipe import EvaluationSpec, Recipe, read_recipe_file
from tunesmith.runs import RECIPE
from tunesmith.seen import seen_line

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores


def evaluate_run(
    run: Path,
    data: Any,
    text: str | None = None,
    label: str | tuple[str, ...] | None = None,
    pair: str | None = None,
) -> dict[str, Any]:
    """A finished run's model on labelled rows: {"metrics": {name: {value, low, high}}, "confidence", "rows", "groups",
    "lines", "findings"}.

    Intervals are as sure as the run's recipe asks for (95 % of a model without its run), and draw whole groups where the
    run's rows are grouped by a column that these have too; a finding says so, or that they have none.
    Of data in splits only the test rows are taken, or the first split where there is no test; a finding says which.
    Warns with a TunesmithWarning when texts were cut. Raises DataError when the columns cannot be found, or hold
    labels that the model does not know.
    """
    import numpy as np

    predictor = load(run)
    if pair is not None and predictor.card.pair_column is None:
        raise DataError("--pair: this model was trained on one text a row; leave it out")
    table, chosen = _rows_of(data)
    card, recipe = predictor.card, _recipe_of(run)
    confidence = EvaluationSpec().confidence if recipe is None else recipe.evaluation.confidence
    group = None if recipe is None else recipe.data.group
    asked = Asked(
        _of_the_run(text, card.text_column, table),
        _of_the_run(label, card.label_column, table),
        group if group in table.columns else None,
        card.pair_column if pair is None else pair,
    )
    columns = card.task.find(table, asked)
    table, names = card.task.read(table, columns), card.labels.names
    target = card.task.target(table.columns[columns.label], columns.parts or (columns.label,), names)
    tables, findings = clean({"test": table}, columns, target, known=names)
    if "test" not in tables:
        said = [finding.message for finding in findings]
        raise DataError(f"{table.path}: no labelled rows are left to evaluate on", *said)
    rows = tables["test"]
    texts = texts_of(rows, columns)
    truth = rows.columns[columns.label]
    judged = card.task.judges_by_truth
    found = predictor.judged(texts, truth, answers=True) if judged else predictor.predictions(texts)
    trained_on = seen_line(run, texts, target.swaps)
    scores = card.task.score(found, truth, card.labels)
    groups = groups_of_rows(rows, columns)
    if groups is not None:
        scores = replace(scores, groups=np.array(groups))
    intervals = compare(scores, {}, RESAMPLES, confidence, 0).metrics
    lines = [
        f"{metric_title(name)} {with_interval(interval)} on "
        + rows_of(len(scores.of(name)["truth"]), "written answer" if name in scores.written else "row")
        for name, interval in intervals.items()
    ]
    return {
        "metrics": {
            name: {"value": item.value, "low": item.low, "high": item.high} for name, item in intervals.items()
        },
        "confidence": confidence,
        "rows": len(found),
        "groups": groups_tested(scores),
        "lines": lines,
        "findings": [
            *chosen,
            *([trained_on] if trained_on else []),
            *(finding.message for finding in findings),
            *_of_groups(scores, group, table),
        ],
    }


def _recipe_of(run: Path) -> Recipe | None:
    """The recipe of a run; None of a model without its run."""
    path = run / RECIPE
    return Recipe.parse(read_recipe_file(path)) if path.is_file() else None


def _of_groups(scores: Scores, group: str | None, table: Table) -> list[str]:
    """How the rows are drawn, where those of the run are in groups."""
    if group is None:
        return []
    if group not in table.columns:
        return [
            f'{table.path}: has no column "{group}", by which the run\'s rows are grouped, so that rows are drawn alone: '
            "where rows of one group are alike, intervals are too narrow"
        ]
    few = too_few(groups_tested(scores))
    return [*(finding.message for finding in grouped(scores, group)), *([few] if few else [])]


def _of_the_run(asked: Any, trained: str | tuple[str, ...], table: Table) -> Any:
    """The column asked for, else the one trained on where the table has it, else None: to be found by looking."""
    parts = (trained,) if isinstance(trained, str) else trained
    return trained if asked is None and all(part in table.columns for part in parts) else asked


def _rows_of(data: Any) -> tuple[Table, list[str]]:
    """The rows to measure on, and what is to be said of the splits that they were taken from."""
    from os import PathLike

    if not isinstance(data, str | PathLike):
        return table_of(data, "rows"), []
    tables = read_data(str(data))
    used = "test" if "test" in tables else next(iter(tables))
    others = ", ".join(f"{name} ({rows_of(len(table), 'row')})" for name, table in tables.items() if name != used)
    if not others:
        return tables[used], []
    return tables[used], [f"{data}: measured on {used} ({rows_of(len(tables[used]), 'row')}); not used: {others}"]
