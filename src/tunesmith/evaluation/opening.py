"""The first screen of report.html: was it worth it, can it be trusted, what did it cost, and what now."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.advising import told_beside
from tunesmith.evaluation.charts import text
from tunesmith.evaluation.wording import rows_of, sentence_case

STATUS = {True: ("yes", "It helped"), False: ("no", "It did not pay"), None: ("open", "Cannot tell")}
# Findings of the result, told with the verdict as in the terminal: what each of them answers.
BESIDE = {
    "grouped": "Can it be trusted?",
    "leak_effect": "Can it be trusted?",
    "overfitting": "Does it overfit?",
    "retention": "What the base still knows",
    "unkept": "What the base still knows",
    "nearer": "Where is it worse?",
    "surer": "Where is it worse?",
}
# Likewise what an examination has to say, by its panel.
EXAMINED = {
    "learning_curve": "Would more data help?",
    "folds": "On every row",
    "seeds": "From other seeds",
    "calibration": "How sure is it?",
    "slices": "Where is it worse?",
    "health": "Was training in order?",
}
# Findings of the data and of the proof by which a figure may be better, or worse, than what is to come.
DOUBTS = ("near_leak", "giveaway", "word_tells", "drift", "precision", "coverage", "unexamined")
TRUST, ADVICE, COST, ELSE = "Can it be trusted?", "What now?", "What did it cost?", "Also"
DOUBT = "Why can it not be told?"
ORDER = ("The base alone", DOUBT, ADVICE, TRUST, COST, "Would more data help?")  # first of all; the others as they come
WARNING = "Warning: "


def opening(report: Mapping[str, Any]) -> str:
    """Header and verdict: its first sentence large, then an answer a line."""
    verdict = report["verdict"]
    kind, word = STATUS[verdict["helped"]]
    if not report["baselines"]:
        word = "Not compared" if report["metrics"] else "Not measured"
    facts = [("Model", "model"), ("Method", "method"), ("Task", "task")]
    listed = "".join(f"<div><dt>{name}</dt><dd>{text(report[key])}</dd></div>" for name, key in facts)
    brackets = f'<p class="note">{text(verdict["brackets"])}</p>' if verdict["brackets"] else ""
    return (
        f'<header><h1 dir="auto">{text(report["name"])}</h1>'
        f'<dl class="facts">{listed}<div><dt>Data</dt><dd>{text(report["data"]["path"])}</dd></div></dl></header>'
        f'<section class="verdict"><p class="status {kind}">{word}</p>'
        f'<p class="lead">{kept_together(verdict["lead"])}</p>{_answers(report)}{brackets}</section>'
    )


def beside(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Findings that stand with the verdict: they are about the model, and not about the data."""
    return [item for item in report["findings"] if item["kind"] in BESIDE]


def kept_together(sentence: str) -> str:
    """Escaped, with no line break inside a figure and its interval or unit."""
    words = re.sub(r"(?<=\d) (?=(?:[kMG]|MB|GB|Wh|%)[ ,.)])", "\N{NO-BREAK SPACE}", text(sentence))
    figures_with_p = r"\(?[+-]?[\d.]+ \[[-+\d., ]+\](?:, p (?:=|&lt;) [\d.]+\d)?\)?\.?"
    words = re.sub(r"(?<!\], )\bp (=|&lt;) (?=[\d.])", "p\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", words)
    return re.sub(figures_with_p, r'<span class="kept-together">\g<0></span>', words)


def _answers(report: Mapping[str, Any]) -> str:
    """A list of what each line answers, and what is to be said of it."""
    lines = _told(report)
    asked = list(dict.fromkeys([*(name for name in ORDER if name in lines), *lines]))
    return f'<dl class="answers">{"".join(_answer(name, lines[name]) for name in asked)}</dl>' if asked else ""


def _answer(name: str, said: Sequence[str]) -> str:
    cells = "".join(
        f'<p class="warning">{kept_together(sentence_case(line.removeprefix(WARNING)))}</p>'
        if line.startswith(WARNING)
        else f"<p>{kept_together(sentence_case(line))}</p>"
        for line in said
    )
    return f"<div><dt>{text(name)}</dt><dd>{cells}</dd></div>"


def _told(report: Mapping[str, Any]) -> dict[str, list[str]]:
    verdict = report["verdict"]
    told: dict[str, list[str]] = {}

    def add(name: str, *lines: str) -> None:
        told.setdefault(name, []).extend(line for line in lines if line)

    if verdict["base"]:
        add(ORDER[0], verdict["base"])
    if report["metrics"]:
        doubts = [item for item in report["findings"] if item["kind"] in DOUBTS]
        own = [item for item in beside(report) if BESIDE[item["kind"]] == TRUST]
        add(TRUST, *verdict["warnings"], *(f"{WARNING}{item['message']}." for item in doubts))
        add(TRUST, *([] if verdict["warnings"] or doubts or own else [_unwarned(report)]))
    if verdict["cost"]:
        add(COST, verdict["cost"])
    if verdict["doubt"]:
        add(DOUBT, verdict["doubt"])
    add(ADVICE, *(item["sentence"] for item in report["advice"]["items"]))
    for item in beside(report):
        add(BESIDE[item["kind"]], f"{WARNING if item['kind'] == 'unkept' else ''}{sentence_case(item['message'])}.")
    for name, line in told_beside(report):
        add(EXAMINED.get(name, ELSE), line)
    return told


def _unwarned(report: Mapping[str, Any]) -> str:
    if "folds" in report.get("evidence", ()):
        return "Nothing warns against it; each row was tested by a model that did not learn from it."
    return f"Nothing warns against it; it did not learn from the {rows_of(report['rows_tested'], 'test row')}."
