"""The rungs of the ladder: what each method reached on the validation rows, what it took, and why climbing ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Whisker, scale_of, text, whiskers
from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.wording import count, duration, figures, metric_title, sentence_case, signed


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    rungs: Sequence[Mapping[str, Any]] = data["rungs"]
    why = f"Method {data['chosen']} is delivered: {data['why']}."
    if not rungs:
        return section("ladder", "How the method was chosen", text(why), "")
    rows = "".join(f"<tr>{_line(rung, data['chosen'])}</tr>" for rung in rungs)
    metric = sentence_case(metric_title(rungs[0]["trial"]["metric"], report["lower"]))
    heads = head_row("Method", f"#{metric}", "#Gain", "#Rate", "#Parameters", "#Time", "#CPU time")
    lead = (
        f"From the cheapest way to the dearest, each measured on the {count(data['validation_rows'])} validation rows. "
        f"A gain is over the best method before it, with one standard error to each side. {why}"
    )
    lead += "".join(f" {sentence_case(said)}." for said in data.get("passed", ()))  # reports before had none
    table = f'<div class="scroll"><table>{heads}<tbody>{rows}</tbody></table></div>'
    return section("ladder", "How the method was chosen", text(lead), table + _short(rungs, metric) + _failed(data))


def _line(rung: Mapping[str, Any], chosen: str) -> str:
    trial, gain = rung["trial"], rung["gain"]
    gained = "" if gain is None else f"{signed(gain['value'])} [{signed(gain['low'])}, {signed(gain['high'])}]"
    own = ", this model" if trial["method"] == chosen else ""
    return (
        row_head(trial["method"] + own)
        + cell(figures(trial["value"])[0], "n")
        + cell(gained, "n")
        + cell(_rate(trial), "n")
        + cell(count(trial["trainable"]), "n")
        + cell(duration(trial["seconds"]), "n")
        + cell(duration(trial["cpu_seconds"]), "n")
    )


def _rate(trial: Mapping[str, Any]) -> str:
    return "" if trial["rate"] is None else f"{trial['rate']:.3g}"


def _short(rungs: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The short trials, by which rates and the dearer methods were chosen."""
    trials = [trial for rung in rungs for trial in rung["short"]]
    if not trials:
        return ""
    heads = head_row("Short trial", "#Rate", "#Of the rows", f"#{metric}", "#Loss", "#Time")
    lines = "".join(
        "<tr>"
        + row_head(trial["method"])
        + cell(_rate(trial), "n")
        + cell(f"{100 * trial['share']:.3g} %", "n")
        + cell(figures(trial["value"])[0], "n")
        + cell(figures(trial["loss"])[0], "n")
        + cell(duration(trial["seconds"]), "n")
        + "</tr>"
        for trial in trials
    )
    return f'{_curves(trials)}<div class="scroll"><table>{heads}<tbody>{lines}</tbody></table></div>'


def _curves(trials: Sequence[Mapping[str, Any]]) -> str:
    """Quality by rate, of each method that was tried with several."""
    drawn = ""
    for method in dict.fromkeys(trial["method"] for trial in trials):
        own = sorted((trial for trial in trials if trial["method"] == method), key=lambda trial: trial["times"])
        if len(own) < 2:
            continue
        marks = [
            Whisker(
                f"{method}, rate {_rate(trial)}",
                trial["value"],
                trial["value"] - trial["error"],
                trial["value"] + trial["error"],
                f"{trial['value']:.4f} ± {trial['error']:.4f}",
                strong=trial["times"] == 1,
            )
            for trial in own
        ]
        drawn += whiskers(marks, scale_of([edge for mark in marks for edge in (mark.low, mark.high)]))
    if not drawn:
        return ""
    said = (
        "How quality depends on the rate, in short trials; lines are one standard error, bold is the documented rate:"
    )
    return f"<p>{said}</p>{drawn}"


def _failed(data: Mapping[str, Any]) -> str:
    if not data["failed"]:
        return ""
    lines = "".join(f"<li>{text(line)}</li>" for line in data["failed"])
    return f"<p>What could not be trained here:</p><ul>{lines}</ul>"
