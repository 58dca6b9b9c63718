"""Precision, recall and F1, type by type of entities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.targets.tags import types_of
from tunesmith.evaluation.views.per_class import ratios, table_section
from tunesmith.tasks.base import Labels, Scores


def build(scores: Scores, labels: Labels) -> list[dict[str, Any]]:
    """`support` counts the true entities of a type, not rows."""
    totals = [scores.columns[name].sum(axis=0) for name in ("hits", "truth", "predicted")]
    return ratios(types_of(labels.names), *totals)


def show(found: Sequence[Mapping[str, Any]], rows: int) -> str:
    return table_section("Type", "entities", "Entity types", found, "#Entities")
