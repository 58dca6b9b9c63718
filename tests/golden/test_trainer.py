"""Hugging Face's Trainer, given the same network, batches and rates, takes the same 50 steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shortruns import Bench, bench, recipe_for, write_rows
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train
from tunesmith.training.schedule import warmup_linear

ROWS, BATCH, STEPS, RATE = 160, 16, 50, 3e-3
SETTINGS = {
    "training.epochs": STEPS * BATCH // ROWS,
    "training.batch_size": BATCH,
    "training.micro_batch": BATCH,
    "training.dropout": 0.0,
    "training.rate": RATE,
    "training.head_rate": RATE,
    "training.weight_decay": 0.0,
    "training.probe": False,
    "data.validation": 0.0,
    "data.test": 0.0,
    "data.leaks": "keep",
}


class WithLoss(nn.Module):
    """A network as the Trainer wants one: it gives the loss, then its outputs."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, labels: Tensor) -> Any:
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
        out = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(out, labels), "logits": out}


def by_the_trainer(network: nn.Module, found: Bench, folder: Path, rate: float = RATE) -> list[float]:
    """Losses of its steps over the same micro-batches, in float32."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    batches = [found.run.source.batch(step)[0] for step in range(STEPS)]
    rows = [{**batch.inputs, "labels": batch.target} for batch in batches]
    model = WithLoss(network)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_linear(min(step, STEPS - 1), STEPS, 0.1)
    )
    losses: list[float] = []

    class Heard(TrainerCallback):
        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            losses.extend(value for key, value in (logs or {}).items() if key == "loss")

    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=1, num_train_epochs=1, max_grad_norm=1.0, use_cpu=True,
        save_strategy="no", disable_tqdm=True, logging_steps=1, train_sampling_strategy="sequential", report_to=[],
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=lambda one: one[0],
        optimizers=(optimizer, schedule), callbacks=[Heard()],
    )  # fmt: skip
    trainer.train()
    return losses


@pytest.fixture(scope="module")
def both(
    model_folder: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[float], Callable[..., list[float]]]:
    """Tunesmith's losses, and how to get the Trainer's."""
    folder = tmp_path_factory.mktemp("trainer")
    table = write_rows(folder / "rows.csv", ROWS)
    found = bench(recipe_for(model_folder("bert"), table, "full", SETTINGS), folder / "run")
    start = copy.deepcopy(found.run.network)
    losses = [event.loss for event in train(found.run) if isinstance(event, StepDone)]
    return losses, lambda **changed: by_the_trainer(copy.deepcopy(start), found, folder / "out", **changed)


def test_the_same_losses_as_the_trainer_s(both: tuple[list[float], Callable[..., list[float]]]) -> None:
    losses, trainer = both
    assert len(losses) == STEPS and losses[-1] < losses[0] - 0.05, "it learns"
    assert losses == pytest.approx(trainer(), abs=1e-5)


def test_control_another_rate_is_noticed(both: tuple[list[float], Callable[..., list[float]]]) -> None:
    losses, trainer = both
    assert losses != pytest.approx(trainer(rate=0.99 * RATE), abs=1e-5)
