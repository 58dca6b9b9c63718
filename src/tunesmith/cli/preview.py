"""`tunesmith preview`: what rows become, before any training."""

from __future__ import annotations

import os
import sys
from itertools import groupby
from operator import itemgetter
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated

import typer

from tunesmith.cli.options import (
    DataTable,
    Flags,
    Json,
    LabelColumns,
    Model,
    PairColumn,
    RecipeFile,
    Settings,
    TaskName,
    TextColumn,
    label_of,
    plain_warnings,
    recipe_of,
)
from tunesmith.cli.progress import json_line
from tunesmith.data.table import shown

if TYPE_CHECKING:
    from tunesmith.previewing import Preview, PreviewedRow

CUT, PLAIN = "\x1b[31m", "\x1b[0m"
TRAINED, READ = "\x1b[1;32m", "\x1b[2m"
NARROWEST = 20  # columns
TITLE = 60  # letters of what is learned, over a row


def preview(
    data: DataTable = None,
    model: Model = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    settings: Settings = None,
    recipe_file: RecipeFile = None,
    rows: Annotated[int, typer.Option("--rows", min=1, metavar="N", help="Training rows to show.")] = 3,
    json_lines: Json = False,
) -> None:
    """Show what rows become: tokens read, tokens cut, what is learned."""
    recipe = recipe_of(
        recipe_file,
        Flags(data=data, model=model, task=task, text=text, pair=pair, label=label_of(label)),
        settings or (),
        "preview",
    )
    from tunesmith.previewing import preview as found_of

    with plain_warnings():
        found = found_of(recipe, rows)
    if json_lines:
        for row in found.rows:
            print(json_line(vars(row)))
        return
    screen = sys.stdout.isatty()
    width = get_terminal_size().columns if screen else None
    print("\n".join(preview_lines(found, screen and not os.environ.get("NO_COLOR"), width)))


def preview_lines(found: Preview, colours: bool, width: int | None = None) -> list[str]:
    """Everything as lines for a terminal; cut tokens in red, or in square brackets without `colours`.

    Where what is learned are the tokens themselves these are bold green, or in braces, and the others dim. `width`: columns
    at which rows of tokens are broken.
    """
    length = [] if found.limit is None else [f"length: at most {found.limit} tokens of a row are read"]
    lines = [*found.lines, *length, *found.findings]
    if any(row.trained for row in found.rows):
        lines += ["", _legend(colours)]
    for row in found.rows:
        if row.trained:
            lines += ["", f"{row.place}  [{shown(row.target, TITLE)}]", *_token_lines(row, colours, width)]
        else:
            lines += ["", f"{row.place}  [{row.target}]", *_row_lines(row, colours)]
    return lines


def _legend(colours: bool) -> str:
    if not colours:
        return "legend: {learned} read only [cut]"
    return f"legend: {TRAINED}learned{PLAIN} {READ}read only{PLAIN} {CUT}cut{PLAIN}"


def _token_lines(row: PreviewedRow, colours: bool, width: int | None) -> list[str]:
    """The tokens of a row in runs of one kind, each run marked."""
    pieces: list[tuple[str, str]] = []  # (kind, word): the marks of a run belong to its first and last token
    kinds = [TRAINED if learned else READ for learned in row.trained] + [CUT] * len(row.cut)
    tokens = [*row.tokens, *row.cut]
    if row.cut_count > len(row.cut):
        kinds, tokens = [*kinds, CUT], [*tokens, f"... {row.cut_count - len(row.cut)} more"]
    marks = {TRAINED: ("{", "}"), READ: ("", ""), CUT: ("[", "]")}
    for place, (kind, token) in enumerate(zip(kinds, tokens, strict=True)):
        first = place == 0 or kinds[place - 1] != kind
        last = place + 1 == len(kinds) or kinds[place + 1] != kind
        opened, closed = ("", "") if colours else marks[kind]
        pieces.append((kind, (opened if first else "") + token + (closed if last else "")))
    said = f"  {row.learned} learned" + (f", {row.cut_count} cut" if row.cut_count else "") + ":"
    return [
        said,
        *("  " + line for line in _broken(pieces, colours, None if width is None else max(width, NARROWEST) - 2)),
    ]


def _broken(pieces: list[tuple[str, str]], colours: bool, width: int | None) -> list[str]:
    """Words with spaces between in lines of at most `width` columns (a longer word alone), each line coloured by itself."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 0
    for kind, word in pieces:
        if lines[-1] and width is not None and used + 1 + len(word) > width:
            lines.append([])
            used = 0
        used += len(word) + (1 if lines[-1] else 0)
        lines[-1].append((kind, word))
    if not colours:
        return [" ".join(word for _, word in line) for line in lines]
    runs = [
        [(kind, " ".join(word for _, word in run)) for kind, run in groupby(line, key=itemgetter(0))] for line in lines
    ]
    return [" ".join(f"{kind}{words}{PLAIN}" for kind, words in line) for line in runs]


def _row_lines(row: PreviewedRow, colours: bool) -> list[str]:
    counted = "" if row.picture else f" ({len(row.tokens)} token{'' if len(row.tokens) == 1 else 's'})"
    said = [f"  read{counted}: {' '.join(row.tokens)}"]
    if row.cut_count:
        more = " ..." if row.cut_count > len(row.cut) else ""
        cut = " ".join(row.cut) + more
        said.append(f"  cut ({row.cut_count}): " + (f"{CUT}{cut}{PLAIN}" if colours else f"[{cut}]"))
    return [*said, f"  learned: {row.learned}"]
