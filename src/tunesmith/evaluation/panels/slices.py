"""Parts of the test rows: where the model does worse, quality by kind of row, and a sheet of pictures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Whisker, minus, number, scale_of, text, whiskers
from tunesmith.evaluation.intervals import interval_of
from tunesmith.evaluation.sections import head_row, row_head, section
from tunesmith.evaluation.wording import (
    count,
    figures,
    gain_with_interval,
    metric_title,
    rows_of,
    sentence_case,
    with_interval,
)


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    parts = _slices(data) if "families" in data else ""
    return parts + (_sheet(data["sheet"]) if data["sheet"] is not None else "")


def _slices(data: Mapping[str, Any]) -> str:
    title = metric_title(data["metric"], (data["metric"],) if data["lower"] else ())
    share = f"{100 * data['level']:.2g}\N{NO-BREAK SPACE}%"
    drawn = f"{sentence_case(title)} on parts of the {rows_of(data['rows'], 'test row')}"
    lead = (
        f"{drawn}, each compared with all other rows; dashed: all rows, {figures(data['value'])[0]}. "
        f"{rows_of(data['compared'], 'part')} had enough rows for that. One is called worse only where chance alone would "
        f"call any of them so in fewer than {share} of such reports."
        if data["compared"]
        else f"{drawn}; dashed: all rows, {figures(data['value'])[0]}. None has enough rows to be compared with the others."
    )
    body = _worst(data) + _families(data)
    return section("slices", "Where it does worse", text(lead), body)


def _worst(data: Mapping[str, Any]) -> str:
    if not data["compared"]:
        return ""
    if not data["worst"]:
        return '<p class="none">On none of them is the model worse than on the other rows beyond chance.</p>'
    heads = ("Part", "#On it", "#On the others", "#Difference", "#Rows", "#p, corrected")
    lines = "".join(f"<tr>{row_head(item['full'])}{_cells(item, data, heads)}</tr>" for item in data["worst"])
    said = ["Parts overlap: one may be worse only because another is."] if len(data["worst"]) > 1 else []
    said += [f"{data['more']} more are worse, and cost less."] if data["more"] else []
    table = f'<table class="sortable parts">{head_row(*heads)}<tbody>{lines}</tbody></table>'
    return f'<div class="scroll">{table}</div>' + (f'<p class="note">{" ".join(said)}</p>' if said else "")


def _cells(item: Mapping[str, Any], data: Mapping[str, Any], heads: Sequence[str]) -> str:
    difference = minus(gain_with_interval(interval_of(item["better"]), data["lower"]))
    told = (
        (item["value"]["value"], with_interval(interval_of(item["value"]))),
        (item["others"], figures(item["others"])[0]),
        (item["better"]["value"], difference),
        (item["rows"], count(item["rows"])),
        (item["chance"], _chance(item["chance"])),
    )
    return "".join(
        f'<td class="n" data-label="{text(head.lstrip("#"))}" data-value="{value!r}">{text(said)}</td>'
        for head, (value, said) in zip(heads[1:], told, strict=True)
    )


def _chance(value: float) -> str:
    return "<\N{NO-BREAK SPACE}0.001" if value < 0.001 else number(value)


def _families(data: Mapping[str, Any]) -> str:
    """All kinds on one scale, with a line where all test rows are."""
    drawn = [(family, _marks(family, data)) for family in data["families"] if family["slices"]]
    edges = [edge for _, marks in drawn for mark in marks for edge in (mark.low, mark.high)]
    if not edges:
        return ""
    least, most = (0.0, 1.0) if max(edges) <= 1 and min(edges) >= 0 else (-math.inf, math.inf)
    scale = scale_of([*edges, data["value"]], least, most)
    return "".join(
        f'<h3 dir="auto">{text(family["title"])}</h3>{whiskers(marks, scale, line=data["value"])}{_examples(family)}'
        for family, marks in drawn
    )


def _marks(family: Mapping[str, Any], data: Mapping[str, Any]) -> list[Whisker]:
    """Those of clusters, which have no order of their own, worst first."""
    worst = {(item["kind"], item["full"]) for item in data["worst"]}
    slices = family["slices"]
    if family["kind"] == "cluster":
        slices = sorted(slices, key=lambda item: item["value"]["value"], reverse=data["lower"])
    return [
        Whisker(
            f"{item['name']} ({rows_of(item['rows'], 'row')})".replace(" row", "\N{NO-BREAK SPACE}row"),
            item["value"]["value"],
            item["value"]["low"],
            item["value"]["high"],
            with_interval(interval_of(item["value"])),
            strong=(item["kind"], item["full"]) in worst,
            bad=(item["kind"], item["full"]) in worst,
        )
        for item in slices
    ]


def _examples(family: Mapping[str, Any]) -> str:
    """What stands nearest to the middle of each cluster."""
    lines = []
    for item in family["slices"]:
        if "examples" in item:
            said = "".join(f'<span dir="auto">{text(example)}</span>' for example in item["examples"])
            lines.append(f'<tr>{row_head(item["name"])}<td class="typical">{said}</td></tr>')
        elif "pictures" in item:
            said = "".join(f'<img src="{text(picture)}" alt="">' for picture in item["pictures"])
            lines.append(f'<tr>{row_head(item["name"])}<td class="typical">{said}</td></tr>')
    if not lines:
        return ""
    table = f"<table>{head_row('Cluster', 'Nearest to its middle')}<tbody>{''.join(lines)}</tbody></table>"
    return f'<details class="more-of"><summary>Examples of each cluster</summary>{table}</details>'


def _sheet(sheet: Mapping[str, Any]) -> str:
    lead = "Of each class the surest mistakes, then the surest right answers; below each what was said, and how sure."
    if sheet["left_out"]:
        lead += f" {rows_of(sheet['left_out'], 'class').replace('classs', 'classes')} with fewer mistakes left out."
    body = "".join(_of_class(item) for item in sheet["classes"])
    return section("sheet", "Sheet of pictures", lead, body)


def _of_class(item: Mapping[str, Any]) -> str:
    figures_of = "".join(_picture(picture) for picture in item["pictures"])
    said = f"{count(item['right'])} of {count(item['rows'])} right"
    return f'<h3 dir="auto">{text(item["label"])} <small>{said}</small></h3><div class="sheet">{figures_of}</div>'


def _picture(picture: Mapping[str, Any]) -> str:
    kind = "right" if picture["right"] else "wrong"
    mark = "\N{CHECK MARK} " if picture["right"] else ""
    said = f'{mark}<b dir="auto">{text(picture["said"])}</b> {number(picture["sure"], 2)}'
    name = f"{picture['place']}: {kind}, said {picture['said']}"
    return (
        f'<figure class="{kind}" title="{text(picture["place"])}"><img src="{text(picture["picture"])}" alt="{text(name)}">'
        f"<figcaption>{said}</figcaption></figure>"
    )
