"""The trial runs beside what the optimizer will hold, and leaves nothing behind."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shortruns import METHODS, Bench, bench, recipe_for
from tunesmith.data.encode import Batch
from tunesmith.errors import TrainingError
from tunesmith.training import preflight
from tunesmith.training.preflight import fitting_micro_batch
from tunesmith.training.source import FixedRows

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]


@pytest.fixture
def reserved(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Everything that the preflight has ever put aside; gone entries are dead."""
    kept: list[weakref.ref[Tensor]] = []
    reserve = preflight._reserve

    def watched(*args: Any, **kwargs: Any) -> list[Tensor]:
        tensors = reserve(*args, **kwargs)
        kept.extend(weakref.ref(tensor) for tensor in tensors)
        return tensors

    monkeypatch.setattr(preflight, "_reserve", watched)
    return kept


def _held(reserved: list[weakref.ref[Tensor]]) -> int:
    alive = [tensor for tensor in (reference() for reference in reserved) if tensor is not None]
    return sum(tensor.nbytes for tensor in alive)


def _fitting(made: Bench, reserved: list[weakref.ref[Tensor]], room: int, row: int, sizes: list[int]) -> int:
    """The preflight's answer where `room` bytes are left, and each row needs `row` of them."""
    import torch

    run = made.run

    def loss(output: Tensor, batch: Batch) -> Any:
        if len(batch.rows) * row + _held(reserved) > room:
            raise torch.OutOfMemoryError("out of memory")
        return run.task.loss(output, batch)

    def source_of(size: int) -> FixedRows:
        return FixedRows(run.source.examples, run.source.order, size, run.source.pad, "cpu")

    task: Any = SimpleNamespace(loss=loss)
    return fitting_micro_batch(run.network, task, run.plan, run.trunk, source_of, sizes)[0]


@pytest.mark.parametrize("method", ["full", "layers"])
def test_a_batch_must_fit_beside_the_moments(
    method: str, reserved: list[weakref.ref[Tensor]], model_folder: Folder, table_file: Path, tmp_path: Path
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file, METHODS[method]), tmp_path)  # 24 rows a step
    network = made.run.network
    trains = 4 * sum(value.numel() for value in network.parameters() if value.requires_grad)  # bytes
    row = trains // 2
    assert _fitting(made, reserved, 2 * trains + 24 * row, row, [24, 12]) == 24
    assert _fitting(made, reserved, 2 * trains + 24 * row - 1, row, [24, 12]) == 12
    # Several micro-batches also keep the gradient of those before.
    assert _fitting(made, reserved, 3 * trains + 6 * row, row, [12, 6, 3, 1]) == 6
    assert _fitting(made, reserved, 3 * trains + 6 * row - 1, row, [12, 6, 3, 1]) == 3
    with pytest.raises(TrainingError, match="not even 1 row"):
        _fitting(made, reserved, 3 * trains + row - 1, row, [24, 1])
    assert _held(reserved) == 0
    assert all(value.grad is None for value in network.parameters())


def test_moments_that_no_memory_is_left_for_are_refused(
    model_folder: Folder, table_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench(recipe_for(model_folder("bert"), table_file), tmp_path)
    run = made.run
    trains = 4 * sum(value.numel() for value in run.network.parameters() if value.requires_grad)

    def size_with(free: int) -> int:
        monkeypatch.setattr(preflight, "free_memory", lambda: free)
        return fitting_micro_batch(run.network, run.task, run.plan, run.trunk, lambda size: run.source, [10])[0]

    assert size_with(3 * trains) == 10
    with pytest.raises(TrainingError, match=r"not even 10 row\(s\) of \d+ tokens fit \(0.0 GB of memory free\)"):
        size_with(3 * trains - 1)
