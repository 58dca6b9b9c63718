"""`tunesmith train` and `tunesmith resume`: start a run, show it, stop it when asked."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NamedTuple, Protocol, TextIO

import typer

from tunesmith.cli.options import (
    DataTable,
    Explain,
    Flags,
    GroupColumn,
    Json,
    LabelColumns,
    Model,
    MostEnergy,
    MostMemory,
    MostTime,
    PairColumn,
    Profile,
    Quick,
    RecipeFile,
    Settings,
    SliceColumns,
    TaskName,
    TextColumn,
    TimeColumn,
    check_free,
    discard_output,
    label_of,
    part_names,
    plain_warnings,
    recipe_of,
)
from tunesmith.cli.progress import View, view_for
from tunesmith.training.events import Stopped

if TYPE_CHECKING:
    from tunesmith.training.events import Event


class Session(Protocol):
    """A run under way, as the pipeline gives it."""

    @property
    def run(self) -> Path: ...

    def events(self) -> Iterator[Event]: ...


class Stopping:
    """Inside, the first Ctrl-C or SIGTERM asks the run to stop after its step; the second ends it at once."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that came
        self.unread = False  # whether the reader of the output went away, which stops a run as a signal does
        self._before: dict[int, signal.Handlers | Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Stopping:
        self._before = {number: signal.signal(number, self._heard) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def asked(self) -> bool:
        """Whether the run should stop after this step."""
        return self.unread or self.signal is not None

    def _heard(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = number
            # Written past Python's buffers: a handler may run in the middle of another write. The escape clears the
            # progress bar's line, which is drawn again below.
            clear = b"\r\x1b[2K" if sys.stderr.isatty() else b""
            os.write(2, clear + b"stopping after this step, saving... (again to end at once)\n")
        elif number == signal.SIGTERM:
            sys.exit(128 + number)
        else:
            raise KeyboardInterrupt


def train(
    data: DataTable = None,
    model: Model = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"What may change: {part_names('methods')}; or auto, the usual ones from the cheapest "
            "up to where held-out rows say that no more is gained.  [default: auto]",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    group: GroupColumn = None,
    time: TimeColumn = None,
    slices: SliceColumns = None,
    settings: Settings = None,
    recipe_file: RecipeFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Folder of the run.  [default: runs/<data>-<method>-<n>]", show_default=False
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of every random number.  [default: 0]", show_default=False),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="N", help="Train from N seeds and report their spread.", show_default=False),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds", metavar="N", help="Train N times, and measure on every row; for small data.", show_default=False
        ),
    ] = None,
    quick: Quick = False,
    max_time: MostTime = None,
    max_memory: MostMemory = None,
    max_energy: MostEnergy = None,
    explain: Explain = False,
    profile: Profile = False,
    json_lines: Json = False,
) -> None:
    """Fine-tune MODEL on labelled rows and say what it was worth."""
    flags = Flags(
        data=data,
        model=model,
        method=method,
        task=task,
        text=text,
        pair=pair,
        label=label_of(label),
        group=group,
        seed=seed,
        quick=quick,
        folds=folds,
        seeds=seeds,
        time=time,
        slices=label_of(slices),
        max_time=max_time,
        max_memory=max_memory,
        max_energy=max_energy,
    )
    recipe = recipe_of(recipe_file, flags, settings or ())
    check_free(out)
    from tunesmith import pipeline

    with plain_warnings():
        ended = follow(
            lambda stop: pipeline.start(recipe, out, stop=stop, profile=profile, explain=explain), json_lines
        )
    finish(ended, json_lines)


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run that was stopped or killed.")],
    json_lines: Json = False,
) -> None:
    """Go on with a run that was stopped, as if it never had been."""
    from tunesmith.runs import check_there

    check_there(run)  # before what takes seconds to import
    from tunesmith import pipeline

    finish(follow(lambda stop: pipeline.resume(run, stop), json_lines), json_lines)


class Ended(NamedTuple):
    """How a run that was shown to its end came out."""

    code: int  # the process's exit code
    run: Path


def follow(
    begin: Callable[[Callable[[], bool]], Session],
    json_lines: bool,
    view_of: Callable[[TextIO, bool], View] = view_for,
) -> Ended:
    """Begins a run and shows its events to the end.

    `begin` takes a function that says whether the run was asked to stop. The code is 0 when the run finished; 128 plus
    the signal's number when a signal stopped it first; 1 when it stopped for another reason, such as a reader of its
    output that went away (`| head`), which is said on standard error since nobody reads the other.
    """
    stopped: Stopped | None = None
    with Stopping() as stopping, view_of(sys.stdout, json_lines) as view:
        session = begin(stopping.asked)
        for event in session.events():
            try:
                if not stopping.unread:
                    view.show(event)
            except BrokenPipeError:
                stopping.unread = True
                discard_output()  # at once: leaving the view flushes, which would hide how the run ended
            if isinstance(event, Stopped):
                stopped = event
    if stopping.unread:
        print(unread_line(session.run, stopped), file=sys.stderr)
    if stopped is None:
        return Ended(0, session.run)
    return Ended(1 if stopping.signal is None else 128 + stopping.signal, session.run)


def unread_line(run: Path, stopped: Stopped | None) -> str:
    """How a run ended whose output was closed, for a person who saw nothing else of its end."""
    if stopped is None:
        return f"finished, though the output was closed: {run}"
    where = f"after step {stopped.step}, which is saved" if stopped.step > 0 else "before the first step"
    return f"stopped {where}: the output was closed (its reader went away); go on with: {stopped.resume}"


def finish(ended: Ended, json_lines: bool) -> None:
    """Shows what to do with a finished run, and ends the command with its exit code."""
    if ended.code == 0 and not json_lines:
        print("\n".join(next_lines(ended.run, example_of(ended.run), reads_pairs(ended.run))))
    raise typer.Exit(ended.code)


def reads_pairs(run: Path) -> bool:
    """Whether a finished run's model reads two texts a row."""
    card = json.loads((run / "model" / "tunesmith.json").read_text(encoding="utf-8"))
    return card["pair_column"] is not None


def example_of(run: Path) -> str:
    """What a finished run's model might be asked about: a text, or a picture's file."""
    task = json.loads((run / "model" / "tunesmith.json").read_text(encoding="utf-8"))["task"]
    return "picture.jpg" if "image_classification" in str(task) else "some text"


def next_lines(run: Path, text: str, pairs: bool = False) -> list[str]:
    """Where the report is, and the commands to try next, each on its own line to be copied."""
    page = run / "report.html"
    second = ' --pair "another text"' if pairs else ""
    report = [f"report: {page}"] if page.is_file() else []
    return ["", *report, "Try next:", f'  tunesmith predict {shlex.quote(str(run))} "{text}"{second}']
