"""sentence-transformers and SetFit: pairs with a score, and few texts a class."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data import Rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

HIGHEST = 5.0  # of STS-B's scores, which the losses want between 0 and 1
WARMUP = 0.1  # share of the steps, as in the training example for STS-B


def untuned_cosine(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[float]:
    from sentence_transformers import SentenceTransformer

    return _cosines(SentenceTransformer(str(base), device="cpu"), rows)


def tuned_cosine(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[float]:
    """The training example for STS-B, its evaluator and its checkpoints left out."""
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses
    from transformers import set_seed

    set_seed(seed)
    model = SentenceTransformer(str(base), device="cpu")
    columns: dict[str, list[Any]] = {name: [row[name] for row in rows.train] for name in ("sentence1", "sentence2")}
    columns["score"] = [float(row["score"]) / HIGHEST for row in rows.train]
    loss = {"CoSENTLoss": losses.CoSENTLoss, "CosineSimilarityLoss": losses.CosineSimilarityLoss}[options["loss"]]
    with tempfile.TemporaryDirectory() as folder:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=folder,
            num_train_epochs=options["epochs"],
            per_device_train_batch_size=options["batch"],
            learning_rate=options["rate"],
            warmup_steps=WARMUP,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trained = SentenceTransformerTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_dict(columns), loss=loss(model)
        )
        trained.train()
    return _cosines(model, rows)


def _cosines(model: SentenceTransformer, rows: Rows) -> list[float]:
    import numpy as np

    one, two = (
        model.encode([row[name] for row in rows.test], show_progress_bar=False, normalize_embeddings=True)
        for name in ("sentence1", "sentence2")
    )
    return np.asarray(one * two).sum(axis=1).tolist()


def setfit_classes(rows: Rows, base: Path, seed: int, options: Mapping[str, Any]) -> list[str]:
    """SetFit's Trainer: contrast of pairs, then logistic regression. `iterations` is R of its paper: 2 R pairs a row."""
    from datasets import Dataset
    from setfit import SetFitModel, Trainer, TrainingArguments

    names = sorted({row["label"] for row in rows.train})
    model = SetFitModel.from_pretrained(str(base), labels=names, device="cpu")
    columns = {"text": [row["text"] for row in rows.train], "label": [names.index(row["label"]) for row in rows.train]}
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            batch_size=options["batch"],
            num_epochs=options["epochs"],
            num_iterations=options["iterations"],
            seed=seed,
            save_strategy="no",
            report_to="none",
            show_progress_bar=False,
        )
        trainer = Trainer(model=model, args=arguments, train_dataset=Dataset.from_dict(columns))
        trainer.train()
    said: Any = model.predict([row["text"] for row in rows.test], show_progress_bar=False)
    return [str(name) for name in said]
