"""Prediction by one delivered model: rows a second, the latency of one text, and whether the same labels are said."""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from tunesmith import finetune
from tunesmith.models.backbone import quiet

from .predictors import PIPELINE, PREDICTORS, Predicts, reference
from .turns import Plain, Turn, one_round
from .works import DEFAULTS, FURTHER, OURS, TUNED, Work

SINGLE = 50  # texts, each alone, whose median time is the latency
WARM_TEXTS = 64
PARTS = {"Tunesmith": OURS, PIPELINE.format(1): DEFAULTS, PIPELINE.format(32): TUNED}


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": ..., "measured": records, "missing": contenders whose packages are not installed}."""
    texts = read_texts(asked.data / "test.csv", asked.texts)
    missing = {
        name: sorted(package for package in needs if find_spec(package) is None)
        for name, (needs, _) in PREDICTORS.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        model = delivered(asked, Path(folder))
        right = reference(model, texts)
        with quiet():
            loaded = {name: load(model) for name, (_, load) in PREDICTORS.items() if not missing[name]}
        turns = []
        for name, predict in loaded.items():
            predict(texts[:WARM_TEXTS])
            turns.append(Turn(name, PARTS.get(name, FURTHER), timed(predict, texts, right)))
        print(f"{work.name}: {len(texts):,} texts", flush=True)
        measured = [record for number in range(1, asked.rounds + 1) for record in one_round(work.name, turns, number)]
        single = {name: latency(predict, texts[:SINGLE]) for name, predict in loaded.items()}
    measured = [{**record, "latency_ms": round(single[record["contender"]], 3)} for record in measured]
    return {
        "job": {"texts": len(texts), "rows": asked.rows, "single": min(SINGLE, len(texts))},
        "measured": measured,
        "missing": {name: packages for name, packages in missing.items() if packages},
    }


def read_texts(path: Path, count: int) -> list[str]:
    """The first column of a table; so many rows spread over it, 0 for all."""
    with path.open(encoding="utf-8", newline="") as file:
        found = [next(iter(row.values())) for row in csv.DictReader(file)]
    every = max(1, len(found) // count) if count else 1
    return found[::every][: count or len(found)]


def delivered(asked: argparse.Namespace, folder: Path) -> Path:
    """The model's folder of a run of method head on the data's training rows: outside of every clock."""
    settings = {"data.test": 0.0, "evaluation.quick": True, "evaluation.baselines": False, "training.cache": "memory"}
    settings |= {"data.share": 0.1} if asked.trial else {}
    return finetune(asked.model, asked.data / "train.csv", "head", settings=settings, out=folder / "run").path / "model"


def timed(predict: Predicts, texts: Sequence[str], right: Sequence[str]) -> Callable[[], Callable[[], Plain]]:
    return lambda: lambda: compared(predict(texts), right)


def compared(said: Sequence[str], right: Sequence[str]) -> Plain:
    agree = sum(one == other for one, other in zip(said, right, strict=True))
    return {"texts": len(said), "agreement": round(agree / len(right), 5)}


def latency(predict: Predicts, texts: Sequence[str]) -> float:
    """Milliseconds by the clock for one text, the median."""
    found = []
    for text in texts:
        begun = time.perf_counter()
        predict([text])
        found.append(1000 * (time.perf_counter() - begun))
    return statistics.median(found)
