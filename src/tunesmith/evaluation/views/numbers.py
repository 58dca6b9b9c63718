"""Numbers predicted against numbers true: a picture of each output, and how far off it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import number, scatter, text
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import figures, rows_of
from tunesmith.tasks._metrics import correlation, rank_correlation
from tunesmith.tasks.base import Labels, Scores

DRAWN = 1500  # points of one picture; more would hide each other
PICTURES = 6


def build(scores: Scores, labels: Labels) -> list[dict[str, Any]]:
    """Of each output: correlations, errors (absolute, in its own unit), and up to 1500 (truth, prediction) points."""
    import numpy as np

    found = []
    for place, name in enumerate(labels.names):
        sides = {side: scores.columns[side][:, place : place + 1] for side in ("truth", "predicted")}
        error = np.abs(sides["predicted"] - sides["truth"])[:, 0]
        step = -(-len(error) // DRAWN)
        points = np.hstack([sides["truth"], sides["predicted"]])[::step]
        found.append(
            {
                "name": name,
                "spearman": rank_correlation(sides),
                "pearson": correlation(sides),
                "rmse": float(np.sqrt((error * error).mean())),
                "half_within": float(np.median(error)),
                "most_within": float(np.quantile(error, 0.9)),
                "points": points.tolist(),
            }
        )
    return found


def show(found: Sequence[Mapping[str, Any]], rows: int) -> str:
    pictures = "".join(scatter(item["name"], item["points"]) for item in found[:PICTURES])
    lines = [row_head(item["name"]) + _cells(item) for item in found]
    heads = ("Number", "#Spearman", "#Pearson", "#RMSE", "#Half are within", "#Nine in ten are within")
    lead = f"One dot for each of {rows_of(rows, 'test row')} (at most {DRAWN:,}): the true number to the right, the "
    body = f'<div class="curves">{pictures}</div>' + long_table(heads, lines, "numbers")
    return section("numbers", "Predicted and true", lead + "predicted one upwards. On the line they are equal.", body)


def _cells(item: Mapping[str, Any]) -> str:
    """Figures of one output; the errors are in its own unit, whatever that is, and sorted by their full value."""
    shares = "".join(cell(number(item[key]), "n") for key in ("spearman", "pearson"))
    errors = [item[key] for key in ("rmse", "half_within", "most_within")]
    told = zip(errors, figures(*errors), strict=True)
    return shares + "".join(f'<td class="n" data-value="{value!r}">{text(figure)}</td>' for value, figure in told)
