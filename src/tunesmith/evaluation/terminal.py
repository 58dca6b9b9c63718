"""The result as plain text, for the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.evaluation.intervals import interval_of
from tunesmith.evaluation.wording import metric_title, with_interval


def result_lines(report: dict[str, Any]) -> list[str]:
    """The verdict as one line (the caller wraps it), an empty line, and an aligned table of model and baselines.

    `report` is what `build_report` gives.
    """
    return [report["verdict"]["paragraph"], "", *aligned(result_table(report))]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under each other, two blanks apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def result_table(report: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """Headings, then the model and each baseline with its figures; for whoever has no room for aligned columns.

    `report` is what `build_report` gives.
    """
    metrics = list(report["metrics"])
    return (
        ("", *(metric_title(name, report["lower"]) for name in metrics)),
        (f"this model ({report['method']})", *(_cell(report["metrics"][name]) for name in metrics)),
        *(
            (baseline["what"], *(_cell(baseline["metrics"][name]) for name in metrics))
            for baseline in report["baselines"]
        ),
    )


def _cell(plain: dict[str, float]) -> str:
    return with_interval(interval_of(plain))
