"""Method auto beside each method by name: is it as good as the best, at which price? See README.md in this folder.

    python benchmarks/auto.py [--sets sst2_100,wnut17] [--contenders auto,full] [--seeds 0,1,2] [--dry]

A run that the results file holds, of the same versions, machine and settings, is not done again; one of an earlier source
stays, marked, until --stale or --again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import _processes
from _auto_page import page
from _auto_sets import CONTENDERS, FEW_SHOT, SETS, job_of
from _common import source_digest
from _kept import Results, add_stale, fingerprint
from _processes import add_options, in_a_process_of_its_own, refuse_unknown, step_words, words
from _quality import steps

HERE = Path(__file__).resolve()
NAME = "auto"


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.one is None:
        return benchmark(asked)
    if asked.step is not None:
        job = job_of(asked.one[0])
        contender = next(item for item in job.contenders if item.name == asked.one[1])
        steps.step(asked.step, asked.folder, job, contender, int(asked.one[2]), asked.rows, asked.shared)
    else:
        print(json.dumps(measured(asked.one, asked)))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = [job.name for job in SETS]
    parser.add_argument("--sets", type=words, default=names, metavar="A,B")
    parser.add_argument("--contenders", type=words, default=list(CONTENDERS), metavar="A,B")
    parser.add_argument("--one", nargs=3, metavar=("SET", "CONTENDER", "SEED"), help="one measurement, as a JSON line")
    add_options(parser, NAME)
    add_stale(parser)
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    refuse_unknown(parser, "--sets", asked.sets, names)
    refuse_unknown(parser, "--contenders", asked.contenders, CONTENDERS)
    if asked.one is not None:
        refuse_unknown(parser, "--one", [asked.one[0]], names)
        refuse_unknown(parser, "--one", [asked.one[1]], CONTENDERS)
    if asked.threads < 1 or asked.rows < 0:
        parser.error("--threads must be at least 1, --rows at least 0")
    return asked


def benchmark(asked: argparse.Namespace) -> int:
    """Every run that is due, in turn; 1 where one failed."""
    due = [
        (job.name, item.name, str(seed))
        for job in SETS
        if job.name in asked.sets
        for seed in asked.seeds
        for item in job.contenders
        if item.name in asked.contenders
    ]
    results, failed = Results(NAME, asked, source(), page), []
    for number, one in enumerate(due, 1):
        said = ", ".join(one)
        key = key_of(one, asked.threads)
        if results.hold(key):
            print(f"{said}: kept from {asked.out / NAME}.json", flush=True)
        elif asked.dry:
            print(f"{said}: would run", flush=True)
        else:
            print(f"[{number} of {len(due)}] {said}", flush=True)
            result = in_a_process_of_its_own(HERE, list(one), asked)
            if result is None:
                failed.append(said)
                continue
            results.put(key, result, ("job", "contender", "seed"))
            print(f"  {told(one, result)}", flush=True)
    return results.end(failed)


def key_of(one: Sequence[str], threads: int) -> dict[str, Any]:
    """What makes two measurements the same, beside machine, versions and source."""
    return {"job": one[0], "contender": one[1], "seed": int(one[2]), "threads": threads}


def source() -> str:
    """Of what a run is made of: the package and the rows."""
    made_of = ("_quality/data.py", "_quality/ours.py", "_quality/steps.py", "_auto_sets.py")
    return fingerprint(hashlib.sha256(source_digest().encode()), HERE.parent, made_of)


def told(one: Sequence[str], result: Mapping[str, Any]) -> str:
    goal = job_of(one[0]).goals[0]
    value = result["metrics"][goal.metric]["value"]
    chosen = result["derived"].get("method") if one[1] not in ("head", "layers", "lora", "full", FEW_SHOT) else None
    said = "" if chosen is None else f" ({chosen})"
    return f"{goal.title} {value:.4f}{said}; {result['cpu_seconds']:.0f} s CPU, {result['wall_seconds']:.0f} s"


def measured(one: Sequence[str], asked: argparse.Namespace) -> dict[str, Any]:
    """Rows written, the training, its report read, each in its own process; the clock runs for the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def do(step: str) -> int:
            return _processes.child(
                step_words(HERE, list(one), step, folder, asked), ", ".join(one), folder, asked.threads
            )

        return _processes.measured(do, folder)


if __name__ == "__main__":
    raise SystemExit(main())
