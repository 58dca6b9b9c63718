"""Where a family's own forward reaches its last linear map, and how to leave it there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from tunesmith.models.layout import example_inputs


class Reached(Exception):
    """Carries what reached the tap out of the model's forward."""

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


def leave_at(turn: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A hook that ends the forward at the module's call number `turn`, counted from 0."""
    left = iter(range(turn, -1, -1))

    def leave(module: nn.Module, args: tuple[Any, ...]) -> None:
        if next(left) == 0:
            raise Reached(args[0])

    return leave


def last_steps(model: PreTrainedModel) -> tuple[str, str | None, int]:
    """The last linear map that a forward calls, the dropout whose result it reads (or None), and at which call.

    The number of the call counts, from 0, those of the dropout (of the map where there is no dropout): roberta's
    classifier uses one dropout module twice.
    """
    names = {module: name for name, module in model.named_modules()}
    inside = set(model.base_model.modules())
    dropped: list[tuple[nn.Module, Any]] = []
    linears: list[tuple[nn.Module, Any]] = []
    handles = []
    for module in names:
        if module not in inside and isinstance(module, nn.Dropout):
            handles.append(module.register_forward_hook(lambda m, args, out: dropped.append((m, out))))
        elif module not in inside and isinstance(module, nn.Linear):
            handles.append(module.register_forward_pre_hook(lambda m, args: linears.append((m, args[0]))))
    try:
        with torch.no_grad():
            model(**example_inputs(model.base_model))  # in evaluation mode a dropout gives back what it was given
    finally:
        for handle in handles:
            handle.remove()
    output, reads = linears[-1]
    last, given = dropped[-1] if dropped else (None, reads)
    if last is None or given.shape != reads.shape or given.data_ptr() != reads.data_ptr():
        return names[output], None, sum(module is output for module, _ in linears) - 1
    return names[output], names[last], sum(module is last for module, _ in dropped) - 1
