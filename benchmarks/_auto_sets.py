"""The sets of auto.py, cheap ones first, each with those that go on it: auto, and methods by name."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from _quality import data
from _quality.data import Rows
from _quality.jobs import MINILM, OURS, Contender, Job
from _quality.jobs import job_of as quality_job

AUTO, FEW_SHOT = "auto", "few_shot"
BY_NAME = ("head", "layers", "lora", "full")
CONTENDERS = (AUTO, *BY_NAME, FEW_SHOT)
QUICK = {"evaluation.quick": True}  # without further evidence, which is the same for all


def contender(name: str) -> Contender:
    """As one command without options does it, but for the method; few_shot is a task, learned with method full."""
    task, method = (FEW_SHOT, "full") if name == FEW_SHOT else ("auto", name)
    return Contender(name, name, OURS, "finetuned", {"method": method, "task": task, "settings": QUICK})


def some(rows: Callable[[Path, int], Rows], count: int) -> Callable[[Path, int], Rows]:
    """So many of the training rows, drawn by seed, without the validation rows that the set comes with."""

    def load(source: Path, seed: int) -> Rows:
        whole = rows(source, seed)
        return Rows(random.Random(seed).sample(whole.train, count), [], whole.test)

    return load


def books(source: Path, seed: int) -> Rows:
    """Reviews of books, on the sides that the file names."""
    with (source / "amazon_multidomain" / "books.csv").open(encoding="utf-8", newline="") as file:
        found = [(row["split"], {"text": row["text"], "label": row["label"]}) for row in csv.DictReader(file)]
    return Rows([row for side, row in found if side == "train"], [], [row for side, row in found if side == "test"])


def _set(job: Job, without: tuple[str, ...] = (), few: bool = False) -> Job:
    names = [AUTO, *(name for name in BY_NAME if name not in without), *([FEW_SHOT] if few else [])]
    return replace(job, contenders=tuple(map(contender, names)))


_SST2 = quality_job("sst2")
SETS: tuple[Job, ...] = (
    _set(quality_job("fashion_mnist_900"), without=("lora",)),  # no linear layers in its blocks
    _set(
        replace(_SST2, name="sst2_100", about="SST-2's whole sentences; 100 rows, drawn by seed", rows=some(data.sst2, 100),
                drawn=True),
        few=True,
    ),
    _set(quality_job("banking77_5"), few=True),
    _set(quality_job("banking77_10"), few=True),
    _set(quality_job("flowers5"), without=("lora",)),
    _set(quality_job("pubmedqa")),
    _set(replace(_SST2, name="amazon_books", about="Amazon reviews of books: sentiment, 2 classes", rows=books)),
    _set(quality_job("wnut17")),
    _set(_SST2),
    _set(replace(quality_job("stsb_regression"), name="stsb", about="STS-B, pairs with a score, by the task that is found")),
    _set(replace(quality_job("banking77_vectors"), name="banking77", about="Banking77, all rows", base=MINILM)),
    _set(quality_job("goemotions")),
)  # fmt: skip


def job_of(name: str) -> Job:
    return next(job for job in SETS if job.name == name)
