"""Less and less memory, until activations are recomputed by themselves: whether that comes before nothing fits at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from tunesmith.data.encode import Example
from tunesmith.data.order import LengthOrder
from tunesmith.methods.base import Plan
from tunesmith.models.network import Network
from tunesmith.recipe import TrainingSpec
from tunesmith.tasks.base import Task
from tunesmith.training import preflight
from tunesmith.training.recomputing import fitting
from tunesmith.training.source import FixedRows
from tunesmith.training.trunk import Live

from . import card
from .rows import SEED

LESS = 0.93  # share of the memory before that is left at each turn
MOST_ON_CPU = 1 << 30


def recomputed_by_need(
    network: Network, task: Task, plan: Plan, examples: list[Example], pad: dict[str, int], device: str
) -> str:
    """ "" where the preflight turned it on; else what came instead."""
    order = LengthOrder(tuple(row.length for row in examples), len(examples), SEED)
    most, asked = _most(device), TrainingSpec(epochs=1, batch_size=len(examples), checkpointing="auto")

    def source_of(size: int) -> FixedRows:
        return FixedRows(examples, order, size, pad, device)

    while most > 1 << 16:
        card.empty(device)
        with limited(most, device):
            try:
                found, _, _ = fitting(network, task, plan, Live(network, ""), source_of, [1], asked)
            except preflight.TooLarge as error:
                return str(error)
        if found.checkpointing:
            return ""
        most = int(most * LESS)
    return "everything fits, however little memory there is"


@contextmanager
def limited(most: int, device: str) -> Iterator[None]:
    """Inside no more than so many bytes are given out; on a CPU no more are said to be free."""
    if device != card.CUDA:
        with mock.patch.object(preflight, "free_memory", lambda limit=None: most):
            yield
        return
    torch.cuda.set_per_process_memory_fraction(min(1.0, most / torch.cuda.get_device_properties(0).total_memory))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _most(device: str) -> int:
    """Bytes to begin with: of a GPU 64 GB, or what it has."""
    return MOST_ON_CPU if device != card.CUDA else min(1 << 36, torch.cuda.get_device_properties(0).total_memory)
