"""Answers that were written for a sample of the test rows: how many, and how near they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import count, cut_answers, figures, metric_title
from tunesmith.tasks.base import Labels, Scores


def build(scores: Scores, labels: Labels) -> dict[str, Any]:
    """Rows and tokens measured, rows with a written answer, and the metrics of these."""
    rows = max(scores.written.values(), default=0)
    return {
        "tokens": int(scores.columns["tokens"].sum()),
        "written": rows,
        "cut": int(scores.columns["going"].sum()) if rows else 0,
        "full": int(scores.columns["full"].sum()) if rows else 0,
        "metrics": {name: scores.value(name) for name in scores.written},
    }


def show(found: Mapping[str, Any], rows: int) -> str:
    said = (
        f"{count(found['tokens'])} tokens of answers in {count(rows)} test rows were foretold one by one, each after the "
        f"true tokens before it; {count(found['written'])} answers were written from the prompt alone (greedy), and "
        f"{cut_answers(found['cut'], found.get('full', 0))}."
    )
    return listed("answers", "Answers", said, found["metrics"], ("Of written answers", "#Mean"))


def listed(name: str, title: str, said: str, metrics: Mapping[str, float], heads: tuple[str, str]) -> str:
    """A section with a metric a line below what is said; without a table where there is none."""
    lines = "".join(
        f"<tr>{row_head(metric_title(name))}{cell(figures(value)[0], 'n')}</tr>" for name, value in metrics.items()
    )
    table = f"<table>{head_row(*heads)}<tbody>{lines}</tbody></table>" if lines else ""
    return section(name, title, said, table)
