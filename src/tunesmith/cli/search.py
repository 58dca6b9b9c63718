"""`tunesmith search`: try what a recipe leaves open, and train what was best."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tunesmith.cli.options import (
    Flags,
    Json,
    Model,
    Settings,
    TaskName,
    part_names,
    plain_of,
    plain_warnings,
)
from tunesmith.cli.progress import JsonView, View, view_for
from tunesmith.cli.train import finish, follow
from tunesmith.errors import ArtifactError

if TYPE_CHECKING:
    from rich.console import Console

    from tunesmith.selection.study import Told
    from tunesmith.training.events import Event

SHOWN = 8  # trials of the live table: the best ones


def search(
    recipe_file: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML or JSON recipe with spaces in the place of values.")
    ],
    model: Model = None,
    method: Annotated[
        str | None,
        typer.Option("--method", metavar="NAME", help=f"What may change: {part_names('methods')}.", show_default=False),
    ] = None,
    task: TaskName = None,
    settings: Settings = None,
    trials: Annotated[
        int | None,
        typer.Option("--trials", metavar="N", help="Of the whole search.  [default: 20]", show_default=False),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", metavar="T", help="Begin no trial, and end the last, after 90s, 30m or 2h."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of the search; one that is there is gone on with.  [default: runs/search-<recipe>]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of every random number.  [default: 0]", show_default=False),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Try what a recipe leaves open, and train and test the best."""
    flags = Flags(model=model, method=method, task=task, seed=seed)
    given = [*(settings or ())]
    given += [] if trials is None else [f"search.trials={trials}"]
    given += [] if max_time is None else [f"search.time={max_time}"]
    asked = plain_of(recipe_file, flags, given, "search")
    folder = Path("runs") / f"search-{recipe_file.stem}" if out is None else out
    _check_out(folder)
    from tunesmith import searching

    words = ["tunesmith", "search", *sys.argv[2:]] if sys.argv[1:2] == ["search"] else []
    made = searching.search(asked, folder, command=_joined(words))

    def begin(stop: Any) -> searching.Search:
        made.stop = stop
        return made

    with plain_warnings():
        ended = follow(begin, json_lines, view_of)
    if made.finished:
        finish(ended, json_lines)
    raise typer.Exit(ended.code)


def _joined(words: list[str]) -> str:
    import shlex

    return shlex.join(words)


def _check_out(out: Path) -> None:
    """Raises ArtifactError where a search can neither begin nor go on in `out`."""
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file, and a search needs a folder; name another with --out")
    if (
        out.is_dir()
        and any(out.iterdir())
        and not any((out / name).exists() for name in (".study.lock", "search.yaml"))
    ):
        raise ArtifactError(f"{out}: holds other files, which a search could overwrite; name a new folder with --out")


def view_of(stream: TextIO, json_lines: bool) -> View:
    """Trials as a table while they last, and the winner as any run."""
    if json_lines:
        return SearchJson(stream)
    if not stream.isatty():
        return SearchLines(stream)
    from rich.console import Console

    return SearchTable(Console(file=stream, highlight=False, markup=False), stream)


class SearchJson(JsonView):
    """One JSON object a line; steps of the winner alone, whose number no trial has."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._trying = False

    def show(self, event: Event) -> None:
        self._trying = _trying(event, self._trying)
        if not (self._trying and event.kind == "step"):
            super().show(event)


class SearchLines:
    """A line a trial, then the winner's own lines."""

    def __init__(self, stream: TextIO, width: int = 120) -> None:
        self._stream, self._width = stream, width
        self._run = view_for(stream, json_lines=False)
        self._trying = False

    def __enter__(self) -> SearchLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()

    def show(self, event: Event) -> None:
        from tunesmith.selection.study import Told

        self._trying = _trying(event, self._trying)
        if isinstance(event, Told):
            if event.state != "running":
                print(*trial_lines(event, self._width), sep="\n", file=self._stream, flush=True)
        elif not (self._trying and event.kind in ("step", "judged")):
            self._run.show(event)


