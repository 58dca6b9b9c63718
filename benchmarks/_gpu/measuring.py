"""One contender at one job: what it took, as a record."""

from __future__ import annotations

from typing import Any

from . import models, ours, peers, rows
from .works import BFLOAT16, COMPILED, MASKED, NAMES, OURS, RECOMPUTED, Turn, work_of

OURS_ALL = (OURS, BFLOAT16, COMPILED, RECOMPUTED, MASKED)


def one(turn: Turn, trial: bool, device: str) -> dict[str, Any]:
    """Raises RuntimeError where it did fewer or more steps than the job has."""
    work = work_of(turn.work, trial)
    job, shape = work.jobs[turn.job], work.shape
    amount = job.amount
    given = rows.examples(shape, amount, (amount.warm + amount.steps) * amount.batch)
    side = ours if turn.contender in OURS_ALL else peers
    found = side.measure(shape, job, turn.contender, given, device)
    if found["steps"] != amount.warm + amount.steps:
        raise RuntimeError(f"did {found['steps']} steps where the job has {amount.warm + amount.steps}")
    return {**key(turn, trial), **rates(shape, job.method, given, amount, found["seconds"]), **found}


def key(turn: Turn, trial: bool) -> dict[str, Any]:
    job = work_of(turn.work, trial).jobs[turn.job]
    return {
        "work": turn.work,
        "job": turn.job,
        "method": job.method,
        "batch": job.amount.batch,
        "contender": turn.contender,
        "name": NAMES[turn.contender],
    }


def rates(shape: Any, method: str, given: Any, amount: Any, seconds: float) -> dict[str, Any]:
    """Tokens a second, and floating-point operations a second that these need at least, in TFLOP/s.

    Each step is taken to hold its share of all rows, since contenders draw them in orders of their own.
    """
    share = amount.steps / (amount.warm + amount.steps)
    tokens, pairs = share * rows.real_tokens(given), share * rows.squares(given)
    work = models.floating_operations(shape, method, round(tokens), round(pairs))
    return {"tokens": round(tokens), "tokens_a_second": tokens / seconds, "tflops": work / seconds / 1e12}
