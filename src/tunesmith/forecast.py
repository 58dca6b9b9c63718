"""How long a run will take, told from its first steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.phases import NOTHING, Time, summed

if TYPE_CHECKING:
    from tunesmith.training.loop import Run
    from tunesmith.training.source import FixedRows

FEWEST, ENOUGH = 3, 10  # steps of a session; the first of several is left out, since it also warms up
SOON = 20.0  # seconds of steps after which fewer are enough
SAMPLED = 200  # steps whose size is looked at, about
FORWARD = 1 / 3  # of a step's time: backward takes about twice as much as forward (Kaplan 2020, section 2.1)


@dataclass(frozen=True)
class Further:
    """Runs to be done beside this one, each of the same recipe on a share of its training rows."""

    shares: tuple[float, ...] = ()
    unknown: bool = False  # whether there is one of another kind, of which nothing is known before it begins


@dataclass(frozen=True)
class Known:
    """What a forecast is made from."""

    so_far: Time  # of the whole run
    steps: Sequence[tuple[int, Time]]  # number (from 0) and time of the steps of this session
    rows: int  # of these steps
    evaluation: Time  # of one evaluation and save, on the mean
    validation_rows: int
    base: Time  # of reading the base once
    rows_after: int  # that the delivered model will be measured on
    before: Time = NOTHING  # of what came before the first step, and comes before that of any further run
    further: Further = field(default_factory=Further)
    frozen: Time = NOTHING  # of what is frozen, for one row: evaluations find it kept, the delivered model computes it


def due(steps: Sequence[tuple[int, Time]]) -> bool:
    """Whether enough steps have been timed."""
    taken = summed(time for _, time in steps).seconds
    return len(steps) >= ENOUGH or (len(steps) >= FEWEST and taken >= SOON)


def foretell(known: Known, run: Run) -> tuple[Time, Time]:
    """The whole run, if all epochs are done, and how much of that the further runs take.

    The steps to come at the time a token (padding included) of those done; the evaluations to come, which one of this
    very step is too, as those done. After the last step the base is read twice more, to be written and to prove it, and
    rows are predicted as the validation rows are, with nothing kept of them. A further run begins as this one did, and
    takes its share of all steps, as many evaluations and as much delivery. What rivals such as TF-IDF take, and what is
    read again to tell what the base forgot, is not known before and not in it.
    """
    from tunesmith.training.loop import evaluation_steps

    timed = known.steps[1:] if len(known.steps) > 1 else known.steps
    done, due_at = known.steps[-1][0] + 1, evaluation_steps(run)
    a_token = summed(time for _, time in timed).times(1 / sum(size_of(run.source, step) for step, _ in timed))
    evaluations = sum(point >= done for point in due_at)
    if known.validation_rows:
        a_row = known.evaluation.times(1 / known.validation_rows)
    else:
        a_row = summed(time for _, time in known.steps).times(FORWARD / max(known.rows, 1))
    after = known.base.times(2).plus(a_row.plus(known.frozen).times(known.rows_after))
    left = (
        a_token.times(size_between(run.source, done, run.steps)).plus(known.evaluation.times(evaluations)).plus(after)
    )
    whole = a_token.times(size_between(run.source, 0, run.steps)) if known.further.shares else NOTHING
    beside = known.before.plus(known.evaluation.times(len(due_at) + 1)).plus(after)  # one before the first step too
    further = summed(beside.plus(whole.times(share)) for share in known.further.shares)
    return summed((known.so_far, left, further)), further


def size_between(source: FixedRows, first: int, last: int) -> float:
    """Tokens of the steps from `first` to before `last`, padding included, by a sample of them."""
    stride = max(1, (last - first) // SAMPLED)
    sizes = [size_of(source, step) for step in range(first, last, stride)]
    return sum(sizes) / len(sizes) * (last - first) if sizes else 0.0


def size_of(source: FixedRows, step: int) -> int:
    """Tokens of a step, padding included, of each row's longest text."""
    lengths, rows = source.order.lengths, source.order.batch(step)
    return sum(len(part) * max(lengths[row] for row in part) for part in source.parts(rows))
