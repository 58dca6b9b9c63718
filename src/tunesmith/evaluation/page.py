"""report.html: one file without network, made from the plain data of report.json alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import (
    Curve,
    Whisker,
    curve,
    minus,
    number,
    scale_of,
    small,
    text,
    whiskers,
)
from tunesmith.evaluation.document import document
from tunesmith.evaluation.groups import drawn_in
from tunesmith.evaluation.intervals import Interval, best_of, interval_of
from tunesmith.evaluation.opening import kept_together, opening
from tunesmith.evaluation.panels import PANELS, panel
from tunesmith.evaluation.sections import (
    cell,
    cost_section,
    data_section,
    head_row,
    mistakes_section,
    notes,
    reproduce_section,
    row_head,
    section,
    settings_section,
)
from tunesmith.evaluation.verdict import PROBE, TESTS
from tunesmith.evaluation.views import view
from tunesmith.evaluation.wording import (
    count,
    digits_of,
    duration,
    figures,
    gain_with_interval,
    metric_title,
    p_value,
    rows_of,
    sentence_case,
    with_interval,
)

FOLDS = "folds"  # the panel of the result over all of them
MANY = 3  # metrics that fit beside each other with their intervals
NEAR = 0.25  # a baseline further below the best is an arrow, so that the others can be told apart
FOLD = 4  # likewise of a metric without bounds: of perplexities beyond so many times the best one is an arrow
TIMES = 6  # likewise for gains: beyond so many times the reach of that over the best rival, which decides


def render(report: Mapping[str, Any]) -> str:
    """The whole page; of a run without test rows (no metrics) what is known without them.

    Every text in `report` is escaped; nothing in it can become markup or script.
    """
    sections = _sections(report) if report["metrics"] else _unmeasured(report)
    shown = "".join(section for section in sections if section)
    return document(report["name"], f"{opening(report)}\n{shown}{_foot(report)}")


def _sections(report: Mapping[str, Any]) -> list[str]:
    first = [name for name in (FOLDS,) if report["evidence"].get(name)]  # the verdict is over these
    return [
        *(_panel(name, report) for name in first),
        _result(report),
        _shares(report),
        _learning(report),
        *(view(name).show(report[name], report["rows_tested"]) for name in report["views"]),
        *(_panel(name, report) for name in PANELS if report["evidence"].get(name) and name not in first),
        mistakes_section(report),
        data_section(report),
        settings_section(report),
        cost_section(report),
        reproduce_section(report),
    ]


def _unmeasured(report: Mapping[str, Any]) -> list[str]:
    """Of a run without test rows."""
    return [
        _learning(report),
        *(_panel(name, report) for name in PANELS if report["evidence"].get(name)),
        data_section(report),
        settings_section(report),
        cost_section(report),
        reproduce_section(report),
    ]


def _panel(name: str, report: Mapping[str, Any]) -> str:
    """A section of the evidence; where it cannot be drawn that is said, and the rest of the page stands."""
    try:
        return panel(name).show(report["evidence"][name], report)
    except Exception as error:
        said = f"It could not be drawn ({type(error).__name__}); its figures are in report.json. Please report it."
        return section(name, text(sentence_case(name.replace("_", " "))), text(said), "")


def _result(report: Mapping[str, Any]) -> str:
    primary, baselines = report["primary"], report["baselines"]
    own = f"This model ({report['method']})"
    marks = [(own, interval_of(report["metrics"][primary]))]
    marks += [(sentence_case(item["what"]), interval_of(item["metrics"][primary])) for item in baselines]
    near = [edge for i in _near([i for _, i in marks], primary in report["lower"]) for edge in (i.low, i.high)]
    rows = [Whisker(name, i.value, i.low, i.high, with_interval(i), name == own) for name, i in marks]
    share = 100 * report["confidence"]
    body = f"<h3>{text(sentence_case(metric_title(primary)))}</h3>{whiskers(rows, scale_of(near, *_bounds(marks)))}"
    if report["gains"]:
        body += f"<h3>Gain over each baseline, on the same test rows</h3>{_gains(report)}"
    tested = report["rows_tested"]
    whole = report["evidence"].get(FOLDS)
    alone = (
        f", one fold of {len(whole['folds'])}: the verdict is over all {whole['rows']:,} rows, above" if whole else ""
    )
    lead = (
        f"Measured on {rows_of(tested, 'test row')}{alone}. Lines and brackets are {share:g}\N{NO-BREAK SPACE}% intervals "
        f"over test rows{drawn_in(report.get('groups_tested'))}; they say nothing of how another seed would have done. An "
        "arrow points at what lies off the scale."
    )
    title = "The delivered model, on its own test rows" if whole else "Result"
    return section("result", title, text(lead), body + _metrics(report, own) + notes(report["uncompared"]))


def _bounds(marks: list[tuple[str, Interval]]) -> tuple[float, float]:
    """Metrics between -1 and 1 have nothing beyond; those between 0 and 1 nothing below."""
    least, most = min(interval.low for _, interval in marks), max(interval.high for _, interval in marks)
    return (-1.0 if least < 0 else 0.0), 1.0 if most <= 1 else math.inf


def _near(marks: list[Interval], lower: bool) -> list[Interval]:
    """Those close enough to the best one to share a scale with it."""
    best = (min if lower else max)(interval.value for interval in marks)
    if max(interval.high for interval in marks) > 1:  # no share of anything: told apart by ratio
        return [i for i in marks if best / FOLD <= i.value <= best * FOLD]
    return [i for i in marks if abs(i.value - best) < NEAR]


def _gains(report: Mapping[str, Any]) -> str:
    lower = report["primary"] in report["lower"]
    named = {item["name"]: item["what"] for item in report["baselines"]}
    gains = {name: interval_of(plain) for name, plain in report["gains"].items() if name in named}
    known = [item for item in report["baselines"] if item["name"] in gains]
    rivals = [item for item in known if (report["method"], item["name"]) != ("head", PROBE)] or known
    best = best_of({item["name"]: item["metrics"][report["primary"]]["value"] for item in rivals}, lower)
    reach = 0.0 if best is None else max(abs(gains[best].low), abs(gains[best].high))
    near = [edge for i in gains.values() if abs(i.value) <= TIMES * reach for edge in (i.low, i.high)]
    tests = report["tests"]
    rows = [
        Whisker(
            f"over {named[name]}",
            i.value,
            i.low,
            i.high,
            minus(gain_with_interval(i, lower)) + (f", {p_value(tests[name]['p'])}" if name in tests else ""),
        )
        for name, i in gains.items()
    ]
    return whiskers(rows, scale_of([0.0, *near]), zero=True) + _tests_note(
        [tests[name] for name in gains if name in tests]
    )


def _tests_note(tests: Sequence[Mapping[str, Any]]) -> str:
    """By which test p is, and what becomes of the largest one when all are read together; "" where none was made."""
    if not tests:
        return ""
    said = (
        f"p is how likely a gain or loss as large would be by luck, by {TESTS.get(tests[0]['test'], tests[0]['test'])}"
    )
    if len(tests) > 1:
        largest = p_value(max(test["adjusted"] for test in tests))
        said += f", each comparison by itself; adjusted for {len(tests)} of them (Holm) the largest is {largest}"
    return f'<p class="note">{kept_together(said)}.</p>'


def _metrics(report: Mapping[str, Any], own: str) -> str:
    names = list(report["metrics"])
    cost = report["cost"]
    proof = 0.0 if cost["evidence"] is None else cost["evidence"]["seconds"]
    models = [(own, report["metrics"], cost["seconds"] - proof)]
    models += [(sentence_case(item["what"]), item["metrics"], item["seconds"]) for item in report["baselines"]]
    lines = []
    for what, metrics, seconds in models:
        of_names = (_with_small_interval(metrics[name], report["metrics"][name]) for name in names)
        cells = "".join(f'<td class="n">{shown}</td>' for shown in of_names)
        lines.append(f"<tr>{row_head(what)}{cells}{cell(duration(seconds), 'n')}</tr>")
    heads = head_row("Model", *(f"#{sentence_case(metric_title(name, report['lower']))}" for name in names), "#Took")
    many = " many" if len(names) > MANY else ""
    return f'<div class="scroll"><table class="metrics{many}">{heads}<tbody>{"".join(lines)}</tbody></table></div>'


def _with_small_interval(plain: Mapping[str, float | None], own: Mapping[str, float | None]) -> str:
    """With no more digits than this model's own figure has: those of a rival that is nearly 0 would not be read."""
    edges = [plain[key] for key in ("value", "low", "high")]
    known = [edge for edge in edges if edge is not None]
    if len(known) < len(edges):
        return number(None)
    most = digits_of([edge for edge in own.values() if edge is not None])
    digits = digits_of(known)
    shown = (
        figures(*known) if most is None or digits is None or digits <= most else [f"{edge:,.{most}f}" for edge in known]
    )
    value, low, high = map(minus, shown)
    return f"{value} <small>[{low}, {high}]</small>"


