"""search.html, from the plain data of a search alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import Whisker, scale_of, text, whiskers
from tunesmith.evaluation.document import document
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import count, duration, metric_title, sentence_case


def render_search(found: Mapping[str, Any]) -> str:
    """The whole page. Every text in `found` is escaped."""
    body = "".join((_head(found), _trials(found), _importances(found), _spaces(found)))
    winner = found["winner"]["number"]
    return document(f"Search: trial {winner}", f"{body}<footer>The same figures as data: search.json</footer>")


def _head(found: Mapping[str, Any]) -> str:
    winner, metrics = found["winner"], found["metrics"]
    said = ", ".join(f"{key} = {_shown(value)}" for key, value in winner["values"].items())
    best = next(one for one in found["trials"] if one["number"] == winner["number"])
    lead = f"Trial {winner['number']}: {said}."
    told = "" if best["error"] is None else " (one standard error)"
    lines = [
        f"Validation {metric_title(metrics[0])} {_figure(best, metrics[0])}{told}. The best of several trials is flattered "
        "by luck: take it as a ranking, not as a result."
    ]
    if winner["test"] is not None:
        shown = "; ".join(
            f"{metric_title(name)} {item['value']:.4f} [{item['low']:.4f}, {item['high']:.4f}]"
            for name, item in winner["test"].items()
            if item["value"] is not None
        )
        lines.append(f"On the test rows, which no trial saw: {shown}.")
    quiet = "".join(f"<p>{text(line)}</p>" for line in lines)
    page = '<p><a href="winner/report.html">The winner\'s own report</a></p>' if winner["test"] is not None else ""
    return (
        f"<header><h1>{count(len(found['trials']))} trials</h1></header>"
        f'<section class="verdict"><p class="lead">{text(lead)}</p><div class="quiet">{quiet}{page}</div></section>'
    )


def _trials(found: Mapping[str, Any]) -> str:
    metrics, keys = found["metrics"], list(found["spaces"])
    first, front = metrics[0], set(found["frontier"])
    done = [one for one in found["trials"] if one["state"] == "done"]
    ranked = sorted(done, key=lambda one: -one["ranks"][0])
    marks = [
        Whisker(
            f"trial {one['number']}",
            one["metrics"][first],
            one["metrics"][first] - (one["error"] or 0.0),
            one["metrics"][first] + (one["error"] or 0.0),
            _figure(one, first),
            strong=one["number"] in front,
        )
        for one in ranked[:20]
    ]
    drawn = whiskers(marks, scale_of([edge for mark in marks for edge in (mark.low, mark.high)]))
    rows = [
        row_head(one["number"])
        + cell(_state(one))
        + "".join(cell(f"{one['metrics'][name]:.4g}" if name in one["metrics"] else "", "n") for name in metrics)
        + "".join(cell(_shown(one["values"].get(key, ""))) for key in keys)
        + cell(duration(one["cpu_seconds"], "CPU"), "n")
        for one in found["trials"]
    ]
    heads = ("Trial", "State", *(f"#{sentence_case(metric_title(name))}" for name in metrics), *keys, "#Spent")
    lines = "; lines are one standard error" if any(one["error"] is not None for one in done) else ""
    lead = f"On the validation rows{lines}. {_front(found)}All together took "
    lead += f"{duration(found['cpu_seconds'], 'CPU')}."
    return section("trials", "Trials", text(lead), drawn + long_table(heads, rows, "trials", "several"))


def _figure(trial: Mapping[str, Any], metric: str) -> str:
    """A trial's value, with one standard error where that is known."""
    within = "" if trial["error"] is None else f" ± {trial['error']:.4f}"
    return f"{trial['metrics'][metric]:.4f}{within}"


def _front(found: Mapping[str, Any]) -> str:
    if len(found["metrics"]) == 1:
        return ""
    names = ", ".join(str(number) for number in found["frontier"])
    return f"No other trial is as good in every metric and better in one than: {names}. "


def _state(one: Mapping[str, Any]) -> str:
    return f"{one['state']}: {one['why']}" if one["why"] else one["state"]


def _importances(found: Mapping[str, Any]) -> str:
    if not found["importances"]:
        return ""
    rows = [
        row_head(key) + cell(f"{100 * share:.0f} %", "n")
        for key, share in sorted(found["importances"].items(), key=lambda item: -item[1])
    ]
    lead = "How much of what tells the done trials apart goes back to each field (fANOVA, Hutter 2014)."
    return section("importances", "What mattered", lead, long_table(("Field", "#Share"), rows, "fields"))


def _spaces(found: Mapping[str, Any]) -> str:
    rows = [row_head(key) + cell(said) for key, said in found["spaces"].items()]
    return section("spaces", "What was searched", "", long_table(("Field", "Space"), rows, "fields"))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return value if isinstance(value, str) else json.dumps(value)
