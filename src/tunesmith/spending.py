"""What a run takes: time by phase, memory, electricity and rows, over all of its sessions."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.energy import ESTIMATE, J_PER_WH, Joules, Meter, estimated
from tunesmith.forecast import Further, Known, due, foretell
from tunesmith.phases import BASE, BEGINNING, EVALUATIONS, FROZEN, NOTHING, SAVING, STEPS, Phases, Time, summed
from tunesmith.training.events import Evaluated, Event, Forecast, Note, Saved, Spent, StepDone

if TYPE_CHECKING:
    from tunesmith.evaluation.cost import Foretold
    from tunesmith.training.loop import Run
    from tunesmith.training.source import FixedRows

PHASE_OF: dict[type, str] = {StepDone: STEPS, Evaluated: EVALUATIONS, Saved: SAVING}
BRIEF = 10.0  # seconds to go below which nobody wants to be told


@dataclass
class Spending:
    """Of one session, and of those before it."""

    phases: Phases = field(default_factory=Phases)
    meter: Meter = field(default_factory=Meter)
    earlier: list[Spent] = field(default_factory=list)
    forecast: Forecast | None = None
    rows: int = 0
    tokens: int = 0
    step_seconds: float = 0.0
    done: float = 1.0  # share of the steps
    padded: bool = False  # whether `tokens` counts padding
    device: str = "cpu"
    evaluated: int = 0
    steps: int = 0  # of this session, as are the evaluations

    def goes_on_from(self, events: Iterable[Event]) -> None:
        """Takes what the ledger says of earlier sessions, and the forecast of one of them, into account."""
        kept = list(events)
        self.earlier = sessions_of(kept)
        self.forecast = next((event for event in kept if isinstance(event, Forecast)), None)

    def uses(self, device: str) -> None:
        """Says where work is done: what a GPU takes is told apart."""
        self.device = device
        self.meter.uses(device)

    def session(self) -> Spent:
        """This session up to now."""
        spent, peak = self.phases.spent(), peak_memory_mb()
        whole = summed(spent.values())
        joules = self.meter.read(whole.cpu_seconds, whole.seconds, peak)
        return Spent(
            max((event.session for event in self.earlier), default=0) + 1,
            tuple((name, time.seconds, time.cpu_seconds) for name, time in spent.items()),
            peak, joules.processor, joules.how, joules.gpu, joules.missing,
            self.rows, self.tokens, self.step_seconds, _peak_gpu_memory_mb(self.device), joules.lapsed,
        )  # fmt: skip

    def whole(self) -> Spent:
        """All sessions up to now as one."""
        total = self.session()
        for event in reversed(self.earlier):
            total = _added(event, total)
        return total

    def watch(
        self, events: Iterator[Event], run: Run, validation_rows: int, rows_after: int, further: Further
    ) -> Iterator[Event]:
        """The loop's events, each timed as its phase; after the first steps of a run also its forecast.

        rows_after: test rows and others that the delivered model will be measured on. further: runs to be done beside it.
        """
        order, self.padded = run.source.order, not counts_tokens(run.source)
        self.done = run.state.step / run.steps if run.steps else 1.0
        timed: list[tuple[int, Time]] = []
        for event in self.phases.by_event(events, PHASE_OF):
            self.meter.keep_up()
            self.evaluated += isinstance(event, Evaluated)
            if not isinstance(event, StepDone):
                yield event
                continue
            self.done = event.step / event.steps
            self.rows += event.rows
            self.steps += 1
            self.step_seconds += event.seconds
            rows = order.batch(event.step - 1)
            self.tokens += event.tokens if self.padded else sum(order.lengths[row] for row in rows)
            timed.append((event.step - 1, Time(event.seconds, event.cpu)))
            yield event
            if self.forecast is None and event.step < event.steps and due(timed):
                spent = self.phases.spent()
                evaluations = spent.get(EVALUATIONS, NOTHING).plus(spent.get(SAVING, NOTHING))
                measured = validation_rows if self.evaluated else 0
                yield from self._foretold(
                    run,
                    Known(
                        time_of(self.whole()), timed, self.rows, evaluations.times(1 / max(self.evaluated, 1)), measured,
                        spent.get(BASE, NOTHING), rows_after, summed(spent.get(name, NOTHING) for name in BEGINNING), further,
                        spent.get(FROZEN, NOTHING).plus(run.trunk.saved).times(
                            1 / max(1, len(run.source.examples) + rows_after)
                        ),
                    ),
                )  # fmt: skip

    def foretold(self) -> Foretold | None:
        """The forecast as the report has it; None where none was made."""
        from tunesmith.evaluation.cost import Foretold

        told = self.forecast
        if told is None:
            return None
        wh, further = told.joules / J_PER_WH, (told.further_seconds, told.further_cpu_seconds)
        return Foretold(told.step, told.seconds, told.cpu_seconds, wh, self.done, *further)

    def _foretold(self, run: Run, known: Known) -> Iterator[Event]:
        from tunesmith.evaluation.cost import watt_hours
        from tunesmith.evaluation.wording import duration, further_models

        (total, further), so_far, step = foretell(known, run), self.whole(), known.steps[-1][0] + 1
        left = Time(total.seconds - known.so_far.seconds, total.cpu_seconds - known.so_far.cpu_seconds)
        joules = joules_of(so_far).total
        if so_far.how == ESTIMATE and so_far.gpu_joules is None:
            joules += estimated(left.cpu_seconds, left.seconds, so_far.peak_memory_mb)
        else:
            joules *= total.seconds / max(known.so_far.seconds, 1e-9)
        models = len(known.further.shares)
        self.forecast = Forecast(step, *total, joules, models, *further)
        yield self.forecast
        if left.seconds >= BRIEF:
            stages = ", and before more blocks begin to train" if run.plan.stages else ""
            of_it = ""
            if models:
                own = Time(total.seconds - further.seconds, total.cpu_seconds - further.cpu_seconds)
                of_it = (
                    f"; this model with its proof takes {duration(own.seconds)} of it ({duration(own.cpu_seconds, 'CPU')}), "
                    f"and {further_models(models)}, to tell its worth, {duration(further.seconds)} "
                    f"({duration(further.cpu_seconds, 'CPU')})"
                )
            of_it += "; the rival from random weights is not in it" if known.further.unknown else ""
            said = (
                f"about {duration(total.seconds)} in all ({duration(total.cpu_seconds, 'CPU')}, "
                f"{watt_hours(joules / J_PER_WH, so_far.how == ESTIMATE)}), of which {duration(left.seconds)} are to come: "
                f"told after step {step:,} of {run.steps:,}, if all epochs are done{stages}{of_it}"
            )
            yield Note("forecast", (said,))


def sessions_of(events: Iterable[Event]) -> list[Spent]:
    """The last word of each session, with the steps done after it in a session that was killed.

    Steps of a ledger without such words are a session of their own.
    """
    words: dict[int, Spent] = {}
    beyond: dict[int, list[StepDone]] = {}
    session = 0
    for event in events:
        if isinstance(event, Spent):
            session = event.session
            words[session], beyond[session] = event, []
        elif isinstance(event, StepDone):
            beyond.setdefault(session, []).append(event)
    return [_with_steps(words.get(number), number, beyond[number]) for number in sorted(beyond)]


def _with_steps(word: Spent | None, session: int, steps: list[StepDone]) -> Spent:
    seconds, cpu = sum(step.seconds for step in steps), sum(step.cpu for step in steps)
    if word is None:
        return Spent(session, ((STEPS, seconds, cpu),), 0.0, estimated(cpu, seconds, 0.0), ESTIMATE)
    if not steps:
        return word
    had = time_of(word)
    more = 1 + seconds / max(had.seconds, 1e-9)  # electricity as until then
    named = {name: (clock, cores) for name, clock, cores in word.phases}
    clock, cores = named.get(STEPS, (0.0, 0.0))
    named[STEPS] = (clock + seconds, cores + cpu)
    return replace(
        word,
        phases=tuple((name, *times) for name, times in named.items()),
        processor_joules=word.processor_joules * more,
        gpu_joules=None if word.gpu_joules is None else word.gpu_joules * more,
    )


def _added(first: Spent, then: Spent) -> Spent:
    names = dict.fromkeys(name for part in (first, then) for name, _, _ in part.phases)
    times = {name: summed(Time(s, c) for part in (first, then) for own, s, c in part.phases if own == name)
             for name in names}  # fmt: skip
    joules = joules_of(first).plus(joules_of(then))
    peaks = [value for value in (first.peak_gpu_memory_mb, then.peak_gpu_memory_mb) if value is not None]
    return Spent(
        then.session,
        tuple((name, time.seconds, time.cpu_seconds) for name, time in times.items()),
        max(first.peak_memory_mb, then.peak_memory_mb),
        joules.processor, joules.how, joules.gpu, joules.missing,
        first.rows + then.rows, first.tokens + then.tokens, first.step_seconds + then.step_seconds,
        max(peaks, default=None), joules.lapsed,
    )  # fmt: skip


def times_of(spent: Spent) -> dict[str, Time]:
    return {name: Time(seconds, cpu) for name, seconds, cpu in spent.phases}


def time_of(spent: Spent) -> Time:
    return summed(times_of(spent).values())


def joules_of(spent: Spent) -> Joules:
    return Joules(spent.processor_joules, spent.how, spent.gpu_joules, spent.missing, spent.lapsed)


def counts_tokens(source: FixedRows) -> bool:
    """Whether a row's length is all that is read of it: one text, without its padding."""
    first = source.examples[0]
    return "input_ids" in first.inputs and len(first.sides) == 1


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far.

    Linux's own count begins with that of the process which started this one; what it says of a program's own memory does not.
    """
    with suppress(OSError, IndexError, ValueError):
        said = Path("/proc/self/status").read_text(encoding="utf-8")
        return float(said.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def _peak_gpu_memory_mb(device: str) -> float | None:
    """The most that torch's tensors took of a GPU so far; None on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / 1e6
