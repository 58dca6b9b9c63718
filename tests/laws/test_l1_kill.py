"""L1, the hard way: kill -9 in the middle of a save, then resume; and there is always a whole checkpoint on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shortruns import METHODS, bench, differences, facts, recipe_for
from tunesmith.errors import ArtifactError
from tunesmith.recipe import Recipe
from tunesmith.training.loop import train
from tunesmith.training.state import Checkpoints, State

HERE = Path(__file__).parent
# Saves: the first at step 0, then one with each of the two evaluations an epoch. With `stop`, the save on stopping at
# that step is a second one of the same checkpoint.
CASES: list[tuple[str, str, int, int | None]] = [
    *((method, point, 2, None) for method in METHODS for point in ("weights half written", "before the rename")),
    ("full", "after the rename", 2, None),
    ("full", "weights half written", 1, None),
    ("full", "before the rename", 1, None),
    ("full", "old one moved aside", 2, 0),
    ("full", "before the rename", 2, 0),
    ("full", "weights half written", 2, 0),
]


def _folder(top: Path, case: tuple[str, str, int, int | None]) -> Path:
    return top / "-".join(str(part) for part in case).replace(" ", "_")


def _recipe(model: Path, data: Path, method: str) -> Recipe:
    settings = {"training.evaluations": 2, "training.rate": 1e-3, "training.probe": False}
    return recipe_for(model, data, METHODS[method], settings)


@pytest.fixture(scope="module")
def killed(model_folder: Callable[[str], Path], table_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of CASES, as the killed run left it."""
    top = tmp_path_factory.mktemp("killed")
    jobs: list[dict[str, Any]] = [
        {
            "recipe": _recipe(model_folder("bert"), table_file, case[0]).to_plain(),
            "folder": str(_folder(top, case)),
            "point": case[1],
            "save": case[2],
            "stop": case[3],
        }
        for case in CASES
    ]
    (top / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
    paths = [str(HERE.parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    done = subprocess.run(
        [sys.executable, str(HERE / "killed.py"), str(top / "jobs.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return top


@pytest.fixture(scope="module")
def uninterrupted(
    model_folder: Callable[[str], Path], table_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Any]:
    made: dict[str, Any] = {}

    def of(method: str) -> Any:
        if method not in made:
            whole = bench(_recipe(model_folder("bert"), table_file, method), tmp_path_factory.mktemp("whole"))
            made[method] = (facts(train(whole.run)), whole.tensors())
        return made[method]

    return of


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(str(part) for part in case))
def test_resume_after_kill_equals_uninterrupted(
    case: tuple[str, str, int, int | None],
    killed: Path,
    uninterrupted: Callable[[str], Any],
    model_folder: Callable[[str], Path],
    table_file: Path,
) -> None:
    method, _, save, _ = case
    folder = _folder(killed, case)
    expected, tensors = uninterrupted(method)
    resumed = bench(_recipe(model_folder("bert"), table_file, method), folder)
    checkpoints = resumed.run.checkpoints
    if save > 1:
        state, damaged = checkpoints.load()
        assert damaged == []
        resumed.run.masters.restore(state.tensors)
        resumed.run.state = state
    elif checkpoints.steps():  # killed after the very first rename: whole all the same
        checkpoints.load()
    found = facts(train(resumed.run))
    assert found == expected[len(expected) - len(found) :]
    assert differences(tensors, resumed.tensors()) == []
    assert [item.name for item in folder.glob("checkpoints/.partial*")] == [], "leftovers of the killed save"


def test_control_a_save_in_place_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same death in a save without a temporary name leaves nothing to resume from."""
    import safetensors.torch
    import torch

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(State(3, {"parameter/a": torch.ones(4)}))
    monkeypatch.setattr(os, "replace", lambda source, target: None)
    whole = tmp_path / "step-00000003" / "state.safetensors"
    safetensors.torch.save_file({"parameter/a": torch.zeros(4)}, whole)
    whole.write_bytes(whole.read_bytes()[:20])
    with pytest.raises(ArtifactError, match="no checkpoint is whole"):
        checkpoints.load()
