"""Predictions for many rows: in the order given, the loss of all of them, and batches of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tunesmith.data.encode import Batch, Example
from tunesmith.errors import TrainingError
from tunesmith.evaluation import infer as module
from tunesmith.evaluation.infer import infer
from tunesmith.tasks.base import Labels
from tunesmith.tasks.classification import Classification

if TYPE_CHECKING:
    from torch import Tensor

LENGTHS = [3, 900, 5, 2500, 2, *[40] * 150]
LABELS = Labels(("a", "b", "c"), (50, 50, 55))


def test_rows_in_order_and_batches_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    torch.manual_seed(0)
    logits = torch.randn(len(LENGTHS), 3)
    examples = [Example(row, {"input_ids": [1] * length}, row % 3) for row, length in enumerate(LENGTHS)]
    shapes: list[tuple[int, int]] = []

    def forward(batch: Batch) -> Tensor:
        shapes.append(tuple(batch.inputs["input_ids"].shape))  # type: ignore[arg-type]
        return logits[list(batch.rows)]

    found, loss = infer(forward, Classification(), examples, LABELS, {"input_ids": 0}, "cpu")
    assert [prediction.row for prediction in found] == list(range(len(LENGTHS)))
    assert [prediction.value for prediction in found] == [LABELS.names[best] for best in logits.argmax(dim=1)]
    target = torch.tensor([example.target for example in examples])
    assert loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits, target)), rel=1e-6)
    assert shapes[:3] == [(1, 2500), (2, 900), (51, 40)]
    assert all(rows == 1 or rows * longest <= 2048 for rows, longest in shapes)

    shapes.clear()
    monkeypatch.setattr(module, "CPU_TOKENS", 100)
    again, _ = infer(forward, Classification(), examples, LABELS, {"input_ids": 0}, "cpu")
    assert again == found
    assert max(rows for rows, _ in shapes) == 3 and (2, 40) in shapes


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_output_that_is_not_finite_is_no_first_class(bad: float) -> None:
    import torch

    logits = torch.zeros(6, 3)
    logits[[1, 4], 2] = bad
    examples = [Example(row, {"input_ids": [1] * (row + 1)}, None) for row in range(6)]
    with pytest.raises(TrainingError, match=r"not finite for 2 of 6 rows: rows.csv:3, 6;"):
        infer(
            lambda batch: logits[list(batch.rows)], Classification(), examples, LABELS, {"input_ids": 0}, "cpu",
            lambda row: f"rows.csv:{row + 2}",
        )  # fmt: skip
