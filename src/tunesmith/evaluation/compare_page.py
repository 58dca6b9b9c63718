"""compare.html, from the plain data of a comparison alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Whisker, minus, scale_of, text, whiskers
from tunesmith.evaluation.document import document
from tunesmith.evaluation.groups import drawn_in, too_few
from tunesmith.evaluation.intervals import Interval, interval_of
from tunesmith.evaluation.overlays import Line, Spot, cost_and_quality, legend, overlaid
from tunesmith.evaluation.sections import cell, head_row, long_table, row_head, section
from tunesmith.evaluation.verdict import SMALL
from tunesmith.evaluation.wording import (
    count,
    duration,
    figures,
    gain_with_interval,
    memory,
    metric_title,
    p_value,
    rows_of,
    sentence_case,
    with_interval,
)


def render_comparison(found: Mapping[str, Any]) -> str:
    """The whole page. Every text in `found` is escaped."""
    names = [run["name"] for run in found["runs"]]
    body = "".join(
        (
            _head(found),
            _figures(found),
            _pairs(found),
            _cost(found),
            _curves(found, names),
            _disagreements(found, names),
            _settings(found, names),
        )
    )
    return document(f"{' against '.join(names)}", f"{body}<footer>the same figures: tunesmith compare --json</footer>")


def comparison_lines(found: Mapping[str, Any]) -> list[str]:
    """What is said first: the best run, and how it stands against each other one."""
    primary, lower, runs = found["primary"], found["primary"] in found["lower"], found["runs"]
    rank = sorted(runs, key=lambda run: run["metrics"][primary]["value"], reverse=not lower)
    best = rank[0]
    alike = [run["name"] for run in rank if run["metrics"][primary]["value"] == best["metrics"][primary]["value"]]
    lines = [
        f"{' and '.join(alike)} {'has' if len(alike) == 1 else 'have'} the best {metric_title(primary)}: "
        f"{with_interval(interval_of(best['metrics'][primary]))} on {rows_of(found['rows'], 'test row')} that all runs have."
    ]
    if few := too_few(found["groups"]):
        lines.append(f"{sentence_case(few)}.")
    if found["rows"] < SMALL:
        lines.append(f"Only {rows_of(found['rows'], 'row')} to compare on: take every figure as rough.")
    apart = [f"{name} {count(rows)}" for name, rows in found["rows_of"].items() if rows != found["rows"]]
    if apart:
        lines.append(f"Only the rows that all have count; tested were: {', '.join(apart)}.")
    pairs = len(found["pairs"])
    corrected = f" (corrected for {pairs} pairs)" if pairs > 1 else ""
    for other in rank[1:]:
        gain, adjusted, differing = _gain(found, best["name"], other["name"])
        if differing == 0:
            lines.append(f"{best['name']} against {other['name']}: the same on every row; nothing tells them apart.")
            continue
        told = _told(gain, adjusted, found["confidence"])
        lines.append(
            f"{best['name']} against {other['name']} ({figures(other['metrics'][primary]['value'])[0]}): "
            f"{gain_with_interval(gain, lower)}, {p_value(adjusted)}{corrected}: {told}."
        )
    return lines


def _gain(found: Mapping[str, Any], best: str, other: str) -> tuple[Interval, float, int]:
    """What `best` is better by than `other`, how likely that is luck, corrected, and on how many rows they differ."""
    for pair in found["pairs"]:
        plain = pair["differences"][found["primary"]]
        if (pair["to"], pair["from"]) == (best, other):
            return interval_of(plain), pair["adjusted"], pair["differing"]
        if (pair["to"], pair["from"]) == (other, best):
            turned = Interval(-plain["value"], -plain["high"], -plain["low"])
            return turned, pair["adjusted"], pair["differing"]
    raise KeyError(f"{best} and {other}")


def _told(gain: Interval, adjusted: float, confidence: float) -> str:
    sure = adjusted < 1 - confidence and (gain.low > 0 or gain.high < 0)
    return "more than luck explains" if sure else "that can be luck"


def _head(found: Mapping[str, Any]) -> str:
    first, *rest = comparison_lines(found)
    quiet = "".join(f"<p>{text(line)}</p>" for line in rest)
    if found["left_out"]:
        names = ", ".join(metric_title(name) for name in found["left_out"])
        quiet += f'<p class="warning">Not of the same rows or tokens in all runs, so not compared: {text(names)}.</p>'
    return (
        f'<header><h1>{len(found["runs"])} runs</h1></header><section class="verdict"><p class="lead">{text(first)}</p>'
        f'<div class="quiet">{quiet}</div></section>'
    )


def _figures(found: Mapping[str, Any]) -> str:
    primary = found["primary"]
    marks = [(run["name"], interval_of(run["metrics"][primary])) for run in found["runs"]]
    rows = [Whisker(name, i.value, i.low, i.high, with_interval(i)) for name, i in marks]
    drawn = whiskers(rows, scale_of([edge for _, i in marks for edge in (i.low, i.high)]))
    names = list(found["runs"][0]["metrics"])
    lines = [
        row_head(run["name"])
        + cell(run["method"])
        + "".join(cell(with_interval(interval_of(run["metrics"][name])), "n") for name in names)
        + cell(duration(run["cost"]["cpu_seconds"], "CPU"), "n")
        + cell(duration(_alone(run["cost"]), "CPU"), "n")
        + cell(memory(run["cost"]["peak_memory_mb"]), "n")
        for run in found["runs"]
    ]
    titles = (f"#{sentence_case(metric_title(name, found['lower']))}" for name in names)
    table = long_table(("Run", "Method", *titles, "#Spent in all", "#On this model alone", "#Memory"), lines, "runs")
    lead = f"On {rows_of(found['rows'], 'test row')}. Brackets are {100 * found['confidence']:g} % intervals over them"
    lead += f"{drawn_in(found['groups'])}."
    return section("figures", sentence_case(metric_title(primary)), text(lead), f"{drawn}{table}")


def _pairs(found: Mapping[str, Any]) -> str:
    primary, lower = found["primary"], found["primary"] in found["lower"]
    gains = [(pair, interval_of(pair["differences"][primary])) for pair in found["pairs"]]
    rows = [
        Whisker(
            f"{pair['to']} over {pair['from']}",
            gain.value,
            gain.low,
            gain.high,
            f"{minus(gain_with_interval(gain, lower))}, {p_value(pair['adjusted'])}",
        )
        for pair, gain in gains
    ]
    scale = scale_of([0.0, *(edge for _, gain in gains for edge in (gain.low, gain.high))])
    corrected = ", corrected for the number of pairs (Holm)" if len(rows) > 1 else ""
    lead = f"On the same rows, so that what is easy or hard for both cancels out; p is paired{corrected}."
    others = [name for name in found["pairs"][0]["differences"] if name != primary]
    lines = [
        row_head(f"{pair['to']} over {pair['from']}")
        + "".join(
            cell(minus(gain_with_interval(interval_of(pair["differences"][name]), name in found["lower"])), "n")
            for name in others
        )
        for pair, _ in gains
    ]
    heads = ("Pair", *(f"#{sentence_case(metric_title(name))}" for name in others))
    table = long_table(heads, lines, "pairs") if others else ""
    return section("pairs", "Differences", text(lead), whiskers(rows, scale, zero=True) + table)


def _alone(cost: Mapping[str, Any]) -> float:
    """CPU seconds of the delivered model, without the proof; of the whole where an earlier version did not say."""
    own = cost.get("delivered")
    return cost["cpu_seconds"] if own is None else own["cpu_seconds"]


def _unbeaten(found: Mapping[str, Any], costs: Sequence[float]) -> list[str]:
    """The runs that no other one is better than for the same cost, or as good as for less."""
    primary, lower = found["primary"], found["primary"] in found["lower"]
    values = [run["metrics"][primary]["value"] * (-1 if lower else 1) for run in found["runs"]]
    points = list(zip(values, costs, strict=True))
    return [
        run["name"]
        for run, (value, cost) in zip(found["runs"], points, strict=True)
        if not any((v > value and c <= cost) or (v == value and c < cost) for v, c in points)
    ]


def _cost(found: Mapping[str, Any]) -> str:
    primary, runs = found["primary"], found["runs"]
    spent, alone = [run["cost"]["cpu_seconds"] for run in runs], [_alone(run["cost"]) for run in runs]
    best, best_alone = _unbeaten(found, spent), _unbeaten(found, alone)
    spots = [
        Spot(run["name"], cost, i.value, i.low, i.high, run["name"] in best, own)
        for run, cost, own in zip(runs, spent, alone, strict=True)
        for i in [interval_of(run["metrics"][primary])]
    ]
    lead = (
        f"Nothing here is both cheaper and better than: {', '.join(best)}, by all that was spent, the proof and models "
        "trained for it included (the dots). "
    )
    unlike = "the same" if best_alone == best else f"another answer: {', '.join(best_alone)}"
    lead += f"By what the delivered models took alone, at the left ends of the lines, it is {unlike}."
    drawn = cost_and_quality(sentence_case(metric_title(primary, found["lower"])), "CPU seconds", spots)
    return section("cost", "Cost against quality", text(lead), legend([run["name"] for run in runs]) + drawn)


def _curves(found: Mapping[str, Any], names: Sequence[str]) -> str:
    curves = [run["curves"] for run in found["runs"]]

    def lines(kind: str, value: str) -> list[Line]:
        return [
            Line(name, [(point["epoch"], point[value]) for point in of[kind] if point[value] is not None])
            for name, of in zip(names, curves, strict=True)
        ]

    drawn = overlaid("Validation loss", "by epoch", lines("evaluations", "loss"))
    same = len({point["metric"] for of in curves for point in of["evaluations"]}) == 1
    if same:
        metric = next(point["metric"] for of in curves for point in of["evaluations"])
        drawn = overlaid(f"Validation {metric_title(metric)}", "by epoch", lines("evaluations", "value")) + drawn
    if not drawn:
        return ""
    return section("curves", "How they learned", "By epoch.", f'{legend(names)}<div class="curves">{drawn}</div>')


def _disagreements(found: Mapping[str, Any], names: Sequence[str]) -> str:
    told = found["disagreements"]
    lead = f"{rows_of(told['count'], 'row')} of {count(found['rows'])} get different answers."
    if not told["examples"]:
        return section("disagreements", "Where they disagree", lead, "")
    lines = [
        f'<td class="said" dir="auto">{text(item["text"])}</td>{cell(item["truth"])}'
        + "".join(
            f'<td dir="auto"{"" if item["said"][name] == item["truth"] else " class=off"}>{text(item["said"][name])}</td>'
            for name in names
        )
        for item in told["examples"]
    ]
    return section("disagreements", "Where they disagree", lead, long_table(("Text", "Truth", *names), lines, "rows"))


def _settings(found: Mapping[str, Any], names: Sequence[str]) -> str:
    if not found["settings"]:
        return section("settings", "What differs in the recipes", "Nothing.", "")
    lines = "".join(
        f'<tr><th scope="row"><code>{text(item["key"])}</code></th>'
        + "".join(f"<td><code>{text(item['values'][name])}</code></td>" for name in names)
        + "</tr>"
        for item in found["settings"]
    )
    table = f'<div class="scroll"><table>{head_row("Setting", *names)}<tbody>{lines}</tbody></table></div>'
    return section("settings", "What differs in the recipes", "As asked, and as worked out.", table)
