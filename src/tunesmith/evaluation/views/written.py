"""Texts that were written for a sample of the test rows: how many, and how near they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.sections import cell, head_row, row_head, section
from tunesmith.evaluation.views.answers import build as build
from tunesmith.evaluation.wording import count, figures, metric_title


def show(found: Mapping[str, Any], rows: int) -> str:
    said = (
        f"{count(found['tokens'])} tokens of targets in {count(rows)} test rows were foretold one by one, each after the "
        f"true tokens before it; {count(found['written'])} texts were written from the input alone, and "
        f"{count(found['cut'])} of these were cut at the most tokens that may be written."
    )
    if not found["metrics"]:
        return section("written", "Written texts", said, "")
    lines = "".join(
        f"<tr>{row_head(metric_title(name))}{cell(figures(value)[0], 'n')}</tr>"
        for name, value in found["metrics"].items()
    )
    table = f"<table>{head_row('Of written texts', '#Value')}<tbody>{lines}</tbody></table>"
    return section("written", "Written texts", said, table)
