"""Whether training was in order, one line a rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.charts import text
from tunesmith.evaluation.sections import head_row, section
from tunesmith.evaluation.wording import sentence_case


def show(data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    checks = data["checks"]
    broken = sum(bool(item["cause"]) for item in checks)
    many = {0: "none of them is", 1: "one of them is"}.get(broken, f"{broken} of them are")
    lead = f"{len(checks)} rules, and {many} broken."
    lines = "".join(_line(item) for item in sorted(checks, key=lambda item: not item["cause"]))
    heads = head_row("Rule", "What was looked at", "Result")
    return section(
        "health", "Health of the training", lead, f'<table class="stacked">{heads}<tbody>{lines}</tbody></table>'
    )


def _line(item: Mapping[str, Any]) -> str:
    rule, looked, figure = text(sentence_case(item["rule"])), text(sentence_case(item["looked"])), text(item["figure"])
    cause = f"<b>{text(sentence_case(item['cause']))}.</b> " if item["cause"] else ""
    said = f"{cause}{text(sentence_case(item['fix'] or 'fine'))}."
    return f'<tr><th scope="row">{rule}</th><td>{looked}: {figure}</td><td>{said}</td></tr>'
