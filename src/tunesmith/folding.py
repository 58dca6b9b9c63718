"""Every row tested once: the same recipe trained on the other folds of the rows, each measured on its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith.evaluation.kept_scores import RIVALS
from tunesmith.inner import ALONE, SessionOf, finished_inside, measured, same_rows
from tunesmith.recipe import Recipe
from tunesmith.runs import Run
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Event, Note, Stopped, Warned

FOLDER = "folds"  # in the run's


@dataclass(frozen=True)
class Fold:
    """What the model of another fold, and its rivals, measured on that fold's rows."""

    number: int  # from 1
    scores: Scores
    rivals: Mapping[str, Scores]  # by name


def fold_recipe(recipe: Recipe, fold: int) -> Recipe:
    """The same with another fold as the test, and nothing measured but its rows, for the model and its rivals."""
    return recipe.model_copy(
        update={
            "data": same_rows(recipe, fold),
            "retention": recipe.retention.model_copy(update={"measure": False}),
            "evaluation": recipe.evaluation.model_copy(update={**ALONE, "baselines": recipe.evaluation.baselines}),
        }
    )


def other_folds(
    session_of: SessionOf, recipe: Recipe, labels: tuple[str, ...], run: Path
) -> Generator[Event, None, list[Fold] | Stopped]:
    """Runs of their own in `run`/folds, one for each fold but the run's own.

    Those that were stopped are gone on with, and finished ones are read. The Stopped of an inner run where it was asked to
    stop. One that came to nothing, or that learned other `labels`, is left out, and warned of.
    """
    folds, found = 1 if recipe.data.folds is None else recipe.data.folds, list[Fold]()
    for fold in range(folds):
        if fold == recipe.data.own_fold:
            continue
        folder, words = run / FOLDER / f"{fold + 1}", f"fold {fold + 1} of {folds}"
        yield Note("folds", (f"training without {words} in {folder}, to measure on its rows",))
        ended = yield from finished_inside(session_of, fold_recipe(recipe, fold), folder, "folds", words)
        if isinstance(ended, Stopped):
            return ended
        if not ended:
            continue
        card, scores = measured(folder)
        if card.labels.names != labels:
            yield Warned(f"{words}: its training rows have other labels, so it is not counted with the others")
            continue
        names = [item["name"] for item in Run(folder).report["baselines"]]
        read = {name: measured(folder, RIVALS / f"{name}.safetensors")[1] for name in names}
        found.append(Fold(fold + 1, scores, read))
    return found
