"""The gap between training and test rows, and where the validation loss began to rise."""

from __future__ import annotations

import csv
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from shortruns import recipe_for, rows
from tunesmith.evaluation.overfitting import gap_between, overfitting
from tunesmith.evaluation.report import EvaluationPoint
from tunesmith.pipeline import start
from tunesmith.tasks import _metrics
from tunesmith.tasks.base import Scores

Folder = Callable[[str], Path]


def _scores(right: int, count: int) -> Scores:
    truth = np.zeros(count, dtype=np.int64)
    predicted = np.array([0] * right + [1] * (count - right), dtype=np.int64)
    return Scores({"truth": truth, "predicted": predicted}, {"accuracy": _metrics.accuracy}, "accuracy",
                  shares=frozenset({"accuracy"}))  # fmt: skip


def test_the_gap_is_the_difference_of_two_shares() -> None:
    gap = gap_between(_scores(190, 200), _scores(320, 400), 0.95)
    assert (gap.trained, gap.tested, gap.rows) == (0.95, 0.8, 200)
    assert gap.better == pytest.approx(0.15)
    ends = [proportion_ci(hits, rows) for hits, rows in ((190, 200), (320, 400))]
    low, high = (
        0.15 - math.hypot(0.95 - ends[0][0], ends[1][1] - 0.8),
        0.15 + math.hypot(ends[0][1] - 0.95, 0.8 - ends[1][0]),
    )
    assert (gap.low, gap.high) == pytest.approx((low, high), abs=1e-9)


def proportion_ci(hits: int, rows: int) -> tuple[float, float]:
    found = binomtest(hits, rows).proportion_ci(0.95, method="wilson")
    return found.low, found.high


def test_without_a_mistake_on_training_rows_the_gap_still_has_a_width() -> None:
    gap = gap_between(_scores(200, 200), _scores(400, 400), 0.95)
    assert gap.low < -0.005 and gap.high > 0.005


def test_an_interval_of_the_gap_covers() -> None:
    draw, covered = random.Random(0), 0
    for _ in range(1000):
        here, there = (sum(draw.random() < share for _ in range(300)) for share in (0.9, 0.8))
        gap = gap_between(_scores(here, 300), _scores(there, 300), 0.95)
        covered += gap.low <= 0.1 <= gap.high
    assert 930 <= covered <= 970


def test_less_is_better_where_a_metric_is_an_error() -> None:
    def of(loss: float) -> Scores:
        columns = {"truth": np.arange(50), "loss": np.linspace(0, 2 * loss, 50)}
        return Scores(columns, {"loss": lambda found: float(found["loss"].mean())}, "loss", lower=frozenset({"loss"}))

    gap = gap_between(of(1.0), of(1.5), 0.95)
    assert gap.better == pytest.approx(0.5) and gap.low < 0.5 < gap.high


def _points(losses: list[float], values: list[float]) -> list[EvaluationPoint]:
    made = zip(losses, values, strict=True)
    return [EvaluationPoint(10 * n, float(n), "accuracy", value, loss) for n, (loss, value) in enumerate(made)]


@pytest.mark.parametrize(
    ("losses", "values", "says"),
    [
        ([1.0, 0.6, 0.5], [0.3, 0.6, 0.7], "still at its lowest at the end (0.5000)"),
        ([1.0, 0.5, 0.51], [0.3, 0.6, 0.7], "lowest at epoch 1, step 10 (0.5000), and 2 % higher at the end"),
        (
            [1.0, 0.5, 0.8],
            [0.3, 0.7, 0.6],
            "60 % higher at the end: from there on it learned its training rows by heart",
        ),
        ([1.0, 0.5, 0.8], [0.3, 0.7, 0.7], "60 % higher at the end, while accuracy did not fall: it is surer of its"),
    ],
)
def test_where_learning_began_to_cost(losses: list[float], values: list[float], says: str) -> None:
    found = overfitting(None, _points(losses, values), [])
    assert found is not None and says in found.message
    assert overfitting(None, _points(losses[:1], values[:1]), []) is None


def test_a_run_on_labels_without_a_rule_has_a_gap(model_folder: Folder, table_file: Path, tmp_path: Path) -> None:
    draw, gaps = random.Random(1), {}
    for name in ("rule", "none"):
        path = tmp_path / f"{name}.csv"
        made = rows(160)
        labels = [label for _, label in made]
        if name == "none":
            draw.shuffle(labels)
        with path.open("w", newline="", encoding="utf-8") as out:
            texts = [text for text, _ in made]
            csv.writer(out).writerows([("text", "label"), *zip(texts, labels, strict=True)])
        settings = {"training.epochs": 30, "training.rate": 5e-3, "data.validation": 0.0}
        list(start(recipe_for(model_folder("bert"), path, "full", settings), tmp_path / name).events())
        report = json.loads((tmp_path / name / "report.json").read_text(encoding="utf-8"))
        (said,) = [item["message"] for item in report["findings"] if item["kind"] == "overfitting"]
        gaps[name] = float(said.partition("a gap of ")[2].split()[0].replace("\N{MINUS SIGN}", "-"))
    assert gaps["none"] > 0.3 > gaps["rule"]


def test_worse_on_training_rows_is_not_by_heart() -> None:
    gap = gap_between(_scores(84, 200), _scores(220, 400), 0.95)
    found = overfitting(gap, _points([1.0, 1.2], [0.6, 0.5]), ())
    assert found is not None
    assert "20 % higher at the end: not for learning its training rows by heart" in found.message


def test_a_rise_that_rounds_to_nothing_is_not_told() -> None:
    found = overfitting(None, _points([1.0, 1.002], [0.6, 0.6]), ())
    assert found is not None and found.message == "the validation loss was lowest at epoch 0, step 0 (1.0000)"
