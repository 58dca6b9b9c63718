"""Finding a learning rate: which to try next, on how many rows, when a trial is lost, and which to take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.selection.ladder import gain_over

if TYPE_CHECKING:
    from tunesmith.tasks.base import Scores

FACTOR = 3.0  # from one rate to the next; within it quality hardly changes (../benchmarks/results/rate.md)
REACH = 3  # at most so many factors from the documented rate, to each side
FIRST_ROWS = 1_000  # training rows that each rate is tried on first
SECOND_ROWS = 4_000  # and at most, where another one than the documented is to be confirmed
LOST = 2.0  # standard errors below the best at the same evaluation from which on a trial is ended


def next_step(ranks: Mapping[int, tuple[float, float]]) -> int | None:
    """Which rate to try next, as a power of `FACTOR` times the documented one; None where the best has both neighbours.

    ranks: of those that were tried, more is better, -inf for one that came to nothing. From the documented one outwards, for
    as long as the best is at the edge: quality over the logarithm of the rate rises and falls once, so that what lies behind
    a worse neighbour is worse still.
    """
    for step in (0, -1, 1):
        if step not in ranks:
            return step
    if all(value == -math.inf for value, _ in ranks.values()):  # diverged, so lower
        return min(ranks) - 1 if min(ranks) > -REACH else None
    best = max(ranks, key=lambda step: (ranks[step], -abs(step)))
    return next((step for step in (best - 1, best + 1) if step not in ranks and abs(step) <= REACH), None)


def shares(rows: int, first: int = FIRST_ROWS) -> tuple[float, ...]:
    """Which shares of the training rows trials learn from, one after another: fewer rates go on to the next share.

    Fewer rows, and not fewer epochs, for after few steps a low rate looks best: see `ladder.short`. All of them at once where
    there are hardly more than `first`, which would say little of them.
    """
    if rows <= 2 * first:
        return (1.0,)
    return first / rows, min(1.0, max(SECOND_ROWS, 2 * first) / rows)


def lost(value: float, error: float, best: float, best_error: float) -> bool:
    """Whether a trial is plainly behind the best at the same evaluation; more is better, errors are standard errors.

    They score the same rows, so that the error of the difference is mostly smaller than this takes it for. Where neither has
    an error (one row, or all alike) nothing is plain.
    """
    noise = math.hypot(error, best_error)
    return noise > 0 and best - value > LOST * noise


def taken(steps: Sequence[int], scores: Sequence[Scores], losses: Sequence[float], metric: str, seed: int) -> int:
    """The step to take of those that were tried on the same rows: the nearest to the documented one of the best.

    One standard error, paired over the validation rows, decides what is as good as the best. The lower of two as near:
    it gives up less of what the base knows.
    """
    lower = metric in scores[0].lower

    def rank(place: int) -> tuple[float, float]:
        value = scores[place].value(metric)
        return (-value if lower else value), -losses[place]

    best = max(range(len(steps)), key=rank)
    alike = [
        place
        for place in range(len(steps))
        if place == best or not gain_over(scores[best], scores[place], metric, seed).beyond_noise
    ]
    return min((steps[place] for place in alike), key=lambda step: (abs(step), step))
