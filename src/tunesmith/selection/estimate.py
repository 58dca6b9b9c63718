"""What a run will take, told from a run in small: time by phase, and memory by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.phases import (
    AUDIT,
    BASELINES,
    ENCODING,
    EVALUATIONS,
    FROZEN,
    KNOWN_AFTER,
    MEASURING,
    NOTHING,
    PROBE,
    READING,
    SAVING,
    START,
    STEPS,
    Time,
    summed,
)
from tunesmith.training.optimizers import STATE_BYTES

MASTER, GRADIENT = 4, 4  # bytes a number that trains: its float32 value, its float32 gradient
MB = 1e6


@dataclass(frozen=True)
class Size:
    """How much work a run has."""

    rows: int  # of training
    tokens: int  # of these
    validation_tokens: int
    test_rows: int
    test_tokens: int
    compared: int  # training rows that are measured beside the test rows
    step_tokens: float  # of all steps, filler included
    steps: int
    evaluations: int  # one before the first step among them


# What each phase that goes through rows grows with; the others read the base, or general text, whatever the rows.
PACES: dict[str, Callable[[Size], float]] = {
    FROZEN: lambda size: size.tokens + size.validation_tokens,
    START: lambda size: size.rows,
    PROBE: lambda size: size.tokens + size.test_tokens,
    BASELINES: lambda size: size.rows + size.test_rows,
    EVALUATIONS: lambda size: size.validation_tokens * size.evaluations,
    SAVING: lambda size: size.evaluations,
    MEASURING: lambda size: size.rows + size.test_rows,
    AUDIT: lambda size: size.rows,
    KNOWN_AFTER: lambda size: size.compared,
}


@dataclass(frozen=True)
class Rehearsed:
    """What a run in small took."""

    phases: Mapping[str, Time]
    steps: Sequence[tuple[int, Time]]  # tokens of each, filler included, and its time
    peak_mb: float  # the most memory that the process held
    libraries_mb: float  # of that, before the base was read: Python, torch, transformers
    trainable: int
    total: int  # parameters
    precision: str  # of the weights in training
    peak_gpu_mb: float | None = None  # the most that tensors took of the GPU; None where it trained without
    free_gpu_mb: float | None = None  # that they could have taken


@dataclass(frozen=True)
class Memory:
    """Megabytes at the peak, by part; the last is what remains of the measured peak.

    Of the GPU where the run trains on one: libraries and rows are not there. Else of the machine.
    """

    libraries: float
    data: float
    weights: float
    gradients: float
    states: float
    rest: float  # activations of the longest batch, evaluation, delivery, and what the allocator keeps

    @property
    def peak(self) -> float:
        return self.libraries + self.data + self.weights + self.gradients + self.states + self.rest


def times(
    first: Rehearsed,
    again: Rehearsed,
    more: Rehearsed,
    sizes: tuple[Size, Size, Size],
    known: Mapping[str, Time],
) -> dict[str, Time]:
    """Each phase of a run, from three in small: on few rows, on the same again, and on more; `known` was timed whole.

    sizes: of the first two, of the third, and of the run. What goes through rows grows with them as from the second to the
    third, which find everything loaded; what is done once takes what it took in the first. A step takes as long a token as
    those of the third, but for its first.
    """
    few_size, more_size, here = sizes
    found: dict[str, Time] = {}
    for name, once in first.phases.items():
        pace = PACES.get(name)
        grown = 0.0 if pace is None else pace(more_size) - pace(few_size)
        if pace is None or grown <= 0:
            found[name] = once
            continue
        less = again.phases.get(name, NOTHING)
        a_unit = _at_least(more.phases.get(name, NOTHING).plus(less.times(-1))).times(1 / grown)
        found[name] = _at_least(once.plus(a_unit.times(pace(here) - pace(few_size))))
    timed = more.steps[1:] if len(more.steps) > 1 else more.steps
    if timed:
        a_token = summed(time for _, time in timed).times(1 / max(1, sum(tokens for tokens, _ in timed)))
        found[STEPS] = a_token.times(here.step_tokens)
    found |= {name: time for name, time in known.items() if name in (READING, ENCODING)}
    found[AUDIT] = found.get(AUDIT, NOTHING).plus(known.get(AUDIT, NOTHING))
    return found


def _at_least(time: Time) -> Time:
    return Time(max(0.0, time.seconds), max(0.0, time.cpu_seconds))


def memory(small: Rehearsed, data_mb: float, optimizer: str) -> Memory:
    """At the peak of the whole run, whose rows take `data_mb` more than those of the run in small.

    optimizer: its name in a recipe. Weights, gradients and states by their number and format; the rest is what these leave
    of the peak that was measured.
    """
    bytes_each = 2 if small.precision == "bfloat16" else 4
    masters = MASTER if bytes_each == 2 else 0
    weights = (small.total * bytes_each + small.trainable * masters) / MB
    gradients, states = small.trainable * GRADIENT / MB, small.trainable * STATE_BYTES[optimizer] / MB
    on_gpu = small.peak_gpu_mb is not None
    libraries, data = (0.0, 0.0) if on_gpu else (small.libraries_mb, data_mb)
    measured = small.peak_mb if small.peak_gpu_mb is None else small.peak_gpu_mb
    rest = max(0.0, measured - (libraries + weights + gradients + states))
    return Memory(libraries, data, weights, gradients, states, rest)
