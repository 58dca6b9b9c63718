"""Activation checkpointing by need: where the longest batch fits in memory in no other way."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.methods.base import Plan
from tunesmith.recipe import Derived, TrainingSpec
from tunesmith.tasks.base import Task
from tunesmith.training.preflight import TooLarge, fitting_micro_batch
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import Trunk

if TYPE_CHECKING:
    from tunesmith.models.network import Network

KEY = "training.checkpointing"


def settle_recomputing(
    training: TrainingSpec, earlier: Mapping[str, Any], network: Network
) -> tuple[TrainingSpec, list[Derived]]:
    """With what was asked for, or what a resumed run had decided; where activations are recomputed, they are from here on.

    Raises ModelError where that is asked of a base that cannot do it.
    """
    recompute, derived = training.checkpointing, list[Derived]()
    if recompute == "auto" and earlier:  # what was decided for it is among these
        recompute = bool(earlier.get(KEY, False))
        derived = [Derived(KEY, True, "as its training was begun")] if recompute else []
    if recompute is True:
        network.recompute_activations()
    return training.model_copy(update={"checkpointing": recompute}), derived


def fitting(
    network: Network,
    task: Task,
    plan: Plan,
    trunk: Trunk,
    source_of: Callable[[int], FixedRows],
    sizes: list[int],
    training: TrainingSpec,
    most: float | None = None,
) -> tuple[TrainingSpec, str, list[Derived]]:
    """The settings with a micro-batch that fits, why that one, and what was turned on for it.

    Smaller micro-batches come first, since to add up their gradients takes hardly more time; recomputing takes one more
    forward, about a third of a step (Chen 2016, "Training deep nets with sublinear memory cost", section 4.2). most: bytes
    that the process may hold, where it has a limit of its own.

    Raises TrainingError where nothing fits.
    """

    def tried(spec: TrainingSpec) -> tuple[int, str]:
        return fitting_micro_batch(network, task, plan, trunk, source_of, sizes, spec, most)

    derived, recompute = list[Derived](), training.checkpointing is True
    try:
        size, why = tried(training)
    except TooLarge:
        if training.checkpointing != "auto" or not network.recomputable:
            raise
        recompute = True
    if recompute and training.checkpointing == "auto":  # outside of the handler, whose error holds on to what was tried
        gc.collect()
        network.recompute_activations()
        size, why = tried(training.model_copy(update={"checkpointing": True}))
        rows = len(source_of(sizes[-1]).longest_rows)
        what = f"{rows} row{'s' if rows > 1 else ''} at once"
        derived.append(Derived(KEY, True, f"the longest {what} fit in memory only with activations computed twice"))
    return training.model_copy(update={"micro_batch": size, "checkpointing": recompute}), why, derived
