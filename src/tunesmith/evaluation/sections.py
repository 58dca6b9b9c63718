"""The sections of the page below the result: tables of what went wrong, the data, the settings, the cost."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.energy import ESTIMATE
from tunesmith.evaluation.charts import breakable, text
from tunesmith.evaluation.cost import amount, money_amount, took_said, two_digits, watt_hours
from tunesmith.evaluation.opening import beside
from tunesmith.evaluation.wording import (
    count,
    duration,
    further_models,
    memory,
    sentence_case,
    short_count,
    times_of,
)
from tunesmith.recipe import yaml_text

ROWS_FIRST = 12  # rows of a long table shown before "show all"
ROWS_MOST = 500  # rows of a table: thousands of classes would not fit in a page of 1 MB, nor would anyone read them
MISTAKES_FIRST = 8
WEIGHTS = (".safetensors", ".npz")
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


def long_table(heads: Sequence[str], rows: Sequence[str], what: str, kind: str = "") -> str:
    """A sortable table of rows of cells; of a long one the first rows show, and the others on demand, up to 500."""
    shown = rows[:ROWS_MOST]
    lines = "".join(f"<tr>{row}</tr>" for row in shown)
    more = f' data-first="{ROWS_FIRST}" data-what="{len(shown)} {what}"' if len(shown) > ROWS_FIRST else ""
    table = f'<table class="{f"sortable {kind}".rstrip()}"{more}>{head_row(*heads)}<tbody>{lines}</tbody></table>'
    said = f"The first {len(shown)} of {count(len(rows))} {what}; report.json holds all."
    note = f'<p class="note">{text(said)}</p>' if len(shown) < len(rows) else ""
    return f'<div class="scroll">{table}</div>{note}'


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
    told = beside(report)
    listed = "".join(_finding(item) for item in report["findings"] if item not in told)
    found = (
        f'<ul class="findings">{listed}</ul>' if listed else '<p class="note">The audit found nothing to report.</p>'
    )
    table = f"<table>{head_row('Part', '#Rows', 'How it came about')}<tbody>{splits}</tbody></table>"
    left = notes(report["data"]["unexamined"])
    return section("data", "Data", text(report["data"]["path"]), f"{table}<h3>Findings</h3>{found}{left}")


def notes(lines: Sequence[str]) -> str:
    """What was not done, and why, each as a sentence."""
    return "".join(f'<p class="note">{text(line[:1].upper() + line[1:])}.</p>' for line in lines)


def _finding(item: Mapping[str, Any]) -> str:
    """What was found, what can be done, three examples, and behind a fold where."""
    said = text(sentence_case(item["message"]))
    advice = f'<p class="advice">{text(sentence_case(item["advice"]))}</p>' if item.get("advice") else ""
    shown = "".join(
        f'<li><span class="place">{text(one["place"])}</span> <span dir="auto">{text(one["text"])}</span> '
        f"<i>{text(one['detail'])}</i></li>"
        for one in item.get("examples", ())
    )
    examples = f'<ul class="examples">{shown}</ul>' if shown else ""
    if not item["places"]:
        return f"<li>{said}{advice}{examples}</li>"
    places = "".join(f"<li>{text(place)}</li>" for place in item["places"])
    where = f'<details><summary>{said}</summary><ul class="places">{places}</ul></details>'
    return f"<li>{where}{advice}{examples}</li>"


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
    """What the run took: facts, what is reckoned from them, and phases; and how the model is used."""
    cost = report["cost"]
    listed = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in _cost_facts(cost))
    phases = "".join(
        f"<tr>{row_head(phase['name'])}{cell(duration(phase['seconds']), 'n')}"
        f"{cell(duration(phase['cpu_seconds']), 'n')}{cell(_tenths(phase['cpu_seconds'], cost['cpu_seconds']), 'n')}</tr>"
        for phase in cost["phases"]
    )
    heads = head_row("Phase", "#By the clock", "#Processor", "#Share")
    shown = f'<div class="scroll"><table class="tight">{heads}<tbody>{phases}</tbody></table></div>'
    table = f"<h3>Where the time went</h3>{shown}" if phases else ""
    opens = "<h3>Use it</h3><pre><code>tunesmith predict RUN FILE</code></pre>"
    opens += f'<p class="note">model/ {text(report["opens"])}</p>'
    sessions = "" if cost["sessions"] == 1 else f", in {cost['sessions']} sessions"
    lead = f"What the run took{sessions}, up to the writing of this page."
    return section("cost", "Cost", lead, f'<dl class="cost">{listed}</dl>{_reckoned(cost)}{table}{opens}')


def _cost_facts(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    trained = f"{short_count(cost['trainable'])} of {short_count(cost['total'])}"
    facts = [
        ("By the clock", duration(cost["seconds"])),
        ("Processor", duration(cost["cpu_seconds"], "CPU")),
        *_cost_parts(cost),
        ("Peak memory", memory(cost["peak_memory_mb"])),
        ("Parameters trained", f"{trained} ({_share(cost['trainable'], cost['total'])})"),
        ("Training rows", count(cost["rows"])),
    ]
    if cost["peak_gpu_memory_mb"] is not None:
        place = next(at for at, (name, _) in enumerate(facts) if name == "Peak memory")
        facts.insert(place + 1, ("Peak memory of the GPU", memory(cost["peak_gpu_memory_mb"])))
    if cost["rows_per_second"] is not None:
        rate = f"{two_digits(cost['rows_per_second'])} rows"
        if cost["tokens_per_second"] is not None:
            padding = "padding included" if cost["padding"] else "without padding"
            rate += f" and {two_digits(cost['tokens_per_second'])} tokens ({padding})"
        facts.append(("A second of training steps", rate))
    return facts


def _cost_parts(cost: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the one model took, and what others did that were trained to tell its worth."""
    own, beside = cost["delivered"], cost["beside"]
    if own is None:
        return []
    parts = [("The delivered model alone", _spent(own))]
    if beside is not None:
        parts.append((f"{further_models(beside['models'])}, to tell its worth", _spent(beside)))
    return parts


