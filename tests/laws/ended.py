"""Runs that die by SIGKILL after their last step; a program of its own, so that the tests' process stays whole.

    python ended.py JOBS.json

Each job is {"recipe": plain recipe, "folder": of the run, "point": one of POINTS}. Every job is done by a fork that kills
itself; the program fails when one lives on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from forked import die, each_dies

POINTS = (
    "before delivery",  # trained, and nothing written of it
    "before the evidence",  # delivered and predicted, nothing examined
    "before the report",  # examined, nothing said
    "in a run inside",  # at its second evaluation
    "before its weights go",  # a run inside has its report, and all of its files
    "while its weights go",  # half of them
)


def _arm(point: str) -> None:
    """Puts the deadly stand-in in place."""
    from tunesmith import delivery, inner, result
    from tunesmith.training import loop

    if point == "before delivery":
        delivery.deliver = die  # type: ignore[assignment]
    elif point == "before the evidence":
        result.gather = die  # type: ignore[assignment]
    elif point == "before the report":
        result.write_report = die  # type: ignore[assignment]
    elif point == "before its weights go":
        inner.let_go = die  # type: ignore[assignment]
    elif point == "while its weights go":
        Path.unlink = die  # type: ignore[method-assign]
        live = inner.let_go
        inner.let_go = lambda folder: live(folder)
    else:
        live_evaluate, seen = loop._evaluate, 0

        def evaluate(run: Any) -> Any:
            nonlocal seen
            inside = run.checkpoints.folder.parent.parent.name in ("seeds", "folds", "curve")
            seen += inside
            if inside and seen == 2:
                die()
            yield from live_evaluate(run)

        loop._evaluate = evaluate


def main() -> None:
    import torch

    from tunesmith.pipeline import start
    from tunesmith.recipe import Recipe

    def work(job: dict[str, Any]) -> None:
        _arm(job["point"])
        for _ in start(Recipe.parse(job["recipe"]), Path(job["folder"])).events():
            pass

    torch.set_num_threads(1)
    each_dies(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), work)


if __name__ == "__main__":
    main()
