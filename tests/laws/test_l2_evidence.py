"""L2, of the evidence: audit, rivals, examinations and runs inside do not move what they measure, nor their process."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import recipe_for, rows, same_model
from tunesmith.pipeline import start
from tunesmith.training.ledger import Ledger

Folder = Callable[[str], Path]
PLAIN = {"retention.measure": False, "data.slices": "shop"}
ALL = {"evaluation.baselines": True}
FOLDS = {"data.folds": 2, "data.test": 0.1}
# What is asked beside, and what a run without it is.
PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the whole evidence, and the quick report": (ALL, {"evaluation.quick": True}),
    "two seeds, and one": ({**ALL, "evaluation.seeds": 2}, {"evaluation.quick": True}),
    "the method's own curve, and none": ({**ALL, "evaluation.curve": "method"}, {"evaluation.curve": "off"}),
    "all folds, and the first alone": ({**ALL, **FOLDS}, {**FOLDS, "data.fold": 0, "evaluation.quick": True}),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import csv

    path = tmp_path_factory.mktemp("shops") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as out:
        lines = [(text, label, "one" if place % 2 else "two") for place, (text, label) in enumerate(rows(120))]
        csv.writer(out).writerows([("text", "label", "shop"), *lines])
    return path


def made(model: Path, table: Path, folder: Path, method: Any, settings: dict[str, Any]) -> Path:
    list(start(recipe_for(model, table, method, {**PLAIN, **settings}), folder).events())
    return folder


def learned(run: Path) -> list[tuple[Any, ...]]:
    """What the clock has no part in of each step and evaluation."""
    events = [event.to_plain() for event in Ledger.open(run).events() if event.kind in ("step", "evaluated")]
    return [tuple(value for key, value in event.items() if key not in ("seconds", "cpu")) for event in events]


def alike(one: Path, other: Path) -> bool:
    """Whether two runs learned the same, deliver the same bytes and predict the same."""
    files = ["predictions/test.parquet", "predictions/test.safetensors", "predictions/validation.safetensors"]
    return (
        learned(one) == learned(other)
        and same_model(one / "model", other / "model")
        and all((one / name).read_bytes() == (other / name).read_bytes() for name in files)
    )


@pytest.mark.parametrize("pair", list(PAIRS))
@pytest.mark.parametrize("method", ["full", "head"])
def test_what_is_trained_is_the_same_with_and_without(
    pair: str, method: str, model_folder: Folder, table: Path, tmp_path: Path
) -> None:
    asked, without = PAIRS[pair]
    model = model_folder("bert")
    one = made(model, table, tmp_path / "with", method, asked)
    other = made(model, table, tmp_path / "without", method, without)
    assert json.loads((one / "report.json").read_text())["evidence"].keys() >= {"health", "calibration"}
    assert alike(one, other)


def test_control_an_audit_that_takes_the_place_of_a_row_is_noticed(
    model_folder: Folder, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.auditing import running

    live = running.audited

    def careless(recipe: Any, prepared: Any, encoded: Any, backbone: Any, built: Any) -> Any:
        """As an examination would that sorts the rows it was given in their place."""
        yield from live(recipe, prepared, encoded, backbone, built)
        weight = next(built.network.parameters())
        weight.data.mul_(1 + 1e-6)

    model = model_folder("bert")
    without = made(model, table, tmp_path / "without", "full", {"evaluation.quick": True})
    monkeypatch.setattr(running, "audited", careless)
    assert not alike(made(model, table, tmp_path / "with", "full", ALL), without)


def standing(network: Any) -> dict[str, Any]:
    """All of the process, and of the delivered network, that an examination could leave changed."""
    import os

    import numpy as np
    import torch

    return {
        "torch's generator": torch.get_rng_state().tolist(),
        "numpy's generator": repr(np.random.get_state()),
        "Python's generator": random.getstate(),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "number format": torch.get_default_dtype(),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "modes": [(name, module.training) for name, module in network.named_modules()],
        "what learns": [(name, value.requires_grad, value.grad is None) for name, value in network.named_parameters()],
        "weights": [float(value.double().sum()) for value in network.state_dict().values()],
        "hooks": [name for name, part in network.named_modules() if part._forward_hooks or part._forward_pre_hooks],
    }


def standing_around(monkeypatch: pytest.MonkeyPatch, also: Callable[[Any], None]) -> list[tuple[Any, Any]]:
    """What stood before and after the examinations of the runs to come; `also` is done between, to the network."""
    from tunesmith import result

    live, networks, seen = result.gather, [], []
    predict = result._predict_split

    def watched(split: str, prepared: Any, predictor: Any, run: Path, found: Any = None) -> Any:
        networks.append(predictor.network)
        return predict(split, prepared, predictor, run, found)

    def gather(subject: Any) -> Any:
        rows_before = [list(subject.test.texts), list(subject.test.truth), subject.train.columns["text"].copy()]
        before = standing(networks[-1])
        found = live(subject)
        also(networks[-1])
        rows_after = [list(subject.test.texts), list(subject.test.truth), subject.train.columns["text"].copy()]
        seen.append(({**before, "rows": rows_before}, {**standing(networks[-1]), "rows": rows_after}))
        return found

    monkeypatch.setattr(result, "_predict_split", watched)
    monkeypatch.setattr(result, "gather", gather)
    return seen


def changed(seen: list[tuple[Any, Any]]) -> set[str]:
    assert seen, "nothing was examined"
    return {key for before, after in seen for key in before if before[key] != after[key]}


def test_examinations_leave_the_process_and_the_network_as_they_were(
    model_folder: Folder, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = standing_around(monkeypatch, lambda network: None)
    made(model_folder("bert"), table, tmp_path / "run", "full", {**ALL, "evaluation.seeds": 2})
    assert changed(seen) == set()


def test_control_whatever_is_left_changed_is_noticed(
    model_folder: Folder, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def careless(network: Any) -> None:
        import numpy as np
        import torch

        torch.rand(1)
        np.random.rand(1)
        random.random()
        network.train()
        first = next(network.parameters())
        first.requires_grad_(not first.requires_grad)
        first.data.add_(1e-3)

    seen = standing_around(monkeypatch, careless)
    made(model_folder("bert"), table, tmp_path / "run", "full", ALL)
    generators = {"torch's generator", "numpy's generator", "Python's generator"}
    assert changed(seen) == {*generators, "modes", "what learns", "weights"}
