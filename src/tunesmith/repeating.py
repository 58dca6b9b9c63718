"""How much does the seed matter? The same recipe and split, trained again from other seeds."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.inner import ALONE, SessionOf, finished_inside, same_rows
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.splitting import split_seed
from tunesmith.training.events import Event, Note, Stopped

FOLDER = "seeds"  # in the run's


@dataclass(frozen=True)
class Repeat:
    """What a run from another seed measured on the same test rows."""

    seed: int
    metrics: Mapping[str, float | None]  # None where one says nothing of the rows


def repeat_recipe(recipe: Recipe, seed: int) -> Recipe:
    """The same rows on the same sides, another seed for all else, and nothing measured but the test rows."""
    return recipe.model_copy(
        update={
            "seed": seed,
            "data": same_rows(recipe).model_copy(update={"seed": split_seed(recipe)}),
            "retention": recipe.retention.model_copy(update={"measure": False}),
            "evaluation": recipe.evaluation.model_copy(update=ALONE),
        }
    )


def repeats(session_of: SessionOf, recipe: Recipe, run: Path) -> Generator[Event, None, list[Repeat] | Stopped]:
    """Runs of their own in `run`/seeds, one for each further seed; the first seed is the run itself.

    Those that were stopped are gone on with, and finished ones are read. The Stopped of an inner run where it was asked to
    stop. One that came to nothing is left out, and warned of.
    """
    found = []
    for seed in range(recipe.seed + 1, recipe.seed + recipe.evaluation.seeds):
        folder, words = run / FOLDER / f"{seed}", f"seed {seed}"
        yield Note("seeds", (f"training again from {words} in {folder}, on the same split",))
        ended = yield from finished_inside(session_of, repeat_recipe(recipe, seed), folder, "seeds", words)
        if isinstance(ended, Stopped):
            return ended
        if ended:
            metrics = Run(folder).metrics
            found.append(Repeat(seed, {name: item["value"] for name, item in metrics.items()}))
    return found
