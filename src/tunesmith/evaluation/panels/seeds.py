"""The result by seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import text
from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import digits_for, figures, metric_title


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    names = list(data["metrics"])
    lines = [
        row_head(f"seed {seed}" + (", this model" if place == 0 else ""))
        + "".join(cell(figures(data["metrics"][name]["values"][place])[0], "n") for name in names)
        for place, seed in enumerate(data["seeds"])
    ]
    lines.append(row_head("mean") + "".join(cell(figures(data["metrics"][name]["mean"])[0], "n") for name in names))
    spreads = [data["metrics"][name]["deviation"] for name in names]
    lines.append(
        row_head("standard deviation") + "".join(cell(f"{value:.{digits_for(value)}f}", "n") for value in spreads)
    )
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    heads = head_row("Trained from", *(f"#{metric_title(name, report['lower'])}" for name in names))
    error = data["sampling_error"]
    lead = (
        "The same rows on the same sides, another seed for the weights that are drawn and the order of the rows. Beside it, "
        f"other test rows would move {metric_title(report['primary'])} by {error:.{digits_for(error)}f} (one standard error)."
    )
    table = f'<div class="scroll"><table>{heads}<tbody>{body}</tbody></table></div>'
    return section("seeds", "From other seeds", text(lead), table)
