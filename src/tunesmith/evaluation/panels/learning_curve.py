"""Quality against the training rows: what was measured, the law through it, and where it leads with more rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Scale, scale_of, text, tick_text
from tunesmith.evaluation.intervals import interval_of
from tunesmith.evaluation.sections import head_row, section
from tunesmith.evaluation.wording import (
    count,
    figures,
    gain_in_words,
    metric_title,
    rows_of,
    sentence_case,
    short_count,
)

TITLE = "Would more data help?"
OF = {"frozen": "a new head on the frozen features", "method": "this method itself"}
SAYS = {
    "helps": "More rows would help.",
    "hardly": "More rows would hardly help.",
    "unclear": "Whether more rows would help cannot be told from these.",
    "untold": "There are too few training rows to say where more would lead.",
}


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    if "unmeasured" in data:
        return section("learning_curve", TITLE, text(f"Not measured: {data['unmeasured']}."), "")
    lower = [data["metric"]] if data["lower"] else []
    title = metric_title(data["metric"], lower)
    lead = (
        f"{SAYS[data['says']]} Dots: {OF[data['of']]}, learned from parts of the {rows_of(data['rows'], 'training row')} and "
        f"measured on the test rows. "
    )
    if data["law"] is not None:
        lead += (
            f"The line is a power law through them, drawn on to {max(item['times'] for item in data['ahead'])} times the "
            f"rows; the band holds {100 * report['confidence']:g}\N{NO-BREAK SPACE}% of what test rows, drawn rows and law "
            "leave open. "
        )
    if data["of"] == "frozen":
        lead += "The large dot is this model, which learned from all rows: what it gains with more of them may differ."
    return section("learning_curve", TITLE, text(lead), _chart(data, report, title) + _table(data, title))


def _chart(data: Mapping[str, Any], report: Mapping[str, Any], title: str) -> str:
    own = report["metrics"][data["metric"]]["value"]
    points = [(item["rows"], value) for item in data["points"] for value in item["values"]]
    values = [value for _, value in points] + [own]
    values += [edge for item in data["line"] for edge in (item["low"], item["high"])]
    sizes = [rows for rows, _ in points] + [item["rows"] for item in data["line"]] + [data["rows"]]
    across = Scale(math.log2(min(sizes)) - 0.15, math.log2(max(sizes)) + 0.15)
    bounded = not data["lower"]
    up = scale_of(values, least=0.0 if min(values) >= 0 else -math.inf, most=1.0 if bounded else math.inf)

    def at(rows: float, value: float) -> str:
        return f"{across.at(math.log2(rows))},{round(1000 - up.at(value), 1)}"

    ticks = up.ticks(4)
    body = "".join(f'<path class="grid" d="M0 {1000 - up.at(tick)}H1000"/>' for tick in ticks)
    body += f'<path class="zero" d="M{across.at(math.log2(data["rows"]))} 0V1000"/>'
    if data["line"]:
        over = " ".join(at(item["rows"], item["high"]) for item in data["line"])
        under = " ".join(at(item["rows"], item["low"]) for item in reversed(data["line"]))
        body += f'<polygon class="band" points="{over} {under}"/>'
        body += f'<polyline class="line" points="{" ".join(at(i["rows"], i["value"]) for i in data["line"])}"/>'
    for rows, value in points:
        body += f'<path class="point" d="M{at(rows, value)}h0"><title>{count(rows)} rows: {value:.4f}</title></path>'
    if data["of"] == "frozen":
        said = f"this model, {count(data['rows'])} rows: {own:.4f}"
        body += f'<path class="point kept" d="M{at(data["rows"], own)}h0"><title>{said}</title></path>'
    left = "".join(f'<span style="top:{100 - up.at(tick) / 10}%">{tick_text(tick, ticks)}</span>' for tick in ticks)
    below = "".join(
        f'<span style="left:{across.at(math.log2(rows)) / 10}%">{short_count(rows)}</span>' for rows in _marked(data)
    )
    caption = "by training rows, each mark twice the one before"
    return (
        f'<figure class="curve growth"><figcaption><b>{text(sentence_case(title))}</b> {caption}</figcaption>'
        f'<div class="plot"><div class="left">{left}</div>'
        f'<svg viewBox="0 0 1000 1000" preserveAspectRatio="none" role="img" aria-label="{text(title)} by training rows">'
        f'{body}</svg><div class="below">{below}</div></div></figure>'
    )


def _marked(data: Mapping[str, Any]) -> Sequence[int]:
    """Sizes that stand below the chart: parts and multiples of all rows."""
    sizes = [item["rows"] for item in data["points"]] + [item["rows"] for item in data["ahead"]] + [data["rows"]]
    return sorted(dict.fromkeys(sizes))


def _table(data: Mapping[str, Any], title: str) -> str:
    rows = []
    for item in data["points"]:
        low, mean, high = figures(min(item["values"]), sum(item["values"]) / len(item["values"]), max(item["values"]))
        drawn = f"{low} to {high}" if len(item["values"]) > 1 else ""
        rows.append(_row(item["rows"], "measured", mean, drawn, "", ""))
    for item in data["ahead"]:
        value, low, high = figures(item["value"], item["low"], item["high"])
        gain = gain_in_words(interval_of(item["gain"]), data["metric"], data["lower"])
        much, _, between = gain.partition(" [")
        rows.append(
            _row(item["rows"], f"foretold, {item['times']} times", value, f"[{low}, {high}]", much, f"[{between}")
        )
    heads = head_row("Training rows", f"#{sentence_case(title)}", "#Gain")
    return f'<div class="scroll"><table class="many">{heads}<tbody>{"".join(rows)}</tbody></table></div>'


def _row(rows: int, how: str, value: str, between: str, gain: str, gains: str) -> str:
    cells = "".join(
        f'<td class="n">{text(figure)} <small>{text(edges)}</small></td>'
        for figure, edges in ((value, between), (gain.partition(" of ")[0], gains))
    )
    return f'<tr><th scope="row">{count(rows)} <small>{text(how)}</small></th>{cells}</tr>'
