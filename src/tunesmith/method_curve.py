"""Would more training rows help this very method? It is trained on a quarter and on half of them, and measured as it is."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from tunesmith.evidence.base import CurvePoint
from tunesmith.inner import ALONE, SessionOf, finished_inside, measured, same_rows
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.training.events import Event, Note, Stopped

FOLDER = "curve"  # in the run's; each share has a folder in it
SHARES = {"quarter": 0.25, "half": 0.5}  # the larger one holds the smaller one's rows


def curve_wanted(recipe: Recipe) -> bool:
    return recipe.evaluation.curve == "method" and not recipe.evaluation.quick


def part_recipe(recipe: Recipe, share: float) -> Recipe:
    """The same run on a share of its training rows, without what is not its result."""
    return recipe.model_copy(
        update={
            "data": same_rows(recipe).model_copy(update={"share": recipe.data.share * share}),
            "retention": recipe.retention.model_copy(update={"measure": False}),
            "evaluation": recipe.evaluation.model_copy(update=ALONE),
        }
    )


def method_points(
    session_of: SessionOf, recipe: Recipe, run: Path
) -> Generator[Event, None, list[CurvePoint] | Stopped]:
    """Runs of their own in `run`/curve, and what they measured on the same test rows.

    One that was stopped is gone on with, and a finished one is read. Those up to one that came to nothing, which is warned
    of; the Stopped of an inner run where it was asked to stop.
    """
    found: list[CurvePoint] = []
    for name, share in SHARES.items():
        folder, words = run / FOLDER / name, f"on a {name} of the rows"
        yield Note("curve", (f"training {words} in {folder}, to learn whether more would help",))
        ended = yield from finished_inside(session_of, part_recipe(recipe, share), folder, "curve", words)
        if isinstance(ended, Stopped):
            return ended
        if not ended:
            return found  # a further one would be too few for a law
        splits = Run(folder).report["data"]["splits"]
        rows = next(item["rows"] for item in splits if item["name"] == "train")
        found.append(CurvePoint(rows, measured(folder)[1]))
    return found
