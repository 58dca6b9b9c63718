"""rate.html: quality over learning rates, from the plain data of `tunesmith rate` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.charts import Whisker, scale_of, text, whiskers
from tunesmith.evaluation.document import document
from tunesmith.evaluation.sections import cell, long_table, row_head, section
from tunesmith.evaluation.wording import count, duration, metric_title, sentence_case


def render_rate(found: Mapping[str, Any]) -> str:
    """The whole page. Every text in `found` is escaped. `found` holds what was chosen."""
    chosen, tried = found["chosen"], found["tried"]
    metric = metric_title(next(one["metric"] for one in tried if one["metric"]))
    levels = sorted({one["share"] for one in tried})
    spent = duration(sum(one["cpu_seconds"] for one in tried), "CPU")
    begun = begun_from(found["recipe"], found["key"])
    quiet = (
        f"The {begun} rate is {chosen['documented']:.3g}. {count(len(tried))} trainings on {_rows(tried, levels)} rows "
        f"took {spent} in all. They were judged on validation rows: the best of several is flattered by luck. The test rows "
        "were not looked at."
    )
    head = (
        f"<header><h1>Learning rate {chosen['rate']:.3g}</h1></header>"
        f'<section class="verdict"><p class="lead">{text(sentence_case(chosen["why"]))}.</p>'
        f'<div class="quiet"><p>{text(quiet)}</p></div></section>'
    )
    parts = [_curve([one for one in tried if one["share"] == share], chosen, metric, begun) for share in levels]
    return document(
        f"Learning rate {chosen['rate']:.3g}",
        f"{head}{''.join(parts)}{_table(tried, metric)}<footer>The same figures as data: rate.json</footer>",
    )


def begun_from(recipe: Mapping[str, Any], key: str) -> str:
    """Which rate was tried first: the method's documented one, or the recipe's own where it names one."""
    group, _, name = key.partition(".")
    return "documented" if recipe[group][name] == "auto" else "recipe's own"


def _rows(tried: Sequence[Mapping[str, Any]], levels: Sequence[float]) -> str:
    return " and ".join(count(next(one["rows"] for one in tried if one["share"] == share)) for share in levels)


def _curve(tried: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any], metric: str, begun: str) -> str:
    """The sensitivity curve: quality by rate, from the lowest rate down."""
    done = sorted((one for one in tried if one["value"] is not None), key=lambda one: one["rate"])
    if not done:
        return ""
    marks = [
        Whisker(
            f"{one['rate']:.3g}" + (f" ({begun})" if one["step"] == 0 else ""),
            one["value"],
            one["value"] - one["error"],
            one["value"] + one["error"],
            f"{one['value']:.4f} ± {one['error']:.4f}",
            strong=one["step"] == chosen["step"],
            bad=bool(one["why"]),
        )
        for one in done
    ]
    lead = (
        f"{sentence_case(metric)} on the validation rows after learning from {count(done[0]['rows'])} rows; lines are one "
        "standard error. The rates are compared row by row, which tells more than these lines do."
    )
    drawn = whiskers(marks, scale_of([edge for mark in marks for edge in (mark.low, mark.high)]))
    return section(f"rate-{done[0]['rows']}", "Quality by rate", text(lead), drawn)


def _table(tried: Sequence[Mapping[str, Any]], metric: str) -> str:
    rows = [
        row_head(f"{one['rate']:.3g}")
        + cell(count(one["rows"]), "n")
        + cell("" if one["value"] is None else f"{one['value']:.4f}", "n")
        + cell("" if one["loss"] is None else f"{one['loss']:.4f}", "n")
        + cell(duration(one["cpu_seconds"]), "n")
        + cell(one["why"])
        for one in sorted(tried, key=lambda one: (one["share"], one["rate"]))
    ]
    heads = ("Rate", "#Rows", f"#{sentence_case(metric)}", "#Loss", "#CPU time", "Ended")
    return section("trials", "What was tried", "", long_table(heads, rows, "rates", "several"))
