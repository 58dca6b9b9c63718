"""How near related texts are: cosines against scores, or how many positives of other rows are nearer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import scatter
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import rows_of
from tunesmith.tasks.base import Labels, Scores

DRAWN = 1500  # points of the picture; more would hide each other
RANKS = (("1", 1, 1), ("2", 2, 2), ("3", 3, 3), ("4 to 10", 4, 10), ("beyond 10", 11, 11))


def build(scores: Scores, labels: Labels) -> dict[str, Any]:
    """Of scores up to 1500 points (score as a share of its range, cosine); else how many positives stand at each rank."""
    import numpy as np

    if labels.scale:
        share = (scores.columns["truth"] - labels.center[0]) / labels.scale[0]
        points = np.hstack([share, scores.columns["predicted"]])
        return {"name": labels.names[0], "points": points[:: -(-len(points) // DRAWN)].tolist()}
    rank = scores.columns["rank"]
    return {"ranks": {name: int(((rank >= low) & (rank <= high)).sum()) for name, low, high in RANKS}}


def show(found: Mapping[str, Any], rows: int) -> str:
    if "points" in found:
        lead = f"One dot for each of {rows_of(rows, 'test row')} (at most {DRAWN:,}): the score, as a share of its "
        lead += "range, to the right, the cosine upwards."
        return section(
            "nearness", "Cosine and score", lead, f'<div class="curves">{scatter(found["name"], found["points"])}</div>'
        )
    lines = [
        row_head(name) + cell(f"{count:,}", "n") + cell(f"{count / max(1, rows):.1%}", "n")
        for name, count in found["ranks"].items()
    ]
    lead = "Where a row's own second text stands among those of all test rows, by its cosine with the first."
    return section("nearness", "Found at rank", lead, long_table(("Rank", "#Rows", "#Share"), lines, "ranks"))
