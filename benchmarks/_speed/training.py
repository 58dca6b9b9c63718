"""Training by one method, from encoded rows to a trained model in memory."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from _contenders import Contender, Facts, Job, TrainerDefaults, TrainerTuned, Tunesmith, make_job

from tunesmith.training.threads import threads_given_back

from .turns import Plain, Turn, one_round
from .works import DEFAULTS, OURS, TUNED, Work

WARM_ROWS = 64  # an untimed turn of each contender first: imports, kernels, memory
LONGER = ("layers", "head")  # methods whose frozen part is computed once: their gain shows over more epochs


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": what was done, "measured": records}."""
    epochs = asked.head_epochs if work.name in LONGER else asked.epochs
    contenders: dict[str, Contender] = {OURS: Tunesmith(), DEFAULTS: TrainerDefaults()}
    if work.wanted_tuned is not None:
        contenders[TUNED] = TrainerTuned()
    job = make_job(asked.data, asked.model, work.name, asked.rows, epochs)
    warm = make_job(asked.data, asked.model, work.name, min(WARM_ROWS, asked.rows or WARM_ROWS), 1)
    return in_rounds(work.name, contenders, job, warm, asked.rounds, job.steps)


def in_rounds(work: str, contenders: dict[str, Contender], job: Job, warm: Job, rounds: int, steps: int) -> Plain:
    """All contenders on `warm` outside the clock, and then on `job` in so many rounds."""
    plain = describe(job)
    print(f"{work}: {job.rows:,} rows, epochs: {job.epochs}, steps: {steps:,}", flush=True)
    for contender in contenders.values():
        with threads_given_back():
            contender.ready(warm)()
    turns = [Turn(contender.name, part, timed(contender, job, steps)) for part, contender in contenders.items()]
    measured = [record for number in range(1, rounds + 1) for record in one_round(work, turns, number)]
    return {"job": {**plain, "steps": steps}, "measured": measured}


def timed(contender: Contender, job: Job, steps: int) -> Callable[[], Callable[[], Plain]]:
    def ready() -> Callable[[], Plain]:
        work = contender.ready(job)

        def do() -> Plain:
            with threads_given_back():  # Tunesmith chooses its own, and the next one has what it would have alone
                return told(contender.name, work(), steps)

        return do

    return ready


def told(name: str, facts: Facts, steps: int) -> Plain:
    """Raises RuntimeError where a contender did fewer or more steps than the job has."""
    if facts.steps != steps:
        raise RuntimeError(f"{name}: did {facts.steps} steps where the job has {steps}")
    return {
        "steps": facts.steps,
        "precision": facts.precision,
        "threads": torch.get_num_threads(),
        "trainable": facts.trainable,
        "mean_loss": round(facts.mean_loss, 4),
        "phases": {name: [round(part.cpu, 3), round(part.wall, 3)] for name, part in facts.phases.items()},
    }


def describe(job: Job) -> dict[str, Any]:
    lengths = [example.length for example in job.encoded.examples["train"]]
    return {
        "rows": job.rows,
        "held_out": len(job.encoded.examples["validation"]),
        "classes": len(job.prepared.labels.names),
        "tokens_a_row": round(sum(lengths) / len(lengths), 1),
        "epochs": job.epochs,
        "batch_size": job.recipe.training.batch_size,
    }
