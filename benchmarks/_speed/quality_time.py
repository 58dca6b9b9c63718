"""From a cold start to a share of right test labels, everything included: imports, reading, training, prediction."""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _contenders import BATCH_SIZE

from tunesmith.models.resolve import resolve, weights_folder

from .cold import ready
from .rows import training_rows, write_rows
from .startup import NO_PROOF
from .turns import Plain, Turn, one_round
from .works import DEFAULTS, FURTHER, OURS, TUNED, Work

WANTED = 0.925
# What somebody sets who wants the model alone; validation rows stay, by which the state to keep is chosen.
SETTINGS = NO_PROOF
EPOCHS = 10  # of the Trainer, whose tuned form had reached 0.913 after 5
RATE, TUNED_RATE = 5e-5, 1e-4  # the Trainer's default, and that at which those 0.913 were reached
TRAINER = {"batch_size": BATCH_SIZE, "wanted": WANTED}
ENCODERS = {
    "vectors + logistic regression, defaults": "1",
    "vectors + logistic regression, C of 3 by folds": "1,10,100",
}
TRIAL_BOUND, TRIAL_ROWS = 20.0, 800  # rows enough for folds


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": ..., "measured": records with `accuracy`, "missing": ...}; one round, and another one where more are asked."""
    installed = find_spec("sentence_transformers") is not None
    bound = 0.0 if asked.long else min(asked.bound, TRIAL_BOUND) if asked.trial else asked.bound
    with tempfile.TemporaryDirectory() as folder:
        train, test = Path(folder) / "train.csv", Path(folder) / "test.csv"
        write_rows(training_rows(asked.data, TRIAL_ROWS if asked.trial else 0), train)
        truth = written_test(asked.data / "test.csv", test)
        turns = contenders(asked, train, test, truth, bound, installed)
        print(f"{work.name}: to {WANTED:.1%} of {len(truth):,} test rows", flush=True)
        rounds = asked.rounds if asked.long else 1
        measured = [record for number in range(1, rounds + 1) for record in one_round(work.name, turns, number)]
    missing = {} if installed else {name: ["sentence_transformers"] for name in ENCODERS}
    job = {"wanted": WANTED, "test_rows": len(truth), "settings": SETTINGS, "trainer_epochs": EPOCHS, "bound": bound}
    return {"job": job, "measured": measured, "missing": missing}


def contenders(
    asked: argparse.Namespace, train: Path, test: Path, truth: Sequence[str], bound: float, installed: bool
) -> list[Turn]:
    base, tables = str(weights_folder(resolve(asked.model).folder)), [str(train), str(test)]

    def turn(name: str, part: str, script: str, model: str, last: str) -> Turn:
        return Turn(name, part, ready(script, [model, *tables, last], asked.threads, judged(truth)))

    turns = [turn("Tunesmith, head", OURS, "tunesmith_quality", asked.model, json.dumps(SETTINGS))]
    if installed:
        turns += [turn(name, FURTHER, "encoder_quality", base, given) for name, given in ENCODERS.items()]
    plain = {**TRAINER, "epochs": EPOCHS, "bound": bound}
    for name, part, rate in (("Trainer, defaults", DEFAULTS, RATE), ("Trainer, tuned", TUNED, TUNED_RATE)):
        options = {**plain, "rate": rate, "tuned": part == TUNED}
        turns.append(turn(name, part, "trainer_quality", base, json.dumps(options)))
    return turns


def judged(truth: Sequence[str]) -> Callable[[dict[str, Any]], Plain]:
    """Accuracy by the labels that were said, with the time apart taken off the clocks.

    at_least: it was stopped on the way, so that its time is a lower bound. missed: it came to its end without.
    """

    def facts(found: dict[str, Any]) -> Plain:
        said, apart = found.pop("said"), found.pop("apart", {"cpu": 0.0, "wall": 0.0})
        right = sum(one == other for one, other in zip(said, truth, strict=True)) / len(truth) if said else None
        found["cpu_seconds"] = round(found["cpu_seconds"] - apart["cpu"], 3)
        found["wall_seconds"] = round(found["wall_seconds"] - apart["wall"], 3)
        reached = right is not None and right >= WANTED
        accuracy = None if right is None else round(right, 5)
        stopped = found.get("stopped") == "bound"
        return {**found, "accuracy": accuracy, "at_least": stopped and not reached, "missed": not (stopped or reached)}

    return facts


def written_test(source: Path, path: Path) -> list[str]:
    """Writes the test table as all others are, and gives its labels, which only the Trainer's script reads, to stop."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    write_rows([(row[0], row[-1]) for row in rows], path)
    return [row[-1] for row in rows]
