"""The result over all folds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import minus, text
from tunesmith.evaluation.intervals import interval_of
from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import (
    count,
    figures,
    gain_with_interval,
    metric_title,
    p_value,
    rows_of,
    with_interval,
)


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    primary, lower = report["primary"], report["primary"] in report["lower"]
    own = f"This recipe ({report['method']})"
    lines = [row_head(own) + cell(with_interval(interval_of(data["metric"])), "n") + cell("", "n") + cell("", "n")]
    lines += [
        row_head(item["what"])
        + cell(with_interval(interval_of(item["metric"])), "n")
        + cell(minus(gain_with_interval(interval_of(item["gain"]), lower)), "n")
        + cell(p_value(item["p"]), "n")
        for item in data["rivals"]
    ]
    title = metric_title(primary, report["lower"])
    heads = head_row("Over all rows", f"#{title}", "#Gain over it", "#By luck")
    whole = f'<div class="scroll"><table>{heads}<tbody>{"".join(f"<tr>{line}</tr>" for line in lines)}</tbody></table></div>'
    each = "".join(
        f"<tr>{row_head(item['fold'])}{cell(count(item['rows']), 'n')}{cell(figures(item['value'])[0], 'n')}</tr>"
        for item in data["folds"]
    )
    by_fold = f"<h3>Fold by fold</h3><table>{head_row('Fold', '#Rows', f'#{title}')}<tbody>{each}</tbody></table>"
    lead = (
        f"Each of the {rows_of(data['rows'], 'row')} was tested by one of {len(data['folds'])} models that did not learn "
        "from it. The model that is delivered is the one of this page. Intervals are over rows; that the models share "
        "training rows is not in them."
    )
    lacking = "; ".join(f"{item['what']} {item['why']}" for item in data.get("left_out", ()))
    lead += f" Not in the table: {lacking}." if lacking else ""
    return section("folds", "On every row", text(lead), whole + by_fold)
