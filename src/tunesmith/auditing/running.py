"""The audit within a run: before it trains, on what is there by then, and what copies of training rows did to its score."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tunesmith.auditing.base import Material
from tunesmith.auditing.examinations import audit
from tunesmith.auditing.leak import leak_effect, leak_finding
from tunesmith.auditing.near_duplicates import MOST_ROWS as MOST_ROWS_COMPARED
from tunesmith.auditing.near_duplicates import near_in_train
from tunesmith.data.findings import Finding
from tunesmith.data.stored import measures
from tunesmith.preparing import SPLITS, Encoded, Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.events import Event, Note

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.assembly import Built
    from tunesmith.evaluation.baselines.base import Baseline
    from tunesmith.evidence.base import Frozen
    from tunesmith.models.backbone import Backbone
    from tunesmith.tasks.base import Scores

MOST_ROWS = (
    20_000  # whose labels are examined within a run: 10,000 take 7 to 9 CPU seconds (docs/log.md, "Label errors")
)
LACKING = "there are no features of the untouched base for each row; tunesmith audit --model makes them"
SAME = 1e-9


def audited(recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone, built: Built) -> Iterator[Event]:
    """Keeps in `built` what is found and what was not looked at, and tells it; a quick report looks at nothing."""
    if recipe.evaluation.quick:
        built.unexamined = ("nothing was examined, as evaluation.quick asks; tunesmith audit does",)
        return
    features = None if built.frozen is None else _features(prepared, built.frozen)
    why = (
        f"more than {MOST_ROWS:,} rows would take long; tunesmith audit --model looks at all"
        if _many(prepared)
        else LACKING
    )
    parts = audit(prepared, encoded, backbone.processor, features, recipe.seed, why)
    built.audit = [finding for part in parts for finding in part.findings]
    left = [f"{part.name.replace('_', ' ')} ({part.said})" for part in parts if part.applies and not part.done]
    built.unexamined = (f"not examined: {'; '.join(left)}",) if left else ()
    lines = [f"{item.message}{f'; {item.advice}' if item.advice else ''}" for item in built.audit]
    yield Note(
        "audit",
        (*(lines or ["nothing more to report" if prepared.findings else "nothing to report"]), *built.unexamined),
    )


def leaked(recipe: Recipe, prepared: Prepared, scores: Scores, rivals: Sequence[Baseline]) -> list[Finding]:
    """What test rows with nearly the same text in train add to the score; none where that is not material.

    With what each rival's score is without these rows: one that copies gains more by them than one that learns.
    """
    hits = scores.each.get(scores.primary)
    if recipe.evaluation.quick or hits is None or prepared.task.reads_pictures:
        return []
    # Only of a metric that is the mean of what it says of each row, more being better.
    if scores.primary in scores.lower or abs(float(hits.mean()) - scores.value()) > SAME:
        return []
    if len(prepared.table("train")) + len(hits) > MOST_ROWS_COMPARED:
        return []
    near, crowded = near_in_train(Material.of(prepared), "test")
    places = [prepared.splits.test.place(row) for row, alike in enumerate(near) if alike]
    far = [not alike for alike in near]
    without = {
        item.what: float(item.scores.each[scores.primary][far].mean())
        for item in rivals
        if any(far) and scores.primary in item.scores.each
    }
    found = leak_finding(leak_effect(hits.tolist(), near, recipe.seed), scores.primary, places, crowded, without)
    return [] if found is None else [found]


def _features(prepared: Prepared, frozen: Frozen) -> dict[str, np.ndarray] | None:
    """Of every row of every table, in order; None where a split has none, or other units than rows, or they are too many."""
    import numpy as np

    if _many(prepared):
        return None
    tables = {split: len(prepared.table(split)) for split in SPLITS if len(prepared.table(split))}
    whole = all(
        frozen.by_row(split) and np.array_equal(measures(frozen.examples[split]).sources, np.arange(rows))
        for split, rows in tables.items()
    )
    return {split: frozen.features[split].numpy() for split in tables} if whole else None


def _many(prepared: Prepared) -> bool:
    return sum(len(prepared.table(split)) for split in SPLITS) > MOST_ROWS
