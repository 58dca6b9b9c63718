"""A run in small, in a process of its own: a few real steps with all that comes before and after them, for `plan`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import TrainingError, TunesmithError
from tunesmith.phases import Time
from tunesmith.selection.estimate import Rehearsed

if TYPE_CHECKING:
    from tunesmith.data.table import Table
    from tunesmith.recipe import Recipe

FIRST, AGAIN, MORE, FOUND = "first", "again", "more", "found.json"  # in the folder of a rehearsal
RECIPE, ROWS, RUN = "recipe.yaml", "rows.parquet", "run"  # of each of its runs
A_CLASS = 3  # rows of each, on the mean, at the least: a column of fewer looks like text


def sample_of(lengths: Sequence[int], strata: Sequence[Any], batch: int, batches: int, seed: int) -> list[int]:
    """Rows for a run in small, ascending: the longest batch, one row of every class, and others at random.

    So its memory has the peak of the whole run, and its labels are all of them.
    """
    count = min(len(lengths), max(batch * batches, A_CLASS * len(set(strata))))
    ranked = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    chosen = dict.fromkeys(ranked[:batch])
    chosen |= dict.fromkeys({stratum: row for row, stratum in reversed(list(enumerate(strata)))}.values())
    others = [row for row in range(len(lengths)) if row not in chosen]
    random.Random(seed).shuffle(others)
    return sorted([*chosen, *others[: max(0, count - len(chosen))]])


@dataclass(frozen=True)
class Rehearsal:
    """What three runs took, one after another in one other process, whose memory is its own.

    The first has all that is done but once, imports and first calls among it; between the others there are more rows.
    """

    first: Rehearsed  # on few rows
    again: Rehearsed  # on the same
    more: Rehearsed  # on more


def rehearse(recipe: Recipe, few: Table, more: Table, folder: Path) -> Rehearsal:
    """Does the runs by another process in `folder`. Both tables have a column that names the split of each row.

    What the base knows of general text is measured in the first alone. Raises TrainingError, with the problems as a run names
    them, where they came to nothing.
    """
    from tunesmith.data.table import write_exact

    unread = recipe.model_copy(update={"retention": recipe.retention.model_copy(update={"measure": False})})
    for name, rows, asked in ((FIRST, few, recipe), (AGAIN, few, unread), (MORE, more, unread)):
        (folder / name).mkdir(parents=True)
        write_exact(rows, folder / name / ROWS)
        data = asked.data.model_copy(update={"path": str(folder / name / ROWS)})
        written = asked.model_copy(update={"data": data}).to_yaml()
        (folder / name / RECIPE).write_text(written, encoding="utf-8")
    code = "import sys; from tunesmith.rehearsing import main; main(sys.argv[1])"
    ended = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    try:
        found = json.loads((folder / FOUND).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TrainingError(*_silent_end(ended)) from None
    if "problems" in found:
        raise TrainingError(*(line.replace(f"{folder}{os.sep}", "") for line in found["problems"]))
    return Rehearsal(*(_as_told(found[name]) for name in (FIRST, AGAIN, MORE)))


def _as_told(found: dict[str, Any]) -> Rehearsed:
    phases = {name: Time(*taken) for name, taken in found.pop("phases").items()}
    steps = [(tokens, Time(seconds, cpu)) for tokens, seconds, cpu in found.pop("steps")]
    return Rehearsed(phases, steps, **found)


def _silent_end(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Why a process left nothing: the system ends one that takes more memory than there is without a word."""
    if ended.returncode < 0:
        return [f"the system ended it (signal {-ended.returncode}), as it does where memory runs out"]
    lines = ended.stderr.strip().splitlines()
    return [lines[-1] if lines else f"it ended with code {ended.returncode} and without a word"]


def main(folder: str) -> None:
    """Does the runs of the recipes in `folder`, and writes what they took, or the problems, beside them."""
    from tunesmith.files import write_whole

    write_whole(Path(folder) / FOUND, json.dumps(_done(Path(folder))))


def _done(folder: Path) -> dict[str, Any]:
    from tunesmith.memory import importing, resident_memory

    with importing():  # the rest is left to the first run, whose time it is
        import torch  # noqa: F401
    libraries = resident_memory() / 1e6  # not the peak: what importing held for a moment is there for the run
    try:
        return {name: {**_run(folder / name), "libraries_mb": libraries} for name in (FIRST, AGAIN, MORE)}
    except TunesmithError as error:
        return {"problems": list(error.problems)}


def _run(folder: Path) -> dict[str, Any]:
    from tunesmith.memory import free_gpu_memory
    from tunesmith.pipeline import start
    from tunesmith.recipe import Recipe, read_recipe_file
    from tunesmith.runs import Run
    from tunesmith.training.events import StepDone

    session = start(Recipe.parse(read_recipe_file(folder / RECIPE)), folder / RUN)
    steps = [(event.tokens, event.seconds, event.cpu) for event in session.events() if isinstance(event, StepDone)]
    run = Run(folder / RUN)
    cost = run.report["cost"]
    resolved = read_recipe_file(run.path / "resolved.yaml")["recipe"]
    return {
        "phases": {phase["name"]: (phase["seconds"], phase["cpu_seconds"]) for phase in cost["phases"]},
        "steps": steps,
        "peak_mb": cost["peak_memory_mb"],
        "peak_gpu_mb": cost["peak_gpu_memory_mb"],
        "free_gpu_mb": None if cost["peak_gpu_memory_mb"] is None else free_gpu_memory() / 1e6,
        "trainable": cost["trainable"],
        "total": cost["total"],
        "precision": resolved["training"]["precision"],
    }
