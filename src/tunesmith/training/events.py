"""What happened, as facts: the loop and the pipeline yield these, and whoever iterates decides what to do with them."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True)
class Event:
    """A fact about a run; every one survives JSON."""

    kind: ClassVar[str] = "event"

    def to_plain(self) -> dict[str, Any]:
        return {"kind": self.kind, **asdict(self)}


@dataclass(frozen=True)
class Note(Event):
    """Lines for a person, said once: what was found, derived, decided, measured."""

    kind: ClassVar[str] = "note"
    topic: str
    lines: tuple[str, ...]
    # Cells of the first lines, where these are a table: headings, then a name a row.
    table: tuple[tuple[str, ...], ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """Without a table where there is none."""
        plain = super().to_plain()
        return plain if self.table else {name: value for name, value in plain.items() if name != "table"}


@dataclass(frozen=True)
class StepDone(Event):
    kind: ClassVar[str] = "step"
    step: int  # steps done so far
    steps: int
    epoch: float
    loss: float  # mean over the step's weight
    rate: float  # the base's learning rate
    norm: float  # gradient norm before clipping
    rows: int
    tokens: int  # padding included
    seconds: float
    cpu: float = 0.0  # seconds, summed over cores


@dataclass(frozen=True)
class Evaluated(Event):
    kind: ClassVar[str] = "evaluated"
    step: int
    steps: int
    epoch: float
    metric: str
    value: float
    error: float  # one standard error of `value`
    loss: float
    best: bool


@dataclass(frozen=True)
class Saved(Event):
    kind: ClassVar[str] = "saved"
    step: int
    path: str


@dataclass(frozen=True)
class Spent(Event):
    """What a session of a run took so far; the last one of each session counts."""

    kind: ClassVar[str] = "spent"
    session: int  # from 1; a resumed run has several
    phases: tuple[tuple[str, float, float], ...]  # name, seconds by the clock, seconds summed over cores
    peak_memory_mb: float
    processor_joules: float
    how: str  # "rapl" or "estimate"
    gpu_joules: float | None = None  # None where none is used, or it cannot be read
    missing: str = ""  # why the GPU that is used is not counted
    rows: int = 0  # of the steps done
    tokens: int = 0  # of these rows; without padding where that is known
    step_seconds: float = 0.0
    peak_gpu_memory_mb: float | None = None  # that torch took of it; None where none is used
    lapsed: str = ""  # why the processor is reckoned although it has a counter


@dataclass(frozen=True)
class Forecast(Event):
    """What the whole run was thought to take, from its first steps."""

    kind: ClassVar[str] = "forecast"
    step: int  # after which it was made
    seconds: float
    cpu_seconds: float
    joules: float
    further: int = 0  # models that are to be trained beside, to tell the worth of this one
    further_seconds: float = 0.0  # of `seconds`
    further_cpu_seconds: float = 0.0  # of `cpu_seconds`


@dataclass(frozen=True)
class Warned(Event):
    kind: ClassVar[str] = "warned"
    message: str


@dataclass(frozen=True)
class Stopped(Event):
    """Ended before it was done, with everything saved."""

    kind: ClassVar[str] = "stopped"
    step: int
    why: str
    resume: str  # the command that goes on


@dataclass(frozen=True)
class Finished(Event):
    kind: ClassVar[str] = "finished"
    step: int
    why: str
    best_step: int
    delivered: str = ""  # what is delivered in the place of that step's state; "" where nothing is


_KINDS: dict[str, type[Event]] = {
    item.kind: item for item in (Note, StepDone, Evaluated, Saved, Spent, Forecast, Warned, Stopped, Finished)
}


def event_from(plain: dict[str, Any]) -> Event:
    """The event that `to_plain` gave. Raises KeyError for a kind this version does not know."""
    kind = _KINDS[plain["kind"]]
    # What has a default may be missing: most notes have no table, and ledgers of earlier versions lack newer fields.
    given = {
        field.name: plain[field.name]
        for field in fields(kind)
        if field.name in plain or (field.default is MISSING and field.default_factory is MISSING)
    }
    if kind is Note:
        given["lines"] = tuple(given["lines"])
        given["table"] = tuple(tuple(row) for row in plain.get("table", ()))
    if kind is Spent:
        given["phases"] = tuple((name, seconds, cpu) for name, seconds, cpu in given["phases"])
    return kind(**given)
