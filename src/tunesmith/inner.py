"""A run inside a run's folder: begun, gone on with, stopped and resumed with it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import TunesmithError
from tunesmith.evaluation.kept_scores import SCORES, read_scores
from tunesmith.predictor import CARD, DELETED, Card
from tunesmith.recipe import DataSpec, Recipe
from tunesmith.tasks.base import Scores
from tunesmith.training.events import Evaluated, Event, Note, Stopped, Warned

if TYPE_CHECKING:
    from tunesmith.pipeline import Session

# Of an inner run's evaluation.
ALONE = {"baselines": False, "scratch": False, "curve": "probe", "seeds": 1, "quick": True, "precision": None}
SessionOf = Callable[[Recipe, Path], "Session"]


def same_rows(recipe: Recipe, fold: int | None = None) -> DataSpec:
    """Where the rows of a run inside `recipe`'s are from: the same fold, where there are folds, or the one that is named.

    Without what such a run has no use for, which the run around it has been told of where it has none either.
    """
    if recipe.data.folds is None:
        return recipe.data.model_copy(update={"slices": None})
    of = {"fold": recipe.data.own_fold if fold is None else fold, "test": DataSpec.model_fields["test"].default}
    return recipe.data.model_copy(update={"slices": None, **of})


def finished_inside(
    session_of: SessionOf, recipe: Recipe, folder: Path, topic: str, words: str
) -> Generator[Event, None, bool | Stopped]:
    """Does the run in `folder` to its end, told under `topic` with `words` before each line; its weights are let go.

    One that was stopped is gone on with, and a finished one is left as it is. False where it came to nothing, which is
    warned of (and keeps all that it wrote); the inner run's own Stopped where it was asked to stop.
    """
    session = session_of(recipe, folder)
    try:
        for event in session.events() if not session.finished else ():
            if isinstance(event, Evaluated):
                value = f"validation {event.metric} {event.value:.4f}"
                yield Note(topic, (f"{words}, step {event.step:,} of {event.steps:,}: {value}",))
            if isinstance(event, Warned):
                yield Warned(f"{words}: {event.message}")
            if isinstance(event, Stopped):
                return event
    except TunesmithError as error:  # what was trained and delivered is to have its report all the same
        yield Warned(f"{words}: came to nothing: {'; '.join(error.problems)}")
        return False
    except Exception as error:  # a bug of the inner run's is not to cost the outer one its report either
        yield Warned(f"{words}: came to nothing ({type(error).__name__}: {error}); please report it")
        return False
    let_go(folder)
    return True


def let_go(folder: Path) -> None:
    """Deletes what takes the room of a finished inner run: checkpoints and weights; what it measured and said is kept.

    Nothing of the run around it reads them, also when that is resumed. Killed on the way it is done again then.
    """
    model = folder / "model"
    if model.is_dir():
        said = (
            "The weights of this model were deleted when it had been measured: it was trained to tell the worth of the run "
            f"around it.\nTo have it: tunesmith train --recipe {folder / 'recipe.yaml'} --out NEW_FOLDER\n"
        )
        (model / DELETED).write_text(said, encoding="utf-8")
    for gone in (folder / "checkpoints", folder / "adapter"):
        shutil.rmtree(gone, ignore_errors=True)
    for path in sorted(model.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir():
            path.rmdir()
        elif path.name not in (CARD, DELETED):
            path.unlink()


def measured(folder: Path, path: Path = SCORES) -> tuple[Card, Scores]:
    """What a finished inner run measured of its test rows, in their order, and what its model's outputs mean.

    path: in the run's folder, of the scores of a rival in the model's place.
    """
    card = Card.read(folder / "model")
    return card, read_scores(folder / path, lambda columns: card.task.functions(columns, card.labels))
