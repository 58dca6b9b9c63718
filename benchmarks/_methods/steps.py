"""The three steps of a run of methods.py, each in a process of its own: rows to files, training, what it gave."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from _processes import SCORED
from _quality.data import Record, Rows, cut
from _quality.steps import DATA, ROWS, base_of

from .choice import CHOOSING, CHOSEN_ON, MANY, Part, chance
from .reports import kept_of, rate_of, stored_mb, validated
from .ways import measure, way

HELD_OUT, MOST_HELD_OUT = 0.1, 500  # of the training rows of a set without validation rows
REFUSED = "refused.json"  # what Tunesmith said in place of training


def step(name: str, folder: Path, part: Part, rate: float | None, rows: int, shared: Path) -> None:
    """Does one of `_processes.STEPS` in `folder`, which holds what the steps before it made."""
    if name == "prepare":
        prepare(folder, part, rows, shared)
    elif name == "run":
        run(folder, part, rate, shared)
    else:
        score(folder, part)


def prepare(folder: Path, part: Part, rows: int, shared: Path) -> None:
    """Writes the rows as files: those that are trained on in the end, or what a rate is chosen by."""
    job = measure(part.job).job
    found = job.rows(shared / "data", part.seed)
    found = cut(found, rows) if rows else found
    found = with_validation(found, part.seed)
    most = measure(part.job).most
    found = to_choose_by(found, most) if part.what == CHOOSING else at_most(found, most, part.seed)
    found.save(folder / ROWS)
    (folder / DATA).mkdir()
    job.write(found, folder / DATA)


def with_validation(rows: Rows, seed: int) -> Rows:
    """The same with validation rows, drawn by seed and class by class from the training rows where there are none."""
    if rows.validation:
        return rows
    draw = random.Random(seed)
    held = drawn(rows.train, min(MOST_HELD_OUT, round(HELD_OUT * len(rows.train))), draw)
    sides = [[row for place, row in enumerate(rows.train) if (place in held) is side] for side in (False, True)]
    return Rows(sides[0], sides[1], rows.test)


def drawn(records: Sequence[Record], count: int, draw: random.Random) -> set[int]:
    """So many places, as many of each class as of the others, one more or less, where rows have one."""
    by_label: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        by_label.setdefault(record.get("label", ""), []).append(place)
    turns = [draw.sample(places, len(places)) for _, places in sorted(by_label.items())]
    draw.shuffle(turns)
    levels = range(max(map(len, turns), default=0))
    return set([turn[level] for level in levels for turn in turns if level < len(turn)][:count])


def to_choose_by(rows: Rows, most: int = 0) -> Rows:
    """Without test rows, and of many training rows some, drawn by seed 0; at most `most`, where that is not 0."""
    some = at_most(rows, most, 0)
    return replace(at_most(some, CHOSEN_ON, 0) if len(some.train) > MANY else some, test=[])


def at_most(rows: Rows, count: int, seed: int) -> Rows:
    """With so many training rows, drawn by seed and left in their order; all of them where they are fewer, or for 0."""
    train = rows.train
    if not 0 < count < len(train):
        return rows
    kept = set(random.Random(seed).sample(range(len(train)), count))
    return replace(rows, train=[row for place, row in enumerate(train) if place in kept])


def run(folder: Path, part: Part, rate: float | None, shared: Path) -> None:
    """What is measured: `rate` None for the method's own."""
    from _quality.ours import finetuned

    from tunesmith.errors import ModelError, RecipeError, TrainingError

    asked = way(part.way)
    choosing = part.what == CHOOSING
    settings: dict[str, Any] = {"evaluation.baselines": False, "retention.measure": not choosing}
    if choosing:
        settings["data.test"] = 0.0
    if rate is not None:
        settings[asked.rate] = rate
    options = {"method": asked.asked(), "task": measure(part.job).task, "settings": settings}
    try:
        finetuned(folder, str(base_of(measure(part.job).job, shared)), part.seed, options)
    except (ModelError, RecipeError) as error:
        refuse(folder, {"unfit": str(error)})
    except TrainingError as error:  # such as numbers that are no longer finite: of this rate, not of the method
        refuse(folder, {"failed": str(error)})


def refuse(folder: Path, said: Mapping[str, str]) -> None:
    (folder / REFUSED).write_text(json.dumps(said), encoding="utf-8")


def score(folder: Path, part: Part) -> None:
    """Raises ValueError where rows of the test split are missing."""
    if (folder / REFUSED).exists():
        found = json.loads((folder / REFUSED).read_text(encoding="utf-8"))
        found |= {"rate": rate_of(folder / "run", way(part.way).rate)} if "failed" in found else {}
    else:
        rows = Rows.load(folder / ROWS)
        found = {**validated(folder / "run", way(part.way).rate), "stored_mb": stored_mb(folder / "run")}
        if part.what == CHOOSING:
            found |= {"chance": chance(measure(part.job).job.kind, rows.validation), "train_rows": len(rows.train)}
        else:
            found |= tested(folder, rows)
    (folder / SCORED).write_text(json.dumps(found), encoding="utf-8")


def tested(folder: Path, rows: Rows) -> dict[str, Any]:
    from _quality.ours import told

    found = told(folder, "", 0, {})
    if found["rows_tested"] != len(rows.test):
        raise ValueError(f"{found['rows_tested']} rows were measured, and the test split has {len(rows.test)}")
    kept = {name: found[name] for name in ("metrics", "rows", "trainable", "notes")}
    return kept | {"kept": kept_of(found["notes"])}
