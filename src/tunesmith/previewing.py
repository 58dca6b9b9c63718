"""What rows become before a model sees them: the tokens it reads, what was cut, and what is to be learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.encode import IGNORED, Example, Text
from tunesmith.data.images import Picture
from tunesmith.preparing import Prepared, fitted, prepare_with_base
from tunesmith.recipe import Recipe
from tunesmith.tasks.base import Labels, Task

if TYPE_CHECKING:
    from tunesmith.models.processor import Processor

CUT_SHOWN = 20  # tokens shown of those that did not fit


@dataclass(frozen=True)
class PreviewedRow:
    """One training row."""

    place: str  # "train.csv:12"; of a picture with the path of its file
    target: str  # as it was read
    learned: str  # the numbers that the loss compares with
    tokens: tuple[str, ...]  # what the model reads, special tokens included
    cut: tuple[str, ...]  # the first of the tokens that did not fit
    cut_count: int
    trained: tuple[bool, ...] = ()  # of each token whether it is learned, where what is learned are the tokens
    picture: bool = False  # whether what is read is a picture: then `tokens` says its size, and there are no tokens


@dataclass(frozen=True)
class Preview:
    lines: tuple[str, ...]  # what was found of columns, splits, task, and in the rows
    rows: tuple[PreviewedRow, ...]
    limit: int | None  # tokens kept of a row; None where there is no limit
    findings: tuple[str, ...]  # of encoding: how much is cut


def preview(recipe: Recipe, count: int) -> Preview:
    """The first `count` training rows, encoded as a run would. Reads the base's tokenizer and its weights' shapes.

    Raises DataError, RecipeError and ModelError as a run would.
    """
    from tunesmith.assembly import method_of
    from tunesmith.models.backbone import load_backbone
    from tunesmith.models.resolve import kind_of, resolve
    from tunesmith.models.text import NO_LIMIT

    prepared = prepare_with_base(recipe)
    source = resolve(recipe.model)
    prepared.task.check_base(source.name, kind_of(source))
    processor = load_backbone(source).processor
    processor.reserve(method_of(recipe).tokens)
    widened = prepared.task.widen(processor, prepared.texts("train"))
    prepared, encoded = fitted(prepared, processor, recipe.training.max_length)
    rows = []
    for example in encoded.examples["train"][:count]:
        read = [token for side in example.sides for token in processor.tokens(side)]
        if example.rest:
            rest = processor.tokens({"input_ids": list(example.rest)})
        else:
            cut = example.cut + example.second_cut
            rest = _left_out(_whole(prepared, processor, example), read) if cut else []
        trained = tuple(item != IGNORED for item in example.target) if prepared.task.learns_tokens else ()
        # Where what is learned is a text of its own, it comes last, and what is read before it teaches nothing.
        trained = (False,) * (len(read) - len(trained)) + trained if trained else ()
        rows.append(
            PreviewedRow(
                _place(prepared, example.source),
                prepared.target.name(prepared.truth("train")[example.source]),
                f"{sum(trained)} of {len(trained)} tokens"
                if trained
                else _learned(prepared.task, example, read, prepared.labels),
                tuple(read),
                tuple(rest[:CUT_SHOWN]),
                example.cut + example.second_cut,
                trained,
                processor.pictures,
            )
        )
    lines = tuple(line for note in prepared.notes for line in _noted(note.topic, note.lines, prepared))
    lines += (f"tokens: {widened}",) if widened else ()
    findings = (*(finding.message for finding in encoded.findings), *encoded.remarks)
    return Preview(lines, tuple(rows), encoded.limit if encoded.limit < NO_LIMIT else None, findings)


def _place(prepared: Prepared, row: int) -> str:
    place, text = prepared.splits.train.place(row), prepared.texts("train")[row]
    return f"{place} {text.file}" if isinstance(text, Picture) and text.file is not None else place


def _noted(topic: str, lines: tuple[str, ...], prepared: Prepared) -> list[str]:
    """Of the columns only how they were found: the rows follow as the model reads them."""
    kept = lines[:1] if topic == "columns" else lines
    return [line if line.startswith(topic) else f"{topic}: {line}" for line in kept]


def _left_out(whole: list[str], read: list[str]) -> list[str]:
    """Tokens of `whole` that `read`, cut at several places perhaps, does not hold, in order."""
    rest, place = [], 0
    for token in whole:
        if place < len(read) and read[place] == token:
            place += 1
        else:
            rest.append(token)
    return rest


def _whole(prepared: Prepared, processor: Processor, example: Example) -> list[str]:
    """The tokens of a training row, uncut."""
    text: Text = prepared.texts("train")[example.source]
    if example.second is None:
        return processor.tokens(processor.encode(text, example.length + example.cut)[0])
    if isinstance(text, str):  # the second text is what is learned
        limit, truth = example.length + example.cut + example.second_cut, prepared.truth("train")[example.source]
        (uncut,) = prepared.task.encode([text], [truth], prepared.labels, processor, limit)
        return [token for side in uncut.sides for token in processor.tokens(side)]
    return [
        token for part in text for token in processor.tokens(processor.encode(part, example.length + example.cut)[0])
    ]


def _learned(task: Task, example: Example, read: list[str], labels: Labels) -> str:
    told = task.shows(example, read, labels)
    if told is not None:
        return told
    target = example.target
    if example.window is not None:
        tags = [(read[place], labels.names[target[place]]) for place in example.window.places]
        return ", ".join(f"{token}={tag}" for token, tag in tags)
    if isinstance(target, int):
        return f'output {target + 1} of {len(labels.names)}, "{labels.names[target]}", is right'
    if len(target) != len(labels.names):  # of texts that belong together: what tells equal ones from others
        return labels.names[0]
    if labels.standardised:
        return ", ".join(
            f'"{name}" = {value * scale + center:.4g}, learned standardised as {value:.3g}'
            for name, value, center, scale in zip(labels.names, target, labels.center, labels.scale, strict=True)
        )
    named = [f'"{name}" = {value:.3g}' for name, value in zip(labels.names, target, strict=True) if value != 0]
    rest = len(target) - len(named)
    return ", ".join([*named, f"{rest} outputs = 0"] if rest else named)
