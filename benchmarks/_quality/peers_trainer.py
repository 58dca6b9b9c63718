"""transformers' Trainer as its example scripts use it: texts, or pairs of them, with a class, labels or a number."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Record, Rows

if TYPE_CHECKING:
    import numpy as np

EVALUATION_BATCH = 32


def trained(
    build: Callable[[], Any], train: Any, collator: Any, seed: int, options: Mapping[str, Any], whole: bool = True
) -> Any:
    """A Trainer after training; `options` holds rate, epochs and batch, everything else is the Trainer's default.

    build: makes the model, after the seed is set, since it draws a head. whole: whether columns that the model's forward
    does not name are left out.
    """
    from transformers import Trainer, TrainingArguments, set_seed

    set_seed(seed)
    model = build()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            learning_rate=options["rate"],
            num_train_epochs=options["epochs"],
            per_device_train_batch_size=options["batch"],
            per_device_eval_batch_size=EVALUATION_BATCH,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=whole,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=train, data_collator=collator)
        if options["epochs"]:
            trainer.train()
    return trainer


def classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    names = sorted({row["label"] for row in rows.train})
    logits = _outputs(rows, base, seed, options, len(names), None, lambda row: names.index(row["label"]))
    return [names[place] for place in logits.argmax(axis=1).tolist()]


def labels(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[list[str]]:
    names = sorted({name for row in rows.train for name in row["labels"].split("|")})

    def target(row: Record) -> list[float]:
        return [float(name in row["labels"].split("|")) for name in names]

    logits = _outputs(rows, base, seed, options, len(names), "multi_label_classification", target)
    # A logit of 0 is a probability of 0.5.
    return [[name for name, logit in zip(names, row, strict=True) if logit >= 0.0] for row in logits.tolist()]


def numbers(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[float]:
    return _outputs(rows, base, seed, options, 1, "regression", lambda row: float(row["score"]))[:, 0].tolist()


def _outputs(
    rows: Rows,
    base: Path,
    seed: int,
    options: Mapping[str, Any],
    count: int,
    problem: str | None,
    target: Callable[[Record], Any],
) -> np.ndarray:
    """[test rows, count], by AutoModelForSequenceClassification. Batches are padded to their longest row."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    tokenizer: Any = AutoTokenizer.from_pretrained(base)

    def encoded(part: Sequence[Record]) -> list[dict[str, Any]]:
        texts = [[row[name] for row in part] for name in ("text", "sentence1", "sentence2") if name in part[0]]
        found = tokenizer(*texts, truncation=True, max_length=options["length"])
        return [{key: found[key][place] for key in found} for place in range(len(part))]

    train = [{**inputs, "labels": target(row)} for inputs, row in zip(encoded(rows.train), rows.train, strict=True)]
    asked = {} if problem is None else {"problem_type": problem}

    def build() -> Any:
        return AutoModelForSequenceClassification.from_pretrained(base, num_labels=count, **asked)

    trainer = trained(build, train, DataCollatorWithPadding(tokenizer), seed, options)
    return trainer.predict(encoded(rows.test)).predictions
