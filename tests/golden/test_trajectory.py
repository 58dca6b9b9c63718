"""Golden: the losses of a short run of each method, kept in trajectory.json.

They catch what no law can: a change that is consistent everywhere, such as another default or formula. When a change of
the numbers is meant, delete trajectory.json and run this test once: it writes the file anew, and fails to say so. The
commit that carries the new file says why the numbers moved.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from shortruns import METHODS, bench, recipe_for
from tunesmith.seeds import seed_of
from tunesmith.training.events import Evaluated, StepDone
from tunesmith.training.loop import train

GOLDEN = Path(__file__).with_name("trajectory.json")
# Other processors and versions of torch round otherwise: 1e-6 at the first step, and it grows while training.
TOLERANCE, DRIFT = 2e-3, 3e-4


def _with_known_weights(model: Path, folder: Path) -> Path:
    """A copy whose weights are drawn by name: how a family starts its weights differs between its versions."""
    import torch
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(model, folder))
    weights = load_file(copy / "model.safetensors")
    for name, value in weights.items():
        draw = torch.Generator().manual_seed(seed_of(name))
        centre = 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0
        weights[name] = centre + 0.1 * torch.randn(value.shape, generator=draw)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def _losses(method: str, model: Path, data: Path, folder: Path) -> dict[str, list[float]]:
    settings = {
        "training.epochs": 4,
        "training.dropout": 0.0,
        "training.rate": 5e-4,
        "training.head_rate": 5e-3,
        # A few iterations of L-BFGS enlarge the last bit of the features a thousandfold; test_probe.py has an oracle.
        "training.probe": False,
        "seed": 11,
    }
    asked = {**METHODS["lora"], "dropout": 0.0} if method == "lora" else METHODS[method]
    events = list(train(bench(recipe_for(model, data, asked, settings), folder).run))
    return {
        "steps": [round(event.loss, 6) for event in events if isinstance(event, StepDone)],
        "validation": [round(event.loss, 6) for event in events if isinstance(event, Evaluated)],
    }


def drifts(found: list[float], golden: list[float]) -> list[str]:
    """What is wrong with `found`: too far at a step, or a little off to one side at all of them."""
    if len(found) != len(golden):
        return [f"{len(found)} values, expected {len(golden)}"]
    gaps = [here - there for here, there in zip(found, golden, strict=True)]
    wrong = [f"value {place}: off by {gap:+.1e}" for place, gap in enumerate(gaps) if abs(gap) > TOLERANCE]
    mean = sum(gaps) / len(gaps)
    one_sided = all(gap > 0 for gap in gaps) or all(gap < 0 for gap in gaps)
    return wrong + ([f"all to one side, by {mean:+.1e}"] if one_sided and abs(mean) > DRIFT else [])


def test_the_losses_are_those_of_the_file(
    model_folder: Callable[[str], Path], table_file: Path, tmp_path: Path
) -> None:
    models = {family: _with_known_weights(model_folder(family), tmp_path / family) for family in ("bert", "sentence")}
    found = {
        f"{family}, {method}": _losses(method, model, table_file, tmp_path / f"{family}-{method}")
        for family, model in models.items()
        for method in METHODS
    }
    if not GOLDEN.exists():
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        pytest.fail(f"{GOLDEN.name} was not there and has been written: look at it, then commit it")
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert found.keys() == golden.keys()
    wrong = {
        f"{name}, {kind}": said
        for name, lists in found.items()
        for kind, values in lists.items()
        if (said := drifts(values, golden[name][kind]))
    }
    assert wrong == {}


def test_control_drift_is_noticed() -> None:
    golden = [1.0, 0.8, 0.6]
    assert drifts(golden, golden) == []
    assert drifts([1.0002, 0.7999, 0.6001], golden) == [], "rounding to both sides"
    assert drifts([1.0, 0.803, 0.6], golden) == ["value 1: off by +3.0e-03"]
    assert drifts([1.0005, 0.8004, 0.6006], golden) == ["all to one side, by +5.0e-04"]
    assert drifts([1.0], golden) != []
