"""What our own training takes by rows, by length and by epochs: CPU seconds and peak memory, for a straight line."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from _contenders import BATCH_SIZE

from .cold import cold
from .rows import Pair, lengthened, repeated, training_rows, write_rows
from .startup import NO_PROOF
from .turns import Plain, said
from .works import OURS, Work

METHOD = "full"
AXES = {"rows": "rows", "length": "tokens a row", "epochs": "epochs"}
POINTS = {"rows": (1000, 3000, 10_000), "length": (16, 64, 128, 256, 512), "epochs": (1, 5, 20)}
LONG_POINTS = {"rows": (1000, 3000, 10_000, 30_000, 100_000), "length": POINTS["length"], "epochs": (1, 5, 10, 20)}
TRIAL_POINTS = {"rows": (32, 64, 128), "length": (16, 32, 64), "epochs": (1, 2, 3)}
FEW = {"rows": 0, "length": 64, "epochs": 200}  # rows where rows are not what varies
LONG_FEW = {"rows": 0, "length": 1000, "epochs": 1000}
HELD_OUT = 0.1  # a share at every point, so that what is done with held-out rows grows with the others


def measure(work: Work, asked: argparse.Namespace) -> Plain:
    """{"job": ..., "measured": a record a point, with its `axis` and `amount`}."""
    points = TRIAL_POINTS if asked.trial else LONG_POINTS if asked.long else POINTS
    few = dict.fromkeys(AXES, 48) if asked.trial else LONG_FEW if asked.long else FEW
    rows = training_rows(asked.data, 0)
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "rows.csv"
        for axis, amounts in points.items():
            print(f"{work.name}: {AXES[axis]} {', '.join(f'{amount:,}' for amount in amounts)}", flush=True)
            for amount in amounts:
                write_rows(of_point(asked, rows, axis, amount, few[axis]), table)
                words = [asked.model, str(table), METHOD, json.dumps(settings_of(axis, amount))]
                facts = {"axis": axis, "amount": amount, "round": 1, "turn": 1}
                record = {"work": work.name, "contender": "Tunesmith", "part": OURS, **facts}
                measured.append({**record, **cold("tunesmith_train", words, asked.threads)})
                print(f"  {amount:,}: {said(measured[-1])}, {measured[-1]['peak_mb']:,.0f} MB", flush=True)
    return {"job": {"method": METHOD, "rows_of": few, "settings": settings_of("rows", 0)}, "measured": measured}


def of_point(asked: argparse.Namespace, rows: list[Pair], axis: str, amount: int, few: int) -> list[Pair]:
    """The rows of one point: held-out ones come on top, so that `amount` rows are learned from."""
    if axis == "rows":
        count = round(amount / (1 - HELD_OUT))
        return training_rows(asked.data, count) if count <= len(rows) else repeated(rows, count)
    drawn = training_rows(asked.data, round(few / (1 - HELD_OUT)))
    # A word has one token or more, so that so many words are cut to so many tokens.
    return lengthened(drawn, rows, amount) if axis == "length" else drawn


def settings_of(axis: str, amount: int) -> Plain:
    """Nothing that only the proof takes; all epochs are done."""
    epochs = amount if axis == "epochs" else 1
    found = {**NO_PROOF, "data.validation": HELD_OUT, "training.epochs": epochs, "training.patience": 0}
    found |= {"data.leaks": "keep", "training.batch_size": BATCH_SIZE}
    return {**found, "training.max_length": amount} if axis == "length" else found
