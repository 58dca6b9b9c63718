"""The sections of the page below the result: tables of what went wrong, the data, the settings, the cost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import breakable, text
from tunesmith.evaluation.wording import count, duration, memory, short_count

ROWS_FIRST = 12  # rows of a long table shown before "show all"
MISTAKES_FIRST = 8
MARKED = {"right": "\N{CHECK MARK}", "wrong": "(wrong)", "missed": "(missed)"}


def section(name: str, title: str, lead: str, body: str) -> str:
    """`title`, `lead` and `body` are markup: escape what comes from outside."""
    return f'<section id="{name}"><h2>{title}</h2><p class="note">{lead}</p>{body}</section>\n'


def cell(value: object, kind: str = "") -> str:
    """A table cell; `kind` "n" for figures."""
    named = f' class="{kind}"' if kind else ' dir="auto"'
    return f"<td{named}>{breakable(value)}</td>"


def row_head(value: object) -> str:
    return f'<th scope="row" dir="auto">{breakable(value)}</th>'


def head_row(*heads: str) -> str:
    """Column heads; one that starts with "#" stands over figures."""
    cells = [
        f'<th scope="col" class="n">{text(head[1:])}</th>'
        if head.startswith("#")
        else f'<th scope="col">{text(head)}</th>'
        for head in heads
    ]
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def long_table(heads: Sequence[str], rows: Sequence[str], what: str) -> str:
    """A sortable table of rows of cells; of a long one the first rows show, and the others on demand."""
    lines = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f' data-first="{ROWS_FIRST}" data-what="{len(rows)} {what}"' if len(rows) > ROWS_FIRST else ""
    table = f'<table class="sortable"{more}>{head_row(*heads)}<tbody>{lines}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def mistakes_section(report: Mapping[str, Any]) -> str:
    title = "Worst mistakes"
    if not report["mistakes"]:
        return section("mistakes", title, "There is none among the test rows.", "")
    length = len(report["mistakes"])
    more = f' data-first="{MISTAKES_FIRST}" data-what="{length} mistakes"' if length > MISTAKES_FIRST else ""
    items = "".join(_mistake(item, report["truth_is"]) for item in report["mistakes"])
    true = text(report["truth_is"])
    return section(
        "mistakes", title, text(report["worst"]), f'<ol class="mistakes" data-truth-is="{true}"{more}>{items}</ol>'
    )


def _mistake(item: Mapping[str, Any], true: str) -> str:
    said = f'said <b dir="auto">{text(item["predicted"])}</b> <span class="n">{text(item["detail"])}</span>'
    picture = f'<img src="{text(item["picture"])}" alt="{text(item["text"])}">' if "picture" in item else ""
    return (
        f'<li data-truth="{text(item["truth"])}" data-said="{text(item["predicted"])}">{picture}'
        f'<p class="said" dir="auto">{_with_marks(item)}</p><p class="gloss"><span>{said}</span>'
        f'<span>{text(true)} <b dir="auto">{text(item["truth"])}</b></span>'
        f'<span class="place">{text(item["place"])}</span></p></li>'
    )


def _with_marks(item: Mapping[str, Any]) -> str:
    """The text, escaped, with its marked places between <mark> and </mark>, each followed by what it is marked as."""
    marks, whole = item.get("marks", []), item["text"]
    edges = sorted({0, len(whole), *(mark["start"] for mark in marks), *(mark["end"] for mark in marks)})
    parts = []
    for start, end in itertools.pairwise(edges):
        kinds = sorted({mark["kind"] for mark in marks if mark["start"] < end and mark["end"] > start})
        piece = text(whole[start:end])
        parts.append(f'<mark class="{text(" ".join(kinds))}">{piece}</mark>' if kinds else piece)
        ended = [mark for mark in marks if mark["end"] == end]
        parts.append(" ".join(f"<small>{text(mark['label'])} {MARKED[mark['kind']]}</small>" for mark in ended))
    return "".join(parts)


def data_section(report: Mapping[str, Any]) -> str:
    splits = "".join(
        f"<tr>{row_head(split['name'])}{cell(count(split['rows']), 'n')}{cell(split['why'])}</tr>"
        for split in report["data"]["splits"]
    )
    listed = "".join(_finding(item) for item in report["findings"])
    found = (
        f'<ul class="findings">{listed}</ul>' if listed else '<p class="note">The audit found nothing to report.</p>'
    )
    table = f"<table>{head_row('Part', '#Rows', 'How it came about')}<tbody>{splits}</tbody></table>"
    return section("data", "Data", text(report["data"]["path"]), f"{table}<h3>Findings</h3>{found}")


def _finding(item: Mapping[str, Any]) -> str:
    if not item["places"]:
        return f"<li>{text(item['message'])}</li>"
    places = "".join(f"<li>{text(place)}</li>" for place in item["places"])
    return f'<li><details><summary>{text(item["message"])}</summary><ul class="places">{places}</ul></details></li>'


def settings_section(report: Mapping[str, Any]) -> str:
    if not report["derived"]:
        return ""
    rows = "".join(
        f'<tr><th scope="row"><code>{text(item["key"])}</code></th><td><code>{text(item["value"])}</code></td>'
        f"{cell(item['why'])}</tr>"
        for item in report["derived"]
    )
    table = f'<table class="stacked">{head_row("Setting", "Value", "Why")}<tbody>{rows}</tbody></table>'
    return section("settings", "Settings that were worked out", "Each can be set by hand with --set key=value.", table)


def cost_section(report: Mapping[str, Any]) -> str:
    cost = report["cost"]
    share = f"{100 * cost['trainable'] / cost['total']:.3g} %" if cost["total"] else "–"
    facts = [
        ("By the clock", duration(cost["seconds"])),
        ("Processor", duration(cost["cpu_seconds"], "CPU")),
        ("Peak memory", memory(cost["peak_memory_mb"])),
        ("Parameters trained", f"{short_count(cost['trainable'])} of {short_count(cost['total'])} ({share})"),
        ("Training rows", count(cost["rows"])),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    body = f'<dl class="cost">{listed}</dl><h3>Use it</h3><pre><code>{text(report["opens"])}</code></pre>'
    return section("cost", "Cost", "What the run took.", body)
