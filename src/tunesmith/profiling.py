"""What each lever of speed brought: some steps of a run as it was, and as many with one lever let go."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.assembly import build, keep_frozen, make_run
from tunesmith.data.order import LengthOrder
from tunesmith.data.token_order import TokenOrder
from tunesmith.errors import TunesmithError
from tunesmith.evaluation.terminal import aligned
from tunesmith.phases import Time, now, summed
from tunesmith.recipe import Recipe
from tunesmith.training.events import Note, StepDone
from tunesmith.training.loop import Run, train
from tunesmith.training.trunk import Live

if TYPE_CHECKING:
    from tunesmith.assembly import Built
    from tunesmith.models.backbone import Backbone
    from tunesmith.preparing import Encoded, Prepared

STEPS, WARM = 12, 2  # timed, and before them
HEADINGS: tuple[str, ...] = ("setting", "here", "CPU s of training", "else", "CPU s then", "gain", "by the clock")


def profiled(
    recipe: Recipe, prepared: Prepared, encoded: Encoded, load: Callable[[], Backbone], built: Built, run: Run
) -> Iterator[Note]:
    """One note: a line a lever that this run has, with what training would take without it.

    `load` reads the base anew. The run itself is over, and nothing of it changes.
    """
    levers, refused = levers_of(built, run), refused_levers(built)
    if run.steps == 0 or not (levers or refused):
        return
    if not levers:
        yield Note("profile", refused)
        return
    as_it_was = settled(recipe, built, run)

    def measured(key: str | None, value: str | int) -> Time | str:
        other = {} if key is None else {key: value}
        try:
            return pace(with_training(as_it_was, other), prepared, encoded, load())
        except TunesmithError as error:
            return error.problems[0]

    first = measured(None, "")
    found = {key: measured(key, other) for key, (_, other) in levers.items()}
    last = measured(None, "")
    if isinstance(first, str) or isinstance(last, str):
        yield Note("profile", (f"could not be measured: {first if isinstance(first, str) else last}", *refused))
        return
    here = first.plus(last).times(0.5)
    rows, lines = [HEADINGS], list[str]()
    for key, (value, other) in levers.items():
        then = found[key]
        if isinstance(then, str):
            lines.append(f"training.{key} = {other} could not be measured: {then}")
            continue
        clock, gain = (f"{there / own:.2f}x" for there, own in zip(then, here, strict=True))
        spent = (f"{time.cpu_seconds:.1f}" for time in (here, then))
        rows.append((f"training.{key}", str(value), next(spent), str(other), next(spent), gain, clock))
    said = f"reckoned from {STEPS} steps each, with what frozen blocks give; one setting changed at a time"
    yield Note("profile", (*aligned(rows), said, *lines, *refused), tuple(rows))


def levers_of(built: Built, run: Run) -> dict[str, tuple[str | int, str | int]]:
    """Keys of `training` that made this run faster: what they are, and what they would be without."""
    asked = run.training
    found: dict[str, tuple[str | int, str | int]] = {}
    if asked.precision == "bfloat16" and not built.plan.single:
        found["precision"] = ("bfloat16", "float32")
    order = run.source.order
    if isinstance(order, LengthOrder | TokenOrder) and order.similar and len(set(order.lengths)) > 1:
        found["batches"] = ("similar", "random")
    if built.kept_rows:
        found["embedding_rows"] = ("used", "all")
    if not isinstance(run.trunk, Live):
        found["cache"] = (type(run.trunk).__name__, "off")
    if asked.compile is True:
        found["compile"] = (True, False)
    if asked.flash_packed is True:
        found["flash_packed"] = (True, False)
    if isinstance(asked.threads, int) and asked.threads > 1 and built.runtime.device == "cpu":
        found["threads"] = (asked.threads, 1)
    return found


def refused_levers(built: Built) -> tuple[str, ...]:
    """A line for each lever that was tried and not taken, with the reason."""
    keys = ("training.compile", "training.flash_packed")
    return tuple(
        f"{item.key} = {item.value}: {item.why}" for item in built.derived if item.key in keys and not item.value
    )


def settled(recipe: Recipe, built: Built, run: Run) -> Recipe:
    """The recipe with every derived value of its training, and without what is only measured beside.

    Nothing is taken from the disk, where what one setting needs might lie and what another one needs might not.
    """
    cache = "off" if recipe.training.cache == "off" else "memory"
    # The kernel is for bfloat16: asked for, it would refuse to be measured in float32.
    packed = "auto" if run.training.flash_packed is True else False
    training = run.training.model_copy(
        update={"micro_batch": run.source.micro_batch, "cache": cache, "flash_packed": packed}
    )
    retention = recipe.retention.model_copy(update={"measure": False})
    return recipe.model_copy(update={"method": built.method, "training": training, "retention": retention})


def with_training(recipe: Recipe, other: dict[str, str | int]) -> Recipe:
    return recipe.model_copy(update={"training": recipe.training.model_copy(update=other)})


def pace(recipe: Recipe, prepared: Prepared, encoded: Encoded, backbone: Backbone) -> Time:
    """What filling what is kept and all steps would take: some are done, and count by their padded tokens."""
    built = build(recipe, prepared, encoded, backbone, {})
    begun = now()
    trunk = keep_frozen(recipe, prepared, encoded, backbone, built, {})
    filled = now()
    with tempfile.TemporaryDirectory() as name:
        run = make_run(recipe, prepared, encoded, backbone, built, trunk, Path(name), lambda: False, {})
        run.evaluate = None
        done = list(_some(run))
    spent = done[WARM:] or done
    padded = [padded_tokens(run, event.step - 1) for event in spent]
    epoch = statistics.mean(padded_tokens(run, step) for step in range(run.source.order.first(1)))
    steps = run.steps * epoch / sum(padded)
    stepping = summed(Time(event.seconds, event.cpu) for event in spent)
    return Time(filled.seconds - begun.seconds, filled.cpu_seconds - begun.cpu_seconds).plus(stepping.times(steps))


def _some(run: Run) -> Iterator[StepDone]:
    for event in train(run):
        if isinstance(event, StepDone):
            yield event
            if event.step == WARM + STEPS:
                return


def padded_tokens(run: Run, step: int) -> int:
    """Tokens of an optimizer step with its filler."""
    order = run.source.order
    rows = order.batch(step)
    return len(rows) * max(order.lengths[row] for row in rows)
