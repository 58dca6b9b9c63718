"""A stopwatch over the phases of a run: every moment belongs to one of them, so that they sum to the whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

READING, AUDIT, BASE, ENCODING, BUILDING = "reading data", "audit", "loading the base", "encoding", "building"
KNOWN_BEFORE, FROZEN, PREFLIGHT = "what the base knows", "frozen features", "preflight"
KNOWN_AFTER = "what is still known"
START, PROBE = "starting head", "probe"  # fitted to frozen features, for training to start from and to compare with
STEPS, EVALUATIONS, SAVING = "training steps", "evaluations", "saving"
CHOICE = "choice of the method"  # the trainings of the ladder, that of what is delivered among them
DELIVERY, BASELINES, SCRATCH, MEASURING = "delivery", "baselines", "from random weights", "measuring"
CURVE, SEEDS, FOLDS = "on parts of the rows", "from other seeds", "on other folds"
OTHER = "other"

# What a trainer without proof would do as well between the first row it learns from and the last.
TRAINING = (CHOICE, FROZEN, START, STEPS, EVALUATIONS, SAVING)
# What every run does before its first step.
BEGINNING = (READING, BASE, ENCODING, BUILDING, FROZEN, PREFLIGHT)
# Models that are trained beside the delivered one.
FURTHER = (SCRATCH, CURVE, SEEDS, FOLDS)
# What only the proof takes.
EVIDENCE = (AUDIT, KNOWN_BEFORE, PROBE, BASELINES, *FURTHER, MEASURING, KNOWN_AFTER)

E = TypeVar("E")


class Time(NamedTuple):
    seconds: float  # by the clock
    cpu_seconds: float  # summed over cores

    def plus(self, other: Time) -> Time:
        return Time(self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds)

    def times(self, factor: float) -> Time:
        return Time(self.seconds * factor, self.cpu_seconds * factor)


NOTHING = Time(0.0, 0.0)


def now() -> Time:
    return Time(time.perf_counter(), time.process_time())


def summed(parts: Iterable[Time]) -> Time:
    total = NOTHING
    for part in parts:
        total = total.plus(part)
    return total


class Phases:
    """Wall and CPU time by phase since it was made, in the order in which phases first began.

    A phase within another one stops that one's watch; what is in no phase is `OTHER`.
    """

    def __init__(self, clock: Callable[[], Time] = now) -> None:
        self._clock = clock
        self._mark = clock()
        self._open = [OTHER]
        self._spent: dict[str, Time] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._charge(self._open[-1])
        self._open.append(name)
        try:
            yield
        finally:
            self._charge(self._open.pop())

    def through(self, name: str, events: Iterator[E]) -> Generator[E, None, Any]:
        """The events, and what a generator returns; its own time counts as `name`, that of whoever iterates does not."""
        try:
            while True:
                try:
                    with self.phase(name):
                        event = next(events)
                except StopIteration as end:
                    return end.value
                yield event
        finally:
            if isinstance(events, Generator):
                events.close()

    def by_event(self, events: Iterator[E], names: Mapping[type, str]) -> Iterator[E]:
        """The events; the time that each took to come counts as the phase of its type, or else as that around it."""
        while True:
            self._charge(self._open[-1])
            try:
                event = next(events)
            except StopIteration:
                return
            self._charge(names.get(type(event), self._open[-1]))
            yield event

    def spent(self) -> dict[str, Time]:
        """Up to now."""
        self._charge(self._open[-1])
        return dict(self._spent)

    def _charge(self, name: str) -> None:
        here = self._clock()
        took = Time(here.seconds - self._mark.seconds, here.cpu_seconds - self._mark.cpu_seconds)
        self._spent[name] = self._spent.get(name, NOTHING).plus(took)
        self._mark = here
