"""`tunesmith preview`: what rows become, before any training."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import (
    Flags,
    Json,
    LabelColumns,
    TextColumn,
    label_of,
    part_names,
    recipe_of,
)
from tunesmith.cli.progress import json_line

if TYPE_CHECKING:
    from tunesmith.previewing import Preview, PreviewedRow

CUT, PLAIN = "\x1b[31m", "\x1b[0m"


def preview(
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="DATA", help="A table (csv, tsv, jsonl, json, parquet), a folder of them, or a hub name."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="A folder, a package that carries a model, or a hub name."),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help=f"What is learned: {part_names('tasks')}.  [default: auto]",
            show_default=False,
        ),
    ] = None,
    text: TextColumn = None,
    pair: Annotated[
        str | None, typer.Option("--pair", metavar="COLUMN", help="Holds a second text, read with the first.")
    ] = None,
    label: LabelColumns = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any recipe key, such as training.max_length=64."),
    ] = None,
    recipe_file: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="A YAML or JSON recipe; flags and --set win over it."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Training rows to show.")] = 3,
    json_lines: Json = False,
) -> None:
    """Show what rows become: tokens read, tokens cut, what is learned."""
    recipe = recipe_of(recipe_file, Flags(data, model, None, task, text, pair, label_of(label)), settings or ())
    from tunesmith.previewing import preview as found_of

    found = found_of(recipe, rows)
    if json_lines:
        for row in found.rows:
            print(json_line(vars(row)))
        return
    print("\n".join(preview_lines(found, colours=sys.stdout.isatty())))


def preview_lines(found: Preview, colours: bool) -> list[str]:
    """Everything as lines for a terminal; cut tokens in red, or in square brackets without `colours`."""
    lines = [*found.lines, f"length: at most {found.limit} tokens of a row are read", *found.findings]
    for row in found.rows:
        lines += ["", f"{row.place}  [{row.target}]", *_row_lines(row, colours)]
    return lines


def _row_lines(row: PreviewedRow, colours: bool) -> list[str]:
    said = [f"  read ({len(row.tokens)} tokens): {' '.join(row.tokens)}"]
    if row.cut_count:
        more = " ..." if row.cut_count > len(row.cut) else ""
        cut = " ".join(row.cut) + more
        said.append(f"  cut ({row.cut_count}): " + (f"{CUT}{cut}{PLAIN}" if colours else f"[{cut}]"))
    return [*said, f"  learned: {row.learned}"]
