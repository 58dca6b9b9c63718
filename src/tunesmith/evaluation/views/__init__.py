"""Sections of the report that only some tasks have, one file each: what is measured, and how it is shown."""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

from tunesmith.tasks.base import Labels, Scores


class View(Protocol):
    """A file of this folder."""

    def build(self, scores: Scores, labels: Labels) -> Any:
        """Plain data for report.json, under the view's name."""
        ...

    def show(self, found: Any, rows: int) -> str:
        """A section of report.html from that data; `rows` are the test rows."""
        ...


def view(name: str) -> View:
    return cast("View", importlib.import_module(f"tunesmith.evaluation.views.{name}"))