def _learning(report: Mapping[str, Any]) -> str:
    curves = report["curves"]
    losses = [point for point in curves["losses"] if point["loss"] is not None]
    evaluations = [point for point in curves["evaluations"] if point["value"] is not None]
    drawn = []
    if losses:
        points = [(point["epoch"], point["loss"]) for point in losses]
        drawn.append(Curve("Training loss", f"{rows_of(losses[-1]['step'], 'step')}", points, from_zero=True))
    if evaluations:
        kept = next((i for i, p in enumerate(evaluations) if p["step"] == curves["best_step"]), None)
        title = f"Validation {metric_title(evaluations[0]['metric'], report['lower'])}"
        caption = (
            ""
            if kept is None
            else f"kept: {figures(evaluations[kept]['value'])[0]} at step {count(evaluations[kept]['step'])}"
        )
        points = [(point["epoch"], point["value"]) for point in evaluations]
        drawn.append(Curve(title, caption, points, dots=True, marked=kept))
        points = [(point["epoch"], point["loss"]) for point in evaluations if point["loss"] is not None]
        # Where the loss is what chooses, once will do.
        same = all(point["loss"] == point["value"] for point in evaluations)
        if points and not same:
            lowest = min(range(len(points)), key=lambda place: points[place][1])
            drawn.append(
                Curve("Validation loss", f"lowest: {number(points[lowest][1])}", points, dots=True, marked=lowest)
            )
    if losses:
        peak = max(point["rate"] for point in losses)
        points = [(point["epoch"], point["rate"]) for point in losses]
        drawn.append(Curve("Learning rate", f"peak {small(peak)}", points, from_zero=True))
    if not drawn:
        return ""
    body = f'<div class="curves">{"".join(curve(item) for item in drawn)}</div>'
    return section("learning", "How it learned", "By epoch. The band holds all steps, the line is their mean.", body)


