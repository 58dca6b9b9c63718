"""Where a recipe leaves its method open: what the number of rows settles, and the ladder for the others."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from tunesmith.catalog import build
from tunesmith.climbing import TOPIC, Climb, Decision, adopt
from tunesmith.data.passages import PART
from tunesmith.evaluation.wording import rows_of
from tunesmith.limits import Limits
from tunesmith.phases import CHOICE
from tunesmith.recipe import Derived, Recipe
from tunesmith.result import rows_to_measure
from tunesmith.selection.ladder import SMALL_ROWS, few
from tunesmith.training.events import Event, StepDone, Stopped
from tunesmith.training.ledger import Ledger, resume_command

if TYPE_CHECKING:
    from tunesmith.models.backbone import Backbone
    from tunesmith.preparing import Encoded, Prepared
    from tunesmith.spending import Spending


def by_size(recipe: Recipe, prepared: Prepared) -> Decision | None:
    """What is done with rows that are too few to choose by, maybe with another task; None where they are enough.

    A few texts to write hold many tokens to tell two trainings apart by: there the ladder is climbed as well.
    """
    task, rows, held = prepared.task, len(prepared.splits.train), len(prepared.splits.validation)
    plain = task.part_name() == "classification" and recipe.task == "auto" and prepared.columns.pair is None
    classes = len(prepared.labels.names) if plain else None
    said = rows_of(rows, "training row")
    if plain and few(rows, classes) and min(prepared.labels.counts) > 1:
        asked = {"task": build("tasks", "few_shot"), "method": build("methods", "full")}
        why = f"{said} of {classes} classes are few: learned by contrast (task few_shot), with none spared to choose by"
    elif held == 0 and not task.validates:
        asked = {"method": build("methods", "full")}
        why = f"task {task.part_name()} spares no rows to choose by, and is about the whole base"
    elif rows < SMALL_ROWS and prepared.columns.group == PART:
        asked = {"method": build("methods", "full")}
        why = f"{said} of running text: too few to choose by, so it is what is usual"
    elif rows < SMALL_ROWS and not (task.learns_tokens and held):
        asked = {"method": build("methods", "lora" if task.untrained or task.learns_tokens else "head")}
        why = f"{said}: too few to choose by, so little trains"
    elif held == 0:
        asked = {"method": build("methods", "full")}
        why = "no validation rows are held out to choose by, so it is what is usual"
    else:
        return None
    found = recipe.model_copy(update=asked)
    told = {"chosen": found.method_name, "why": why, "rungs": [], "failed": [], "passed": []}
    return Decision(found, None, (Derived("method", found.method_name, why),), told, {})


def climbed(
    recipe: Recipe,
    prepared: Prepared,
    encoded: Encoded,
    backbone: Backbone,
    ledger: Ledger,
    spending: Spending,
    stop: Callable[[], bool],
    explain: bool,
) -> Generator[Event, None, Decision | None]:
    """The ladder's decision, with the training that it chose made the run's own; None where it was asked to stop.

    Each event but steps is in the ledger before it is given: those of the chosen training follow in the end, as the run's.
    """
    limits = Limits(recipe.limits, spending, rows_to_measure(prepared), len(prepared.splits.validation))
    climb = Climb(recipe, prepared, encoded, backbone, ledger.folder, stop, limits.enough, limits.left, explain)
    events, last = spending.phases.through(CHOICE, climb.events()), 0
    while True:
        try:
            event = next(events)
        except StopIteration as end:
            decision: Decision | None = end.value
            break
        spending.meter.keep_up()
        if isinstance(event, StepDone):
            last = event.step
        else:
            ledger.append(spending.session())
            ledger.append(event)
        yield event
    if decision is None:
        stopped = Stopped(last, f"asked to stop, on the way to a method ({TOPIC})", resume_command(ledger.folder))
        ledger.append(stopped)
        yield stopped
        return None
    for event in adopt(decision, ledger.folder):
        ledger.append(event)
    return decision
