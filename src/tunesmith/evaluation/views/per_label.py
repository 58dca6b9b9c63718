"""Precision, recall, F1 and threshold, label by label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.evaluation.views.per_class import ratios, table_section, with_training_rows
from tunesmith.tasks.base import Labels, Scores


def build(scores: Scores, labels: Labels) -> list[dict[str, Any]]:
    truth, predicted = scores.columns["truth"], scores.columns["predicted"]
    lines = ratios(labels.names, (truth & predicted).sum(axis=0), truth.sum(axis=0), predicted.sum(axis=0))
    lines = [line | {"threshold": edge} for line, edge in zip(lines, labels.thresholds, strict=True)]
    return with_training_rows(lines, labels)


def show(found: Sequence[Mapping[str, Any]], rows: int) -> str:
    return table_section("Label", "labels", "Label by label", found)
