"""What did pretraining bring? The same architecture trained from random weights, as one more rival."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from tunesmith.assembly import method_of
from tunesmith.catalog import build
from tunesmith.evaluation.baselines.base import Baseline
from tunesmith.evaluation.verdict import PHRASES, SCRATCH
from tunesmith.inner import ALONE, SessionOf, finished_inside, measured, same_rows
from tunesmith.recipe import Recipe, RetentionSpec
from tunesmith.runs import Run
from tunesmith.training.events import Event, Note, Stopped

FOLDER = "scratch"  # in the run's


def scratch_recipe(recipe: Recipe) -> Recipe:
    """The same rows and base with method scratch, at that method's own rates and epochs."""
    own: dict[str, object] = {"rate": "auto", "head_rate": "auto", "epochs": "auto", "redraw": 0, "soup": None}
    if recipe.training.optimizer == "sgd":
        own["optimizer"] = "adamw"  # for which that method's rates are
    return recipe.model_copy(
        update={
            "method": build("methods", "scratch"),
            "data": same_rows(recipe),
            "training": recipe.training.model_copy(update=own),
            "retention": RetentionSpec(measure=False),
            "evaluation": recipe.evaluation.model_copy(update=ALONE),
        }
    )


def scratch_baseline(
    session_of: SessionOf, recipe: Recipe, run: Path
) -> Generator[Event, None, Baseline | Stopped | None]:
    """A run of its own in `run`/scratch, and what it measured on the same test rows.

    One that was stopped is gone on with, and a finished one is read. None where it came to nothing, which is warned of; the
    Stopped of the inner run where it was asked to stop.
    """
    folder, asked = run / FOLDER, scratch_recipe(recipe)
    said = f"training the same architecture from random weights in {folder}, to compare with"
    yield Note("scratch", (f"{said}: {method_of(asked).epochs} epochs at most",))
    ended = yield from finished_inside(session_of, asked, folder, "scratch", "from random weights")
    if isinstance(ended, Stopped):
        return ended
    if not ended:
        return None
    took = Run(folder).report["cost"]["seconds"]  # over all of its sessions
    return Baseline(SCRATCH, PHRASES[SCRATCH], measured(folder)[1], took)
