"""What became of the questions: answered right, in part, wrongly, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import number
from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import count, rows_of
from tunesmith.tasks.base import Labels, Scores

KINDS = {"answer": "With an answer", "none": "Without one"}


def build(scores: Scores, labels: Labels) -> dict[str, Any]:
    """Counts of test rows with an answer and without one, by what was said; and the threshold of saying one."""
    true, said, exact, f1 = (scores.columns[name] for name in ("truth", "predicted", "exact", "f1"))
    found = {
        "answer": {
            "right": true & said & (exact == 1),
            "part": true & said & (exact < 1) & (f1 > 0),
            "wrong": true & said & (f1 == 0),
            "left": true & ~said,
        },
        "none": {"right": ~true & ~said, "wrong": ~true & said},
    }
    counts = {kind: {name: int(rows.sum()) for name, rows in cases.items()} for kind, cases in found.items()}
    return {**counts, "threshold": labels.thresholds[0]}


def show(found: Mapping[str, Any], rows: int) -> str:
    lines = "".join(
        f"<tr>{row_head(KINDS[kind])}"
        + "".join(
            cell(count(found[kind][name]) if name in found[kind] else "–", "n")
            for name in ("right", "part", "wrong", "left")
        )
        + "</tr>"
        for kind in KINDS
    )
    lead = f"Of {rows_of(rows, 'test row')}. In part: some words of the answer are right."
    if found["threshold"] > 0:
        lead += (
            f" An answer is given where its probability against there being none is {number(found['threshold'])} or more, "
            "which the validation rows chose."
        )
    heads = head_row("Questions", "#Right", "#In part", "#Wrong", "#Left without an answer")
    return section("spans", "What became of the questions", lead, f"<table>{heads}<tbody>{lines}</tbody></table>")
