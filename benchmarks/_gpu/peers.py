"""transformers' Trainer, and PEFT with it, on the same rows."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tunesmith.data.encode import IGNORED, Example
from tunesmith.data.packing import POSITIONS
from tunesmith.models.backbone import quiet
from tunesmith.training.preflight import halvings, out_of_memory

from . import card
from .models import ALPHA, DROPOUT, RANK, method_of, model_of
from .rows import SEED, plain
from .works import DECODER, DEFAULTS, HALF, Job, Shape

TARGETS = {  # of PEFT: the linear maps of the blocks, which ours takes too
    "bert": ["query", "key", "value", "dense"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
}


def measure(shape: Shape, job: Job, contender: str, rows: list[Example], device: str) -> dict[str, Any]:
    """Seconds of the steps that count, the mean loss, and how it was done; at the largest micro-batch that fits.

    Raises RuntimeError where not even one row does.
    """
    dtype = torch.bfloat16 if contender == HALF else torch.float32
    for size in halvings(job.amount.batch):
        try:  # a model of its own each time: a Trainer leaves its mark on one
            model = with_method(model_of(shape, device, dtype), shape, job)
            return _trained(model, shape, job, contender, rows, device, size)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        model = None
        card.empty(device)
    raise RuntimeError("out of memory: not even one row fits")


def with_method(model: Any, shape: Shape, job: Job) -> Any:
    if job.method == "full":
        return model
    from peft import LoraConfig, TaskType, get_peft_model

    decoder = shape.kind == DECODER
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM if decoder else TaskType.SEQ_CLS,
        r=RANK,
        lora_alpha=int(ALPHA),
        lora_dropout=DROPOUT,
        target_modules=TARGETS[model.config.model_type],
        exclude_modules=None if decoder else r".*pooler.*",
    )
    return get_peft_model(model, config)


def _trained(
    model: Any, shape: Shape, job: Job, contender: str, rows: list[Example], device: str, size: int
) -> dict[str, Any]:
    from transformers import Trainer, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    amount = job.amount
    rate = method_of(job).rates(shape.width, amount.steps).base
    clock = _clock(amount.warm, device)
    with tempfile.TemporaryDirectory() as folder, quiet():
        arguments = TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=amount.batch // size,
            num_train_epochs=1,
            learning_rate=rate,
            weight_decay=0.01,
            warmup_steps=0.1,
            max_grad_norm=1.0,
            seed=SEED,
            bf16=contender != DEFAULTS,
            use_cpu=device == "cpu",
            gradient_checkpointing=job.recomputed,
            gradient_checkpointing_kwargs={"use_reentrant": False} if job.recomputed else None,
            train_sampling_strategy="random" if contender == DEFAULTS else "group_by_length",
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=[plain(row) for row in rows],  # type: ignore[arg-type]
            data_collator=padded,
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        card.forget_peak(device)
        done = trainer.train()
    used = {"no": "float32", "bf16": "bfloat16 autocast"}[trainer.accelerator.mixed_precision]
    held = "bfloat16" if contender == HALF else "float32"
    return {
        "seconds": clock.seconds,
        "steps": done.global_step,
        "mean_loss": done.training_loss,
        "micro_batch": size,
        "precision": used if used == held else f"{used}, {held} weights",
        "trainable": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "recomputed": job.recomputed,
        **card.peak_gb(device),
    }


def padded(rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    """A batch, filled up on the right. Packed windows come with positions that begin anew with each text, and no mask.

    So transformers' own models tell texts in a window apart.
    """
    longest = max(len(row["input_ids"]) for row in rows)
    fillers = {"labels": IGNORED}
    batch = {
        name: torch.tensor([row[name] + [fillers.get(name, 0)] * (longest - len(row[name])) for row in rows])
        for name in rows[0]
        if isinstance(rows[0][name], list)
    }
    if "labels" not in batch:  # a class each
        batch["labels"] = torch.tensor([row["labels"] for row in rows])
    if POSITIONS not in batch:
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(longest)[None] < lengths[:, None]).long()
    return batch


def _clock(warm: int, device: str) -> Any:
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        """Time from the end of step `warm` to the end of training."""

        begun = seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == warm:
                card.wait(device)
                self.begun = time.perf_counter()

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            card.wait(device)
            self.seconds = time.perf_counter() - self.begun

    return Clock()
