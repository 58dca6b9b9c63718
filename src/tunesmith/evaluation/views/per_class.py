"""Precision, recall and F1, class by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.charts import number
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import count
from tunesmith.tasks._metrics import class_counts
from tunesmith.tasks.base import Labels, Scores

if TYPE_CHECKING:
    import numpy as np

NONE = f'<td class="n" data-value="-1">{number(None)}</td>'  # sorted below 0


def build(scores: Scores, labels: Labels) -> list[dict[str, Any]]:
    counts = class_counts(scores.columns, len(labels.names))
    return with_training_rows(ratios(labels.names, counts.hits, counts.truth, counts.predicted), labels)


def with_training_rows(lines: list[dict[str, Any]], labels: Labels) -> list[dict[str, Any]]:
    """The lines of `ratios` with the number of training rows that each class or label has ("trained"), where it is known."""
    known = dict(zip(labels.names, labels.counts, strict=False))
    return [line | ({"trained": known[line["label"]]} if line["label"] in known else {}) for line in lines]


def show(found: Sequence[Mapping[str, Any]], rows: int) -> str:
    return table_section("Class", "classes", "Class by class", found)


def ratios(names: Sequence[str], hits: np.ndarray, truth: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    """Precision, recall, F1 and test rows (support) of each class; a ratio with nothing below the line is 0.

    `hits`, `truth` and `predicted` are counts, [classes].
    """
    lines = []
    for label, right, true, said in zip(names, hits.tolist(), truth.tolist(), predicted.tolist(), strict=True):
        lines.append(
            {
                "label": label,
                "precision": right / said if said else 0.0,
                "recall": right / true if true else 0.0,
                "f1": 2 * right / (true + said) if true + said else 0.0,
                "support": true,
            }
        )
    return lines


def table_section(head: str, what: str, title: str, found: Sequence[Mapping[str, Any]], counted: str = "#Rows") -> str:
    """The table of `ratios`, weakest first, with a column more where each line has a threshold.

    What no test row has comes last, without F1 and recall: nothing was there to be found.
    """
    lines = sorted(found, key=lambda line: (line["support"] == 0, line["f1"], line["label"]))
    thresholds = all("threshold" in line for line in found)
    rows = [
        row_head(line["label"])
        + (
            f'<td class="n bar"><i style="--share:{line["f1"]:.3f}"></i>{number(line["f1"])}</td>'
            if line["support"]
            else NONE
        )
        + cell(number(line["precision"]), "n")
        + (cell(number(line["recall"]), "n") if line["support"] else NONE)
        + (cell(number(line["threshold"]), "n") if thresholds else "")
        + cell(count(line["support"]), "n")
        for line in lines
    ]
    heads = (head, "#F1", "#Precision", "#Recall", *(("#Threshold",) if thresholds else ()), counted)
    lead = "Weakest first."
    if any(line["support"] == 0 for line in found):
        lead += " Last those that no test row has."
    if thresholds:
        lead += " A label is said from its threshold on, which the validation rows chose."
    return section(what, title, lead, long_table(heads, rows, what))
