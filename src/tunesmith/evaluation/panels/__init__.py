"""How each examination of tunesmith/evidence is shown, one file each under its name: a section of report.html."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

# In the order of the page.
PANELS: tuple[str, ...] = ("ladder", "folds", "learning_curve", "seeds", "health", "calibration", "slices")


class Panel(Protocol):
    """A file of this folder."""

    def show(self, data: Mapping[str, Any], report: Mapping[str, Any]) -> str:
        """A section of the page from what the examination gave; every text in it escaped."""
        ...


def panel(name: str) -> Panel:
    return cast("Panel", importlib.import_module(f"tunesmith.evaluation.panels.{name}"))
