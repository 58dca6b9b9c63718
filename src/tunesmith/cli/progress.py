"""Shows a run's events: a bar on a terminal, plain lines in a pipe, JSON lines for programs."""

from __future__ import annotations

import json
import re
import textwrap
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tunesmith.cli.tables import turned
from tunesmith.training.events import Evaluated, Event, Finished, Note, StepDone, Stopped, Warned

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

SHARE = 20  # plain lines per run: one for every 1/20 of the steps
PARAGRAPHS = ("verdict", "advice")  # topics that are read as one
TOPIC_WIDTH = 9  # of the longest topic, "findings", and a space
NARROW = 60  # columns below which a topic stands on its own line


class View(AbstractContextManager["View"], Protocol):
    """Something that shows events while it is entered."""

    def show(self, event: Event) -> None: ...


def view_for(stream: TextIO, json_lines: bool) -> View:
    """The view that suits where the output goes."""
    if json_lines:
        return JsonView(stream)
    if not stream.isatty():
        return PlainView(stream)
    from rich.console import Console

    return BarView(Console(file=stream, highlight=False, markup=False))


class JsonView:
    """One JSON object a line. Numbers that JSON does not know (nan, infinity) become null."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> JsonView:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def show(self, event: Event) -> None:
        print(json_line(event.to_plain()), file=self._stream, flush=True)


def json_line(plain: Any) -> str:
    """Strict JSON on one line; what is not finite becomes null."""
    return json.dumps(_finite(plain), ensure_ascii=False, allow_nan=False)


def _finite(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {str(key): _finite(value) for key, value in plain.items()}
    if isinstance(plain, list | tuple):
        return [_finite(value) for value in plain]
    if isinstance(plain, float) and (plain != plain or plain in (float("inf"), float("-inf"))):
        return None
    return plain


class Pace:
    """How far a run is and how long it has to go, from the steps seen so far."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.begun = clock()  # of the first step, less what that step took
        self.last: StepDone | None = None
        self._first = 0
        self._seen = self.begun
        self._rows = 0

    def step(self, event: StepDone) -> None:
        if self.last is None or event.step <= self.last.step:  # another training begins, of several
            self.begun = self._clock() - event.seconds
            self._first = event.step - 1  # a resumed run does not begin at 1
            self._rows = 0
        self.last = event
        self._rows += event.rows
        self._seen = self._clock()

    @property
    def elapsed(self) -> float:
        return self._clock() - self.begun

    @property
    def rows_per_second(self) -> float:
        """Up to the last step, so that it does not sink while an evaluation runs."""
        return self._rows / max(self._seen - self.begun, 1e-9)

    @property
    def left(self) -> float:
        """Seconds to the last step, evaluations so far counted in."""
        if self.last is None:
            return 0.0
        return self.elapsed / max(self.last.step - self._first, 1) * (self.last.steps - self.last.step)


