"""L9: `examples/plain_loop.py`, written without the package, reaches the same losses."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import bench, recipe_for
from tunesmith.training.events import StepDone
from tunesmith.training.loop import train

EXAMPLE = Path(__file__).parents[2] / "examples" / "plain_loop.py"
RATES = {"training.rate": 5e-4, "training.head_rate": 5e-3}


def _plain() -> Any:
    spec = importlib.util.spec_from_file_location("plain_loop", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def both(
    model_folder: Callable[[str], Path], table_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[float], Callable[..., list[float]]]:
    """The package's losses, and how to get the plain loop's for the same rows."""
    settings = {
        **RATES,
        "training.epochs": 4,
        "training.batch_size": 16,
        "training.micro_batch": 16,
        "training.dropout": 0.0,
        "data.validation": 0.0,  # without validation rows the probe has one strength, the plain loop's
        "seed": 2,
    }
    made = bench(recipe_for(model_folder("sentence"), table_file, "full", settings), tmp_path_factory.mktemp("run"))
    losses = [event.loss for event in train(made.run) if isinstance(event, StepDone)]
    texts = made.prepared.texts("train")
    target = [made.prepared.labels.names.index(label) for label in made.prepared.truth("train")]

    def plain(**changed: Any) -> list[float]:
        options = {"epochs": 4, "batch_size": 16, "rate": 5e-4, "head_rate": 5e-3, "seed": 2, "dropout": 0.0, **changed}
        return _plain().train(model_folder("sentence"), texts, target, **options)[1]

    return losses, plain


def test_the_same_losses(both: tuple[list[float], Callable[..., list[float]]]) -> None:
    losses, plain = both
    assert len(losses) >= 16 and losses[-1] < losses[0] - 0.05, "it learns"
    found = plain()
    assert losses == pytest.approx(found, abs=1e-4)
    assert abs(sum(a - b for a, b in zip(losses, found, strict=True))) / len(losses) < 2e-5, "drift to one side"


@pytest.mark.parametrize("changed", [{"seed": 3}, {"rate": 4.5e-4}, {"head_rate": 4.5e-3}, {"dropout": 0.01}], ids=str)
def test_control_another_loop_is_noticed(
    changed: dict[str, Any], both: tuple[list[float], Callable[..., list[float]]]
) -> None:
    losses, plain = both
    assert losses != pytest.approx(plain(**changed), abs=1e-4)


def test_it_runs_as_a_program(model_folder: Callable[[str], Path], table_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(table_file), str(model_folder("sentence"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "held-out rows" in done.stdout
    assert "tunesmith" not in EXAMPLE.read_text(encoding="utf-8").replace("tunesmith plan", "")
