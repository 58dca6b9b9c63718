"""Would more training rows help this very method? It is trained on a quarter and on half of them, and measured as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import TunesmithError
from tunesmith.evidence.base import CurvePoint
from tunesmith.preparing import Prepared
from tunesmith.recipe import Recipe
from tunesmith.training.events import Evaluated, Event, Note, Stopped, Warned

if TYPE_CHECKING:
    from tunesmith.pipeline import Session

FOLDER = "curve"  # in the run's; each share has a folder in it
SHARES = {"quarter": 0.25, "half": 0.5}  # the larger one holds the smaller one's rows


def curve_wanted(recipe: Recipe) -> bool:
    return recipe.evaluation.curve == "method" and not recipe.evaluation.quick


def part_recipe(recipe: Recipe, share: float) -> Recipe:
    """The same run on a share of its training rows, without what is not its result."""
    return recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"share": recipe.data.share * share}),
            "retention": recipe.retention.model_copy(update={"measure": False}),
            "evaluation": recipe.evaluation.model_copy(
                update={"baselines": False, "scratch": False, "curve": "probe", "quick": True}
            ),
        }
    )


def method_points(
    session_of: Callable[[Recipe, Path], Session], recipe: Recipe, prepared: Prepared, run: Path
) -> Generator[Event, None, list[CurvePoint] | Stopped]:
    """Runs of their own in `run`/curve, and what their models say of the test rows.

    One that was stopped is gone on with, and a finished one is read. Without those that came to nothing, which is warned
    of; the Stopped of an inner run where it was asked to stop.
    """
    from tunesmith.predictor import load

    found: list[CurvePoint] = []
    texts, truth = prepared.texts("test"), prepared.truth("test")
    for name, share in SHARES.items():
        folder = run / FOLDER / name
        session = session_of(part_recipe(recipe, share), folder)
        yield Note("curve", (f"training on a {name} of the rows in {folder}, to learn whether more would help",))
        try:
            for event in session.events() if not session.finished else ():
                if isinstance(event, Evaluated):
                    value = f"validation {event.metric} {event.value:.4f}"
                    yield Note("curve", (f"on a {name} of the rows, step {event.step:,} of {event.steps:,}: {value}",))
                if isinstance(event, Warned):
                    yield Warned(f"on a {name} of the rows: {event.message}")
                if isinstance(event, Stopped):
                    return event
        except TunesmithError as error:  # what was trained and delivered is to have its report all the same
            yield Warned(f"no learning curve of the method: {'; '.join(error.problems)}")
            return []
        model = load(folder / "model", recipe.training.device)
        said = model.judged(texts, truth, answers=True)
        splits = json.loads((folder / "report.json").read_text(encoding="utf-8"))["data"]["splits"]
        rows = next(item["rows"] for item in splits if item["name"] == "train")
        found.append(CurvePoint(rows, model.card.task.score(said, truth, model.card.labels)))
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return found
