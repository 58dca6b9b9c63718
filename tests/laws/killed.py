"""Runs that die by SIGKILL in the middle of a save; a program of its own, so that the tests' process stays whole.

    python killed.py JOBS.json

Each job is {"recipe": plain recipe, "folder": where its checkpoints go, "point": one of POINTS, "save": which save dies}.
Every job is done by a fork that kills itself; the program fails when one lives on.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forked import die, each_dies

POINTS = (
    "weights half written",  # the safetensors file is cut off in its middle
    "before the rename",  # everything is written under the temporary name
    "old one moved aside",  # a second save of the same step: its first checkpoint has left its place
    "after the rename",  # in place, nothing cleaned up yet
)


def _arm(point: str, save: int) -> None:
    """Puts the deadly stand-ins in place; `save` counts the calls of Checkpoints.save from 1."""
    import safetensors.torch

    from tunesmith.training.state import Checkpoints

    live_save, live_file, live_replace = Checkpoints.save, safetensors.torch.save_file, os.replace
    saves = 0

    def counted(self: Checkpoints, state: Any) -> Path:
        nonlocal saves
        saves += 1
        return live_save(self, state)

    def save_file(tensors: Any, path: Any, *more: Any) -> None:
        live_file(tensors, path, *more)
        if saves == save and point == "weights half written":
            with open(path, "rb+") as out:
                out.truncate(Path(path).stat().st_size // 2)
            die()

    def replace(source: Any, target: Any) -> None:
        aside = Path(target).name.startswith(".partial")
        if saves == save and point == "before the rename" and not aside:
            die()
        live_replace(source, target)
        if saves == save and point == ("old one moved aside" if aside else "after the rename"):
            die()

    Checkpoints.save = counted  # type: ignore[method-assign]
    safetensors.torch.save_file = save_file
    os.replace = replace  # type: ignore[assignment]


def _work(job: dict[str, Any], folder: Path) -> None:
    from shortruns import bench
    from tunesmith.recipe import Recipe
    from tunesmith.training.loop import train

    made = bench(Recipe.parse(job["recipe"]), folder)
    made.run.stop = lambda: job["stop"] is not None and made.run.state.step >= job["stop"]
    for _ in train(made.run):
        pass


def main() -> None:
    import torch

    torch.set_num_threads(1)
    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    with TemporaryDirectory() as spare:
        _work(jobs[0], Path(spare))  # so that every import is done here once, and not in every fork

    def work(job: dict[str, Any]) -> None:
        _arm(job["point"], job["save"])
        _work(job, Path(job["folder"]))

    each_dies(jobs, work)


if __name__ == "__main__":
    main()
