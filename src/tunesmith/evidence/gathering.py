"""All examinations of a finished run, in the order of the report."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Protocol, cast

from tunesmith.data.findings import Finding
from tunesmith.evaluation.panels import PANELS
from tunesmith.evidence.base import Found, Subject
from tunesmith.seeds import torch_seed


class Examination(Protocol):
    """A file of this folder."""

    def gather(self, subject: Subject) -> Found | None:
        """What there is to say; None where it has no meaning for the task."""
        ...


def gather(subject: Subject) -> dict[str, Found]:
    """By name; of a recipe that asks for the quick report only what it asks for by name."""
    wanted = ("ladder", "folds", "seeds") if subject.recipe.evaluation.quick else PANELS
    # A layer that is made draws its weights, of a generator of their own.
    with torch_seed(subject.recipe.seed, "evidence"):
        found = {name: guarded(name, lambda name=name: _examination(name).gather(subject)) for name in wanted}
    return {name: item for name, item in found.items() if item is not None}


def guarded(name: str, examine: Callable[[], Found | None]) -> Found | None:
    """What an examination finds; a finding where it fails: a model that is trained and measured is to have its report."""
    try:
        return examine()
    except Exception as error:
        first = str(error).partition("\n")[0]
        message = f"{name.replace('_', ' ')}: could not be examined ({type(error).__name__}: {first}); please report it"
        return Found({}, (Finding("unexamined", 0, message, ()),), (message,))


def _examination(name: str) -> Examination:
    return cast("Examination", importlib.import_module(f"tunesmith.evidence.{name}"))
