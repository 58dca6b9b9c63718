"""`tunesmith evaluate` without its printing: a finished run's model on rows that the caller names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.data.audit import clean
from tunesmith.data.columns import Asked
from tunesmith.data.readers import read_data
from tunesmith.data.table import Table, table_of
from tunesmith.errors import DataError
from tunesmith.evaluation.intervals import RESAMPLES, compare
from tunesmith.evaluation.wording import metric_title, rows_of, with_interval
from tunesmith.predictor import load
from tunesmith.preparing import texts_of
from tunesmith.seen import seen_line


def evaluate_run(
    run: Path, data: Any, text: str | None = None, label: str | tuple[str, ...] | None = None
) -> dict[str, Any]:
    """A finished run's model on labelled rows: {"metrics": {name: {value, low, high}}, "rows", "lines", "findings"}.

    Of data in splits only the test rows are taken, or the first split where there is no test; a finding says which.
    Warns with a TunesmithWarning when texts were cut. Raises DataError when the columns cannot be found, or hold
    labels that the model does not know.
    """
    predictor = load(run)
    table, chosen = _rows_of(data)
    card = predictor.card
    asked = Asked(
        _of_the_run(text, card.text_column, table),
        _of_the_run(label, card.label_column, table),
        None,
        card.pair_column,
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
    intervals = compare(scores, {}, RESAMPLES, 0.95, 0).metrics
    lines = [
        f"{metric_title(name)} {with_interval(interval)} on "
        + rows_of(len(scores.of(name)["truth"]), "written answer" if name in scores.written else "row")
        for name, interval in intervals.items()
    ]
    return {
        "metrics": {
            name: {"value": item.value, "low": item.low, "high": item.high} for name, item in intervals.items()
        },
        "rows": len(found),
        "lines": lines,
        "findings": [*chosen, *([trained_on] if trained_on else []), *(finding.message for finding in findings)],
    }


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
