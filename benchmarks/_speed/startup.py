"""From the start of Python to the first optimizer step, each in a process of its own."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from _contenders import BATCH_SIZE

from tunesmith.models.resolve import resolve, weights_folder

from .cold import ready
from .rows import training_rows, write_rows
from .turns import Plain, Turn, one_round
from .works import DEFAULTS, FURTHER, OURS, Work

# What only the proof takes, and the rows that are held out for it: the Trainer has neither.
NO_PROOF = {
    "data.test": 0.0,
    "evaluation.quick": True,
    "evaluation.baselines": False,
    "retention.measure": False,
    "training.batch_size": BATCH_SIZE,
    "training.device": "cpu",
    "training.cache": "memory",
}
NO_FIT = {**NO_PROOF, "data.validation": 0.0, "training.probe": False}  # the head starts at random, as the Trainer's does


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": ..., "measured": records}."""
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        rows = training_rows(asked.data, asked.rows)
        write_rows(rows, table)
        base = str(weights_folder(resolve(asked.model).folder))
        ours = {
            "Tunesmith": (OURS, NO_FIT),
            "Tunesmith, head fitted first": (FURTHER, NO_PROOF),
            "Tunesmith, defaults": (FURTHER, {"training.cache": "memory"}),
        }
        turns = [
            Turn(name, part, ready("tunesmith_first_step", [asked.model, str(table), json.dumps(settings)], asked.threads))
            for name, (part, settings) in ours.items()
        ]
        words = [base, str(table), str(BATCH_SIZE)]
        turns.append(Turn("Trainer, defaults", DEFAULTS, ready("trainer_first_step", words, asked.threads)))
        print(f"{work.name}: {len(rows):,} rows", flush=True)
        measured = [record for number in range(1, asked.rounds + 1) for record in one_round(work.name, turns, number)]
    return {"job": {"rows": len(rows), "settings": NO_FIT}, "measured": measured}
