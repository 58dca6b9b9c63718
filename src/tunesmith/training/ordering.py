"""Which rows make up each step, as a recipe asks: so many of them, or as many as hold so many tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tunesmith.data.encode import Example
from tunesmith.data.order import LengthOrder, Order
from tunesmith.data.stored import measures
from tunesmith.data.token_order import TokenOrder
from tunesmith.errors import RecipeError
from tunesmith.recipe import Derived, TrainingSpec
from tunesmith.tasks.base import Task


def check_batches(task: Task, training: TrainingSpec) -> None:
    """Raises RecipeError where `training.batch_tokens` does not go with what is learned."""
    if training.batch_tokens is None:
        return
    if task.reads_pictures:
        why = "pictures have no tokens, and are all of one size"
    elif task.joint:
        why = (
            f"task {task.part_name()} tells each row from the others of its step, so that how much a row teaches would "
            "depend on how long those are"
        )
    elif type(task).order is not Task.order:
        why = f"task {task.part_name()} draws its batches in a way of its own"
    else:
        return
    raise RecipeError(f"training.batch_tokens: {why}; give training.batch_size")


def order_of(
    task: Task, examples: Sequence[Example], targets: Sequence[Any], training: TrainingSpec, seed: int
) -> Order:
    """The batches of a run. `targets` are those of the rows of the table that `examples` were made from."""
    read, similar = measures(examples), training.batches == "similar"
    lengths = read.lengths.tolist()
    if training.batch_tokens is not None:
        texts = len(examples[0].sides)  # read apart, each with as much filler
        return TokenOrder(tuple(lengths), max(1, training.batch_tokens // texts), seed, similar)
    assert training.batch_size is not None, "checked with the recipe"
    order = task.order(lengths, [targets[row] for row in read.sources], training.batch_size, seed)
    return replace(order, similar=similar) if isinstance(order, LengthOrder) else order


def steps_in(training: TrainingSpec, epochs: int, rows: int, order: Order | None) -> int:
    """Optimizer steps of so many epochs of `rows`; where each holds so many tokens, as `order` counts them."""
    if training.batch_size is not None:
        return epochs * -(-rows // training.batch_size)
    assert order is not None, "what a step holds depends on the rows"
    return order.first(epochs)


def batches_told(order: Order, training: TrainingSpec) -> list[Derived]:
    """What `training.batch_tokens` comes to, where it is given: rows a step, steps, and which steps hold more."""
    epochs = training.epochs
    if not isinstance(order, TokenOrder) or epochs == "auto" or epochs == 0:
        return []
    steps, rows, longer = order.first(epochs), len(order.lengths), order.longer
    why = f"{epochs * rows / steps:.1f} rows a step on the mean, {steps:,} steps in {epochs} epochs"
    if longer:
        few = f"1 of {rows:,} rows is longer by itself, and is a step of its own"
        many = f"{longer:,} of {rows:,} rows are longer by themselves, and each is a step of its own"
        why += f"; {few if longer == 1 else many}"
    return [Derived("training.batch_tokens", training.batch_tokens, why)]