class SearchTable:
    """The best trials and the one under way at the bottom of a terminal; the rest scrolls above."""

    def __init__(self, console: Console, stream: TextIO) -> None:
        from rich.live import Live

        self._console, self._stream = console, stream
        self._board = Board()
        self._live = Live(get_renderable=self._drawn, console=console, refresh_per_second=4, transient=True)
        self._run: View | None = None

    def __enter__(self) -> SearchTable:
        self._live.start()
        return self

    def __exit__(self, *exit_: object) -> None:
        self._live.stop()
        if self._run is not None:
            self._run.__exit__(None, None, None)

    def show(self, event: Event) -> None:
        from tunesmith.cli.progress import event_lines
        from tunesmith.selection.study import Told

        if self._run is not None:
            self._run.show(event)
            return
        before = self._board.trying
        self._board.show(event)
        if isinstance(event, Told) or event.kind in ("step", "judged"):
            return
        lines = event_lines(event, self._console.width)
        if lines:
            self._console.print("\n".join(lines), style="yellow" if event.kind == "warned" else "", soft_wrap=True)
        if before and not self._board.trying:  # the winner's turn
            self._live.stop()
            self._console.print("\n".join(self._board.table(self._console.width)), soft_wrap=True)
            self._run = view_for(self._stream, json_lines=False)
            self._run.__enter__()

    def _drawn(self) -> Any:
        from rich.text import Text

        width = max(self._console.width - 1, 1)
        return Text("\n".join(self._board.lines(width)), style="cyan", no_wrap=True, overflow="crop")


class Board:
    """What the live table shows, as lines for any width."""

    def __init__(self) -> None:
        self.trying = False
        self._told: list[Told] = []
        self._now: Told | None = None
        self._steps = ""
        self._judged = ""

    def show(self, event: Event) -> None:
        from tunesmith.selection.study import Known, Told
        from tunesmith.training.events import StepDone
        from tunesmith.trying import Judged

        self.trying = _trying(event, self.trying)
        if isinstance(event, Told):
            self._steps = self._judged = ""
            self._now = event if event.state == "running" else None
            if event.state != "running":
                self._told.append(event)
        elif isinstance(event, Known):
            self._told += event.trials
        elif isinstance(event, StepDone):
            self._steps = f"step {event.step}/{event.steps}"
        elif isinstance(event, Judged):
            self._judged = f"{event.metric} {event.value:.4f}"

    def lines(self, width: int) -> list[str]:
        """The table, and what is under way."""
        now = []
        if self._now is not None:
            facts = [f"trial {self._now.number}", self._steps, self._judged, settings(self._now)]
            now = ["  ".join(fact for fact in facts if fact)[:width]]
        return [*self.table(width), *now] if now or self._told else ["preparing"[:width]]

    def table(self, width: int) -> list[str]:
        """The best trials, one a line, as much of each as fits."""
        from tunesmith.selection.study import best_of

        best = best_of(self._told)
        if not best:
            return []
        metric = best[0].judges[0]
        rows = [f"{one.number:>5}  {one.metrics[metric]:<10.4g}  {settings(one)}" for one in best[:SHOWN]]
        return [line[:width] for line in (f"trial  {metric:<10}  {len(self._told)} tried", *rows)]


def _trying(event: Event, before: bool) -> bool:
    """Whether what comes next are trials: from the first one on to the winner."""
    from tunesmith.selection.study import Told
    from tunesmith.training.events import Note

    if isinstance(event, Told):
        return True
    return before and not (isinstance(event, Note) and event.topic == "winner")


def settings(told: Told) -> str:
    """The values of a trial, with the last parts of their keys."""
    from tunesmith.selection.space import shown

    return " ".join(f"{key.rpartition('.')[2]}={shown(value)}" for key, value in told.values.items())


def trial_lines(told: Told, width: int) -> list[str]:
    """How a trial ended, and which is the best so far."""
    import textwrap

    from tunesmith.cli.progress import clock_text

    figures = " ".join(f"{name} {told.metrics[name]:.4f}" for name in told.judges if name in told.metrics)
    again = " (taken up again)" if told.again else ""
    facts = [f"trial {told.number} {told.state}{again}", figures, settings(told), clock_text(told.seconds)]
    if told.best >= 0:
        facts.append("the best so far" if told.best == told.number else f"best: trial {told.best}")
    if told.why:
        facts.append(told.why)
    line = "  ".join(fact for fact in facts if fact)
    return textwrap.wrap(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