def _shares(report: Mapping[str, Any]) -> str:
    """What averaging with the base's own weights costs, and what it keeps."""
    tried = report.get("shares")
    if tried is None or len(tried["points"]) < 2:
        return ""
    points = tried["points"]
    kept = next(place for place, point in enumerate(points) if point["share"] == tried["chosen"])
    of_value = [
        (p["share"], p["measured"]["value"]) for p in points if p["measured"] and p["measured"]["value"] is not None
    ]
    of_lost = [(p["share"], 100 * p["lost"]) for p in points if p["lost"] is not None]
    drawn = []
    if len(of_value) == len(points):
        title = f"Validation {metric_title(points[0]['measured']['metric'], report['lower'])}"
        drawn.append(
            Curve(title, f"taken: {figures(of_value[kept][1])[0]}", of_value, dots=True, marked=kept, across="share")
        )
    if len(of_lost) == len(points):
        caption = f"taken: {number(of_lost[kept][1], 1)} %"
        title = f"{sentence_case(tried['loses'])}, %"
        drawn.append(Curve(title, caption, of_lost, dots=True, marked=kept, across="share"))
    body = f'<div class="curves">{"".join(curve(item) for item in drawn)}</div>'
    said = "By the share of the base's own weights in the delivered ones."
    return section("shares", "What the base keeps", said, body)


def _foot(report: Mapping[str, Any]) -> str:
    made = f"Tunesmith {text(report['tunesmith'])} · seed {text(report['seed'])}"
    return f"<footer>{made} · the same figures are in report.json</footer>"
