"""compare.html, from the plain data of a comparison alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Whisker, breakable, minus, scale_of, text, whiskers
from tunesmith.evaluation.document import document
from tunesmith.evaluation.groups import drawn_in, too_few
from tunesmith.evaluation.intervals import Interval, interval_of
from tunesmith.evaluation.opening import kept_together
from tunesmith.evaluation.overlays import Line, Spot, cost_and_quality, legend, overlaid
from tunesmith.evaluation.sections import MISTAKES_FIRST, cell, head_row, long_table, row_head, section
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

SEVERAL = 4  # other runs up to which each is told in a line of its own


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
    return document(
        f"{' against '.join(names)}",
        f"{body}<footer>The same figures as data: tunesmith compare RUN RUN --json</footer>",
    )


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
    lines += _folded(found)
    pairs = len(found["pairs"])
    lines += _against(found, rank)
    if pairs > 1:
        lines.append(f"{_corrected(found)}.")
    return lines


def _folded(found: Mapping[str, Any]) -> list[str]:
    """Which rows of runs with folds are compared; and where folders of folds are gone, that theirs are not."""
    if not found["folds"]:
        return []
    of = [
        f"{name} ({there} of its {all_} folds{'' if there == all_ else ': the folders of the others are not there'})"
        for name, (there, all_) in found["folds"].items()
    ]
    return [
        f"Each row is compared as the model of its fold says it, which did not learn from it: {', '.join(of)}. Over folds "
        f"only {metric_title(found['primary'])} can be told."
    ]


def _against(found: Mapping[str, Any], rank: Sequence[Mapping[str, Any]]) -> list[str]:
    """The best run against each other one; of many others only against which the difference can be luck."""
    primary, lower, (best, *others) = found["primary"], found["primary"] in found["lower"], rank
    gains = [(other, *_gain(found, best["name"], other["name"])) for other in others]
    named = [f"{other['name']} ({figures(other['metrics'][primary]['value'])[0]})" for other in others]
    if len(others) <= SEVERAL:
        return [
            f"{best['name']} against {other['name']}: the same on every row; nothing tells them apart."
            if differing == 0
            else f"{best['name']} against {name}: {gain_with_interval(gain, lower)}, {p_value(adjusted)}: "
            f"{_reading(gain, adjusted, found['confidence'])}."
            for name, (other, gain, adjusted, differing) in zip(named, gains, strict=True)
        ]
    sure = [_sure(gain, adjusted, found["confidence"]) for _, gain, adjusted, _ in gains]
    behind = ", ".join(name for name, clear in zip(named, sure, strict=True) if clear)
    open_ = ", ".join(name for name, clear in zip(named, sure, strict=True) if not clear)
    return [
        *([f"It is better than these by more than luck explains: {behind}."] if behind else []),
        *([f"Against these the difference can be luck: {open_}."] if open_ else []),
    ]


def _gain(found: Mapping[str, Any], best: str, other: str) -> tuple[Interval, float, int]:
    """What `best` is better by than `other`, how likely that is luck (both corrected), and on how many rows they differ."""
    for pair in found["pairs"]:
        plain = pair["together"][found["primary"]]
        if {pair["to"], pair["from"]} == {best, other}:
            return _less(plain, pair["from"] == best), pair["adjusted"], pair["differing"]
    raise KeyError(f"{best} and {other}")


def _corrected(found: Mapping[str, Any]) -> str:
    pairs, level = len(found["pairs"]), 100 * found["level"]
    return (
        f"Both are corrected for {pairs} pairs: the intervals of all differences hold at once with "
        f"{100 * found['confidence']:g} % (Bonferroni: each has {level:.4g} %), and p is adjusted by Holm"
    )


def _sure(gain: Interval, adjusted: float, confidence: float) -> bool:
    return adjusted < 1 - confidence and (gain.low > 0 or gain.high < 0)


def _reading(gain: Interval, adjusted: float, confidence: float) -> str:
    """Where interval and test do not agree, which of them holds back."""
    if _sure(gain, adjusted, confidence):
        return "more than luck explains"
    if adjusted < 1 - confidence:
        return "that can be luck, for the interval of the difference holds 0"
    if gain.low > 0 or gain.high < 0:
        return f"that can be luck, for p is not below {1 - confidence:.2g}"
    return "that can be luck"


def _head(found: Mapping[str, Any]) -> str:
    first, *rest = comparison_lines(found)
    quiet = "".join(f"<p>{kept_together(line)}</p>" for line in rest)
    if found["left_out"]:
        names = ", ".join(metric_title(name) for name in found["left_out"])
        quiet += f'<p class="warning">Not of the same rows or tokens in all runs, so not compared: {text(names)}.</p>'
    return (
        f'<header><h1>{len(found["runs"])} runs</h1></header><section class="verdict">{_status(found)}'
        f'<p class="lead">{kept_together(first)}</p>'
        f'<div class="quiet">{quiet}</div></section>'
    )


def _status(found: Mapping[str, Any]) -> str:
    """Whether one run is better than every other beyond luck."""
    primary, lower, runs = found["primary"], found["primary"] in found["lower"], found["runs"]
    best = (min if lower else max)(runs, key=lambda run: run["metrics"][primary]["value"])["name"]
    clear = all(_sure(*_gain(found, best, run["name"])[:2], found["confidence"]) for run in runs if run["name"] != best)
    kind, said = ("yes", f"{best} is the best") if clear else ("open", "No run is better than all others beyond luck")
    return f'<p class="status {kind}"><span dir="auto">{text(said)}</span></p>'


def _figures(found: Mapping[str, Any]) -> str:
    primary = found["primary"]
    marks = [(run["name"], interval_of(run["metrics"][primary])) for run in found["runs"]]
    rows = [Whisker(name, i.value, i.low, i.high, with_interval(i)) for name, i in marks]
    drawn = whiskers(rows, scale_of([edge for _, i in marks for edge in (i.low, i.high)]))
    names = list(found["runs"][0]["metrics"])
    lines = [
        row_head(run["name"])
        + cell(run["method"])
        + "".join(_with_small_interval(run["metrics"][name]) for name in names)
        + cell(duration(run["cost"]["cpu_seconds"], "CPU"), "n")
        + cell(duration(_alone(run["cost"]), "CPU"), "n")
        + cell(memory(run["cost"]["peak_memory_mb"]), "n")
        for run in found["runs"]
    ]
    titles = (f"#{sentence_case(metric_title(name, found['lower']))}" for name in names)
    table = long_table(
        ("Run", "Method", *titles, "#Spent in all", "#On this model alone", "#Memory"), lines, "runs", "several"
    )
    lead = f"On {rows_of(found['rows'], 'test row')}. Brackets are {100 * found['confidence']:g} % intervals over them"
    lead += f"{drawn_in(found['groups'])}."
    return section("figures", sentence_case(metric_title(primary)), text(lead), f"{drawn}{table}")


def _pairs(found: Mapping[str, Any]) -> str:
    primary, lower = found["primary"], found["primary"] in found["lower"]
    rows = [
        Whisker(
            f"{better} over {worse}",
            gain.value,
            gain.low,
            gain.high,
            f"{minus(gain_with_interval(gain, lower))}, {p_value(pair['adjusted'])}",
            strong=_sure(gain, pair["adjusted"], found["confidence"]),
        )
        for pair in found["pairs"]
        for better, worse, gain in [_turned(pair, primary)]
    ]
    scale = scale_of([0.0, *(edge for row in rows for edge in (row.low, row.high))])
    lead = "On the same rows, so that what is easy or hard for both cancels out. Coloured: more than luck explains."
    if len(rows) > 1:
        lead += f" Intervals and p are corrected for {len(rows)} pairs."
    others = [name for name in found["pairs"][0]["differences"] if name != primary]
    lines = []
    for pair in found["pairs"]:
        better, worse, _ = _turned(pair, primary)
        gains = [(name, _less(pair["together"][name], better == pair["from"])) for name in others]
        cells = (cell(minus(gain_with_interval(gain, name in found["lower"])), "n") for name, gain in gains)
        lines.append(row_head(f"{better} over {worse}") + "".join(cells))
    heads = ("Pair", *(f"#{sentence_case(metric_title(name))}" for name in others))
    table = long_table(heads, lines, "pairs", "several") if others else ""
    return section("pairs", "Differences", text(lead), whiskers(rows, scale, zero=True) + table)


def _turned(pair: Mapping[str, Any], metric: str) -> tuple[str, str, Interval]:
    """The better run, the worse, and by how much, so that all pairs hold at once."""
    back = pair["together"][metric]["value"] < 0
    gain = _less(pair["together"][metric], back)
    return (pair["from"], pair["to"], gain) if back else (pair["to"], pair["from"], gain)


def _less(plain: Mapping[str, float], back: bool) -> Interval:
    """The difference as it is, or of the same two the other way round."""
    gain = interval_of(plain)
    return Interval(-gain.value, -gain.high, -gain.low) if back else gain


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
    length = len(told["examples"])
    more = f' data-first="{MISTAKES_FIRST}" data-what="{length} examples"' if length > MISTAKES_FIRST else ""
    items = "".join(_example(item, names) for item in told["examples"])
    body = f'<ol class="mistakes" data-truth-is="truth"{more}>{items}</ol>'
    return section("disagreements", "Where they disagree", lead, body)


def _example(item: Mapping[str, Any], names: Sequence[str]) -> str:
    """A row with its truth, and each answer with the runs that gave it."""
    said: dict[str, list[str]] = {}
    for name in names:
        said.setdefault(item["said"][name], []).append(name)
    answers = "".join(
        f'<span class="{"right" if answer == item["truth"] else "wrong"}">{text(", ".join(runs))}: '
        f'<b dir="auto">{breakable(answer)}</b></span>'
        for answer, runs in said.items()
    )
    truth = f'<span class="truth">truth <b dir="auto">{breakable(item["truth"])}</b></span>'
    return (
        f'<li data-truth="{text(item["truth"])}"><p class="said" dir="auto">{text(item["text"])}</p>'
        f'<p class="gloss answered">{truth}{answers}</p></li>'
    )


def _with_small_interval(plain: Mapping[str, float]) -> str:
    value, low, high = figures(plain["value"], plain["low"], plain["high"])
    return f'<td class="n" data-value="{plain["value"]!r}">{value} <small>[{low}, {high}]</small></td>'


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
