"""`tunesmith plan`: what fine-tuning would take, method by method, before anything is trained."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

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
from tunesmith.cli.progress import json_line, view_for
from tunesmith.errors import RecipeError, TrainingError

if TYPE_CHECKING:
    from tunesmith.planning import Prospect
    from tunesmith.recipe import Recipe
    from tunesmith.training.events import Note


def plan(
    data: DataTable = None,
    model: Model = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            metavar="A,B",
            help=f"Which to weigh, of {part_names('methods')}.  [default: head,layers,lora,full]",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    text: TextColumn = None,
    pair: PairColumn = None,
    label: LabelColumns = None,
    group: GroupColumn = None,
    time: TimeColumn = None,
    settings: Settings = None,
    recipe_file: RecipeFile = None,
    json_lines: Json = False,
) -> None:
    """Say what training would take: time, memory, electricity.

    Each does a few real steps on this machine, the longest batch among them, and all else that a run does, on few rows.
    Nothing is kept of that.
    """
    flags = Flags(
        data=data, model=model, task=task, text=text, pair=pair, label=label_of(label), group=group, time=time
    )
    recipe = recipe_of(recipe_file, flags, settings or (), "plan")
    from tunesmith.planning import METHODS, prospects, with_methods

    names = METHODS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    if not names:
        raise RecipeError("--methods: names no method; leave it out, or give some, such as head,lora")
    recipes = with_methods(recipe, names)
    found: list[Prospect] = []
    with plain_warnings(), view_for(sys.stdout, json_lines) as view:
        for prospect in prospects(recipes):
            found.append(prospect)
            if json_lines:
                print(json_line(plain_of(prospect)), flush=True)
            else:
                view.show(said_of(prospect, recipe))
        if not json_lines:
            view.show(side_by_side(found))
    if not any(prospect.fits for prospect in found):
        raise TrainingError(*no_way(found, recipe))


def said_of(prospect: Prospect, recipe: Recipe) -> Note:
    """What one method would take, part by part."""
    from tunesmith.evaluation.wording import duration, memory, short_count
    from tunesmith.training.events import Note

    if prospect.memory is None:
        return Note(prospect.method, ("cannot be done so:", *prospect.problems))
    most = sorted((prospect.phases or {}).items(), key=lambda item: -item[1].seconds)[:4]
    parts, of = prospect.memory, "GPU " if prospect.on_gpu else ""
    named = (
        ("libraries", parts.libraries),
        ("rows", parts.data),
        ("weights", parts.weights),
        ("gradients", parts.gradients),
        ("optimizer", parts.states),
        ("activations of the longest batch and all else", parts.rest),
    )
    lines = [
        f"trains {short_count(prospect.trainable)} of {short_count(prospect.total)} parameters in {prospect.precision}, "
        f"{prospect.steps:,} steps in {prospect.epochs} epochs",
        f"time: {', '.join(f'{name} {duration(time.seconds)}' for name, time in most)}",
        f"{of}memory: {', '.join(f'{name} {memory(size)}' for name, size in named if size >= 0.5)}",
    ]
    if prospect.on_gpu:
        lines.append(f"memory of the machine: {memory(prospect.process_mb)}")
    if prospect.beyond:
        lines.append(f"beyond {' and '.join(prospect.beyond)}: training would end early, or be refused")
    for kind, needed, free in prospect.short:
        advice = _advice(prospect, kind, recipe)
        lines.append(f"{memory(needed)} of {kind} do not fit in the {memory(free)} that are free: {advice}")
    return Note(prospect.method, tuple(lines))


def _advice(prospect: Prospect, kind: str, recipe: Recipe) -> str:
    """Beside a GPU the machine holds libraries and rows, which no setting of training makes smaller."""
    if prospect.on_gpu and kind == "memory":
        return "end other programs, or give fewer rows"
    return less(recipe)


def less(recipe: Recipe) -> str:
    """What to set for less memory."""
    again = "training.checkpointing=true, " if recipe.training.checkpointing is not True else ""
    return f"set {again}a smaller {recipe.training.at_once} or training.max_length, or train less of the model"


def side_by_side(found: list[Prospect]) -> Note:
    """One line a method."""
    from tunesmith.evaluation.cost import watt_hours
    from tunesmith.evaluation.terminal import aligned
    from tunesmith.evaluation.wording import duration, memory
    from tunesmith.training.events import Note

    money = any(prospect.money is not None for prospect in found)
    held = "GPU memory" if any(prospect.on_gpu for prospect in found) else "memory"
    headings = ("method", "time", "CPU time", held, "electricity", *(["money"] if money else []), "fits")
    table: list[tuple[str, ...]] = [headings]
    for prospect in found:
        if prospect.memory is None or prospect.energy is None:
            table.append((prospect.method, *["-"] * (len(table[0]) - 2), "no"))
            continue
        price = [] if prospect.money is None else [f"{prospect.money.amount:.2f} {prospect.money.currency}".strip()]
        table.append(
            (
                prospect.method,
                duration(prospect.time.seconds),
                duration(prospect.time.cpu_seconds),
                memory(prospect.memory.peak),
                watt_hours(prospect.energy.wh, prospect.energy.is_estimate),
                *price,
                "yes" if prospect.fits else "no",
            )
        )
    lines = (
        *aligned(table),
        "told from runs in small, if all epochs are done; without the models of further seeds, folds or parts of the rows",
    )
    return Note("plan", lines, tuple(table))


def no_way(found: list[Prospect], recipe: Recipe) -> list[str]:
    """Why no method can be taken, each with its reason."""
    from tunesmith.evaluation.wording import memory

    said = []
    for prospect in found:
        if prospect.memory is None:
            said += [f"{prospect.method}: {line}" for line in prospect.problems]
        else:
            if prospect.beyond:
                said.append(f"{prospect.method}: beyond {' and '.join(prospect.beyond)}; raise it, or train less")
                continue
            for kind, needed, free in prospect.short:
                advice = _advice(prospect, kind, recipe)
                said.append(
                    f"{prospect.method}: needs {memory(needed)} of {kind}, and {memory(free)} are free; {advice}"
                )
    return list(dict.fromkeys(said))


def plain_of(prospect: Prospect) -> dict[str, object]:
    """A line of --json."""
    from dataclasses import asdict

    phases = {} if prospect.phases is None else prospect.phases
    return {
        "event": "prospect",
        **asdict(prospect),
        "phases": [
            {"name": name, "seconds": took.seconds, "cpu_seconds": took.cpu_seconds} for name, took in phases.items()
        ],
        "seconds": prospect.time.seconds,
        "cpu_seconds": prospect.time.cpu_seconds,
        "peak_mb": None if prospect.memory is None else prospect.memory.peak,
        "fits": prospect.fits,
    }
