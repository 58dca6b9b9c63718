"""Which classes were taken for which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.evaluation.charts import confusion
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import count, rows_of
from tunesmith.tasks.base import Labels, Scores

if TYPE_CHECKING:
    import numpy as np

PAIRS = 20


def build(scores: Scores, labels: Labels) -> dict[str, Any]:
    """Names of the classes, test rows by [true class, predicted class], and the pairs most often confused."""
    names = list(labels.names)
    matrix = confusion_matrix(scores, len(names))
    return {"labels": names, "matrix": matrix.tolist(), "confused": confused(matrix, names)}


def show(found: Mapping[str, Any], rows: int) -> str:
    wrong = rows - sum(row[place] for place, row in enumerate(found["matrix"]))
    lead = f"{count(wrong)} of {rows_of(rows, 'test row')} are wrong. True classes go down, predicted ones across."
    body = confusion(found["labels"], found["matrix"])
    if found["confused"]:
        lines = [
            row_head(pair["truth"]) + cell(pair["predicted"]) + cell(pair["count"], "n") + cell(pair["support"], "n")
            for pair in found["confused"]
        ]
        body += "<h3>Most often confused</h3>" + long_table(("True class", "Called", "#Times", "#Of"), lines, "pairs")
    return section("confusion", "Confusion matrix", lead, body)


def confusion_matrix(scores: Scores, classes: int) -> np.ndarray:
    """Test rows by [true class, predicted class]."""
    import numpy as np

    cells = scores.columns["truth"] * classes + scores.columns["predicted"]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


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
