"""`tunesmith rate`: which learning rate to train with, by a few short trainings."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from tunesmith.cli.options import (
    DataTable,
    Flags,
    GroupColumn,
    Json,
    LabelColumns,
    Model,
    PairColumn,
    RecipeFile,
    Settings,
    TaskName,
    TextColumn,
    TimeColumn,
    label_of,
    part_names,
    plain_warnings,
    recipe_of,
)
from tunesmith.cli.progress import JsonView, View, view_for
from tunesmith.cli.train import follow
from tunesmith.errors import ArtifactError, RecipeError

if TYPE_CHECKING:
    from tunesmith.training.events import Event


def rate(
    data: DataTable = None,
    model: Model = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"What may change: {part_names('methods')}.  [default: full]",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    group: GroupColumn = None,
    time: TimeColumn = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", help="Training rows of the first trials.")] = 1_000,
    max_time: Annotated[
        str | None,
        typer.Option("--max-time", metavar="T", help="Begin no trial, and end the last, after 90s, 30m or 2h."),
    ] = None,
    settings: Settings = None,
    recipe_file: RecipeFile = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder of what is tried; one that is there is gone on with.  [default: runs/rate-<data>-<method>]",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="Of every random number.  [default: 0]", show_default=False),
    ] = None,
    json_lines: Json = False,
) -> None:
    """Find the learning rate by a few short trainings.

    From the documented rate of the method outwards, by factors of three, until quality falls on both sides. Another rate is
    taken only where the validation rows can tell that it is better. Test rows are not looked at.
    """
    flags = Flags(
        data=data,
        model=model,
        method=method,
        task=task,
        text=text,
        pair=pair,
        label=label_of(label),
        group=group,
        time=time,
        seed=seed,
    )
    recipe = recipe_of(recipe_file, flags, settings or (), "rate")
    if rows < 1:
        raise RecipeError(f"--rows: at least 1 (given: {rows}); leave it out for 1,000")
    most = _seconds(max_time)
    folder = Path("runs") / f"rate-{Path(recipe.data.path).stem}-{recipe.method_name}" if out is None else out
    _check_out(folder)
    from tunesmith import rating

    words = ["tunesmith", "rate", *sys.argv[2:]] if sys.argv[1:2] == ["rate"] else []
    made = rating.rating(recipe, folder, rows, most, command=shlex.join(words))

    def begin(stop: Any) -> rating.Rating:
        made.stop = stop
        return made

    with plain_warnings():
        ended = follow(begin, json_lines, view_of)
    raise typer.Exit(ended.code)


def _seconds(given: str | None) -> float | None:
    """Raises RecipeError for what is no time."""
    if given is None:
        return None
    from tunesmith.specs import TIMES, number_in

    try:
        found = number_in(TIMES, given)
    except ValueError as error:
        raise RecipeError(f"--max-time: {error} (given: {given})") from None
    if found <= 0:
        raise RecipeError(f"--max-time: more than 0 is expected (given: {given})")
    return found


def _check_out(out: Path) -> None:
    """Raises ArtifactError where rates can neither be tried nor gone on with in `out`."""
    if out.exists() and not out.is_dir():
        raise ArtifactError(f"{out}: is a file, and a folder is needed; name another with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / ".rate.lock").exists():
        raise ArtifactError(f"{out}: holds other files, which could be overwritten; name a new folder with --out")


def view_of(stream: TextIO, json_lines: bool) -> View:
    """Trials as lines, with the steps of the one under way at the bottom of a terminal."""
    return RateJson(stream) if json_lines else RateView(stream)


class RateJson(JsonView):
    """One JSON object a line, without steps."""

    def show(self, event: Event) -> None:
        if event.kind != "step":
            super().show(event)


class RateView:
    """A line a trial, and on a terminal the steps of the one under way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._inner = view_for(stream, json_lines=False)

    def __enter__(self) -> RateView:
        self._inner.__enter__()
        return self

    def __exit__(self, *exit_: Any) -> None:
        self._inner.__exit__(*exit_)

    def show(self, event: Event) -> None:
        from tunesmith.rating import Tried
        from tunesmith.training.events import Note

        if isinstance(event, Tried):
            self._inner.show(Note("tried", (line_of(event),)))
        elif event.kind != "step" or self._stream.isatty():
            self._inner.show(event)


def line_of(tried: Any) -> str:
    """How a trial ended."""
    from tunesmith.cli.progress import clock_text
    from tunesmith.evaluation.wording import metric_title

    facts = [f"rate {tried.rate:.3g}", f"{tried.rows:,} rows"]
    if tried.value is not None:
        facts.append(f"{metric_title(tried.metric)} {tried.value:.4f} ± {tried.error:.4f}")
    if tried.loss is not None:
        facts.append(f"loss {tried.loss:.4f}")
    return "  ".join([*facts, clock_text(tried.seconds), *([tried.why] if tried.why else [])])
