"""Texts that were written for a sample of the test rows: how many, and how near they came."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.evaluation.views.answers import build as build
from tunesmith.evaluation.views.answers import listed
from tunesmith.evaluation.wording import count, cut_answers


def show(found: Mapping[str, Any], rows: int) -> str:
    said = (
        f"{count(found['tokens'])} tokens of targets in {count(rows)} test rows were foretold one by one, each after the "
        f"true tokens before it; {count(found['written'])} texts were written from the input alone, and "
        f"{cut_answers(found['cut'], found.get('full', 0))}."
    )
    return listed("written", "Written texts", said, found["metrics"], ("Of written texts", "#Value"))