def _spent(part: Mapping[str, Any]) -> str:
    return f"{duration(part['cpu_seconds'], 'CPU')}, {duration(part['seconds'])} by the clock"


def _reckoned(cost: Mapping[str, Any]) -> str:
    """A table of the figures that are not to be read without where they are from; "" where there is none."""
    lines: list[tuple[str, str, str]] = []
    energy, co2, money, forecast, proof = (cost[key] for key in ("energy", "co2", "money", "forecast", "evidence"))
    rough = energy is not None and ESTIMATE in energy["how"]
    if energy is not None:
        mean = f"{two_digits(energy['watts'])} W on the mean"
        lines.append(("Electricity", watt_hours(energy["wh"], rough), f"{mean}; {energy['why']}"))
    if co2 is not None:
        said = amount(co2["grams"], "g", rough)
        lines.append(("CO2 equivalent", said, f"{co2['intensity']:g} g a kWh: {co2['why']}"))
    if money is not None:
        lines.append(("Money", money_amount(money), money["why"]))
    if forecast is not None:
        told = f"told after step {count(forecast['step'])}, if all epochs are done; it {took_said(forecast, cost['seconds'])}"
        if forecast.get("further_seconds"):
            told += f"; {duration(forecast['further_seconds'])} of it for models to be trained beside"
        lines.append(("Forecast", duration(forecast["seconds"]), told))
    if proof is not None:
        share, what = (
            proof["of_training"],
            "audit, rivals and measuring" + (", and further models" if cost["beside"] else ""),
        )
        why = what if share is None else f"{what}: {times_of(share)} what training took"
        lines.append(("The proof", duration(proof["cpu_seconds"], "CPU"), why))
    if not lines:
        return ""
    rows = "".join(f"<tr>{row_head(name)}{cell(said)}{cell(why)}</tr>" for name, said, why in lines)
    heads = head_row("Figure", "How much", "Where it is from")
    return f'<h3>What that stands for</h3><table class="stacked">{heads}<tbody>{rows}</tbody></table>'


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.3g}\N{NO-BREAK SPACE}%" if whole else "–"


def _tenths(part: float, whole: float) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def reproduce_section(report: Mapping[str, Any]) -> str:
    """The recipe as asked, and what the run stands on."""
    made = report["manifest"]
    if not made:
        return ""
    base, rows = made["model"], made["data"]["sha256"]
    facts = [
        ("Tunesmith", made["tunesmith"]),
        ("Base", f"{base['name']} ({base['kind']}{', ' + base['revision'] if base['revision'] else ''})"),
        *((f"Weights, {name}", digest) for name, digest in base["sha256"].items() if name.endswith(WEIGHTS)),
        *((f"Rows, {name}", digest) for name, digest in rows.items()),
        *((name, value) for name, value in made["versions"].items()),
        ("Machine", f"{made['machine']['system']}, {made['machine']['cores']} cores"),
    ]
    lines = "".join(f"<tr>{row_head(name)}<td><code>{text(value)}</code></td></tr>" for name, value in facts)
    recipe = f"<pre><code>{text(yaml_text(report['recipe']))}</code></pre>"
    table = f'<table class="stacked"><tbody>{lines}</tbody></table>'
    command = "tunesmith train --recipe recipe.yaml --out again"
    body = (
        f"<pre><code>{command}</code></pre>"
        f'<details class="part"><summary>recipe.yaml, as asked</summary>{recipe}</details>'
        f'<details class="part"><summary>What the run stands on</summary>{table}</details>'
    )
    lead = "The same recipe, rows, base and versions on such a machine give the same model, bit by bit on a processor."
    return section("reproduce", "How to make it again", lead, body)
