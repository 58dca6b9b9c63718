"""L4: a batch in eight parts equals the batch in one, up to rounding and with no one-sided drift.

The law's other half, that two processes equal one, has no subject yet: there is no distributed runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from shortruns import METHODS, bench, recipe_for
from tunesmith.tasks.base import LossSum
from tunesmith.tasks.classification import Classification
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train

if TYPE_CHECKING:
    from torch import Tensor

Folder = Callable[[str], Path]


def _run(
    method: str, parts: int, model: Path, data: Path, folder: Path, task: Any = None
) -> tuple[list[float], dict[str, Tensor]]:
    settings = {
        "training.batch_size": 24,
        "training.micro_batch": 24 // parts,
        "training.epochs": 6,
        "training.dropout": 0.0,
        "training.rate": 5e-4,
        "training.probe": False,
        "training.cache": "off",
    }
    asked = {**METHODS["lora"], "dropout": 0.0} if method == "lora" else METHODS[method]
    made = bench(recipe_for(model, data, asked, settings), folder)
    if task is not None:
        made.run.task = task
    losses = [event.loss for event in train(made.run) if isinstance(event, StepDone)]
    return losses, {name: value for name, value in made.tensors().items() if name.startswith("parameter/")}


@pytest.mark.parametrize("method", list(METHODS))
def test_eight_parts_equal_one(method: str, model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    model = model_folder("bert")
    one, whole = _run(method, 1, model, table_file, tmp_path / "one")
    eight, split = _run(method, 8, model, table_file, tmp_path / "eight")
    assert len(one) >= 12
    assert eight == pytest.approx(one, abs=2e-5)
    gaps = [a - b for a, b in zip(eight, one, strict=True)]
    assert abs(sum(gaps)) / len(gaps) < 5e-6, "drift to one side"
    assert max(float((whole[name] - split[name]).abs().max()) for name in whole) < 1e-3


class MeanOfMeans(Classification):
    """What many trainers do: each part's mean counts the same, however few rows it has."""

    def loss(self, output: Tensor, batch: Any) -> LossSum:
        import torch

        total, weight, logs = super().loss(output, batch)
        return LossSum(total / weight, torch.ones(()), logs)


def test_control_a_mean_of_means_is_noticed(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    """The last batch of an epoch is smaller, so its last part is: the mean of means weighs those rows more."""
    model = model_folder("bert")
    one, _ = _run("full", 1, model, table_file, tmp_path / "one", MeanOfMeans())
    parts, _ = _run("full", 3, model, table_file, tmp_path / "parts", MeanOfMeans())
    assert parts != pytest.approx(one, abs=2e-5)