class PlainView:
    """Lines without colours: notes, every evaluation, and a step about every 5 %."""

    def __init__(self, stream: TextIO, width: int = 120, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._width = width
        self._pace = Pace(clock)
        self._losses: list[float] = []

    def __enter__(self) -> PlainView:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def show(self, event: Event) -> None:
        for line in self._lines(event):
            print(line, file=self._stream, flush=True)

    def _lines(self, event: Event) -> list[str]:
        if isinstance(event, StepDone):
            return self._step(event)
        return event_lines(event, self._width)

    def _step(self, event: StepDone) -> list[str]:
        first = self._pace.last is None or event.step <= self._pace.last.step
        before = event.step - 1
        self._pace.step(event)
        self._losses.append(event.loss)
        due = event.step * SHARE // event.steps > before * SHARE // event.steps
        if not (first or due):
            return []
        loss = sum(self._losses) / len(self._losses)
        self._losses.clear()
        share = 100 * event.step / event.steps
        return [
            f"step {event.step}/{event.steps} ({share:.0f} %)  epoch {event.epoch:.2f}  loss {loss:.4f}  "
            f"rate {event.rate:.2e}  {self._pace.rows_per_second:.0f} rows/s  {clock_text(self._pace.left)} left"
        ]


class BarView:
    """One line at the bottom of the terminal that fits its width; everything else scrolls above it."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        from rich.live import Live

        self._console = console
        self._bar = Bar(clock)
        self._live = Live(self._bar, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> BarView:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, event: Event) -> None:
        if isinstance(event, StepDone):
            self._bar.step(event)
            return
        if isinstance(event, Note):
            self._bar.ended()
        verdict = isinstance(event, Note) and event.topic in PARAGRAPHS
        style = "yellow" if isinstance(event, Warned) else "bold" if verdict else ""
        lines = event_lines(event, self._console.width)
        if lines:
            self._console.print("\n".join(lines), style=style, soft_wrap=True)


class Bar:
    """The line at the bottom, drawn anew for whatever width the terminal has."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pace = Pace(clock)
        self._since = clock()
        self._word = "preparing"
        self._loss: float | None = None

    def step(self, event: StepDone) -> None:
        if self._pace.last is not None and event.step <= self._pace.last.step:
            self._loss = None  # that of another training
        self._pace.step(event)
        self._word = "training"
        if event.step >= event.steps:
            self.ended()
        # A single step's loss jumps too much to read: an average that forgets over some ten steps.
        self._loss = event.loss if self._loss is None else 0.9 * self._loss + 0.1 * event.loss

    def ended(self) -> None:
        """The steps are over: the last was done, or a note came after one, which only the rest of a run has."""
        if self._word == "training":
            self._word, self._since = "measuring", self._clock()

    def line(self, width: int, ascii_only: bool = False) -> str:
        """At most `width` characters: the most wanted facts that fit, and a bar in what is left."""
        last = self._pace.last
        if last is None or self._loss is None or self._word != "training":
            return f"{self._word} {clock_text(self._clock() - self._since)}"[:width]
        facts = [
            f"{last.step}/{last.steps}",
            f"loss {self._loss:.3f}",
            f"{clock_text(self._pace.left)} left",
            f"rate {last.rate:.1e}",
            f"epoch {last.epoch:.1f}",
            f"{self._pace.rows_per_second:.0f} rows/s",
        ]
        while len(facts) > 1 and len("  ".join(facts)) > width:
            facts.pop()
        text = "  ".join(facts)
        room = min(width - len(text) - 2, 30)
        if room < 5:
            return text[:width]
        done = round(room * last.step / last.steps)
        full, rest = ("#", "-") if ascii_only else ("━", "╌")
        return f"{full * done}{rest * (room - done)}  {text}"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.text import Text

        # The last column stays empty: some terminals break a line that fills it.
        line = self.line(max(options.max_width - 1, 1), options.ascii_only)
        yield Text(line, style="cyan", no_wrap=True, overflow="crop")


def event_lines(event: Event, width: int) -> list[str]:
    """Printable lines of an event other than a step; none for one that only programs want."""
    match event:
        case Note():
            return _note_lines(event, width)
        case Evaluated():
            return _fold(_evaluated_text(event), width)
        case Warned():
            return _fold(f"warning: {event.message}", width)
        case Stopped():
            # The command is on its own line, whole, to be copied.
            return [*_fold(f"stopped after step {event.step}: {event.why}", width), "go on with:", f"  {event.resume}"]
        case Finished():
            return _fold(_finished_text(event), width)
        case _:
            return []


def _note_lines(note: Note, width: int) -> list[str]:
    """A topic in a left column, or on its own line where the terminal is narrow, and its lines beside it."""
    narrow = width < NARROW
    indent = "  " if narrow else " " * TOPIC_WIDTH
    rest = indent if note.topic in PARAGRAPHS else indent + "  "
    given = [line.removeprefix(f"{note.topic}: ") for line in note.lines]
    flat, given = given[: len(note.table)], given[len(note.table) :]
    fits = all(len(indent + line) <= width for line in flat)
    lines = [indent + line for line in (flat if fits else turned(note.table, width - len(indent)))]
    for line in given:
        if note.topic == "next":
            lines.append(indent + line)  # a command to copy
        else:
            lines += _fold(re.sub(r" {3,}", "  ", line), width, indent, rest)
    if not lines:
        return []
    if narrow:
        return [note.topic, *lines]
    return [note.topic.ljust(TOPIC_WIDTH) + lines[0][TOPIC_WIDTH:], *lines[1:]]


def _fold(text: str, width: int, first: str = "", rest: str = "  ") -> list[str]:
    folded = textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    )
    return folded or [""]


def _evaluated_text(event: Evaluated) -> str:
    from tunesmith.evaluation.wording import metric_title

    # The latest state is kept unless it is clearly worse: that it is kept at nearly every evaluation says nothing.
    left, metric = "" if event.best else "  not kept: worse by over one standard error", metric_title(event.metric)
    return (
        f"step {event.step}/{event.steps}  epoch {event.epoch:.2f}  validation {metric} {event.value:.4f} "
        f"± {event.error:.4f}  loss {event.loss:.4f}{left}"
    )


def _finished_text(event: Finished) -> str:
    kept = event.delivered or f"the state after step {event.best_step}"
    return f"finished after step {event.step}: {event.why}; {kept} is kept"


def clock_text(seconds: float) -> str:
    """0:07, 12:34, 3:05:00."""
    whole = max(round(seconds), 0)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
