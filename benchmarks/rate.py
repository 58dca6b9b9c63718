"""What `tunesmith rate` gives up beside trying every rate, and what it costs. See README.md in this folder.

    python benchmarks/rate.py [--pairs sst2_1000.full,flowers5.head] [--seeds 0] [--dry]

A run that the results file holds, of the same versions, machine and settings, is not done again; one of an earlier source
stays, marked, until --stale or --again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _processes
from _auto_sets import job_of, some
from _common import source_digest
from _kept import Results, add_stale, fingerprint
from _processes import SCORED, add_options, in_a_process_of_its_own, refuse_unknown, step_words, words
from _quality import data, steps
from _quality.jobs import OURS, Contender, Job
from _quality.jobs import job_of as quality_job
from _rate_page import FOUND, GRID, page

HERE = Path(__file__).resolve()
NAME = "rate"


def _some(name: str, rows: Any) -> Job:
    job = quality_job(name)
    return replace(job, name=f"{job.name}_1000", about=f"{job.about}; 1,000 rows, drawn by seed", rows=some(rows, 1000))


JOBS = {
    "banking77_10": job_of("banking77_10"),
    "sst2_1000": _some("sst2", data.sst2),
    "stsb_1000": replace(_some("stsb_regression", data.stsb), name="stsb_1000"),
    "wnut17_1000": _some("wnut17", data.wnut17),
    "goemotions_1000": _some("goemotions", data.goemotions),
    "flowers5": job_of("flowers5"),
}
PAIRS = (
    "banking77_10.full", "banking77_10.lora", "sst2_1000.full", "sst2_1000.layers", "stsb_1000.full", "wnut17_1000.lora",
    "goemotions_1000.full", "flowers5.head",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.one is None:
        return benchmark(asked)
    if asked.step is not None:
        step(asked.step, asked.folder, asked.one, asked)
    else:
        print(json.dumps(measured(asked.one, asked)))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--pairs", type=words, default=list(PAIRS), metavar="A,B")
    parser.add_argument(
        "--one", nargs=4, metavar=("PAIR", "SEED", "TIMES", "RATE"),
        help="one measurement, as a JSON line: of a rate, TIMES the documented one, or of what is found (0, 0)",
    )  # fmt: skip
    add_options(parser, NAME)
    add_stale(parser)
    parser.set_defaults(seeds=[0])
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    refuse_unknown(parser, "--pairs", asked.pairs, PAIRS)
    if asked.threads < 1 or asked.rows < 0:
        parser.error("--threads must be at least 1, --rows at least 0")
    return asked


def benchmark(asked: argparse.Namespace) -> int:
    """Of each pair what is found, then every rate of the grid; 1 where one failed."""
    results, failed = Results(NAME, asked, source(), page), list[str]()
    for pair in asked.pairs:
        for seed in asked.seeds:
            found = run(results, asked, failed, pair, seed, 0.0, 0.0)
            if found is None:
                continue
            for times in GRID:
                run(results, asked, failed, pair, seed, times, times * found["documented"])
    return results.end(failed)


def run(
    results: Results, asked: argparse.Namespace, failed: list[str], pair: str, seed: int, times: float, rate: float
) -> Mapping[str, Any] | None:
    """One measurement, done or kept; None where there is none."""
    key = {"pair": pair, "seed": seed, "times": times, "threads": asked.threads}
    said = f"{pair}, seed {seed}, " + (f"{times:.3g} times the documented rate" if times else "what is found")
    if not results.hold(key):
        if asked.dry:
            print(f"{said}: would run", flush=True)
            return None
        print(said, flush=True)
        result = in_a_process_of_its_own(HERE, [pair, str(seed), repr(times), repr(rate)], asked)
        if result is None:
            failed.append(said)
            return None
        results.put(key, result, ("pair", "seed", "times"))
        print(f"  {result['cpu_seconds']:.0f} s CPU", flush=True)
        if asked.rows:  # nothing is kept of a trial
            return result
    return next(item for item in results.runs if all(item[name] == value for name, value in key.items()))


def source() -> str:
    """Of what a run is made of: the package and the rows."""
    made_of = ("_quality/data.py", "_quality/ours.py", "_quality/steps.py", "_auto_sets.py", "rate.py")
    return fingerprint(hashlib.sha256(source_digest().encode()), HERE.parent, made_of)


def measured(one: Sequence[str], asked: argparse.Namespace) -> dict[str, Any]:
    """Rows written, the training, its report read, each in its own process; the clock runs for the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def do(step: str) -> int:
            return _processes.child(
                step_words(HERE, list(one), step, folder, asked), ", ".join(one), folder, asked.threads
            )

        return _processes.measured(do, folder)


def step(name: str, folder: Path, one: Sequence[str], asked: argparse.Namespace) -> None:
    """Of a rate as any training is measured; of what is found, the trials of `tunesmith rate`."""
    job_name, _, method = one[0].partition(".")
    job, seed, times, rate = JOBS[job_name], int(one[1]), float(one[2]), float(one[3])
    if times or name == "prepare":
        key = "training.head_rate" if method == "head" else "training.rate"
        settings = {"evaluation.quick": True, "evaluation.baselines": False, key: rate}
        options = {"method": method, "task": "auto", "settings": settings}
        steps.step(name, folder, job, Contender(method, method, OURS, "finetuned", options), seed, asked.rows, asked.shared)
        if name == "score":
            add_validation(folder, job)
        return
    if name == "run":
        find(folder, str(steps.base_of(job, asked.shared)), method, seed)
        return
    found = json.loads((folder / "rate" / "rate.json").read_text(encoding="utf-8"))
    chosen = found["chosen"]
    told = {
        FOUND: 3.0 ** chosen["step"], "documented": chosen["documented"], "why": chosen["why"],
        "tried": [{key: one[key] for key in ("step", "rows", "value", "error", "loss", "why")} for one in found["tried"]],
    }  # fmt: skip
    (folder / SCORED).write_text(json.dumps(told), encoding="utf-8")


def find(folder: Path, base: str, method: str, seed: int) -> None:
    """What `tunesmith rate` does, in folder/rate."""
    from tunesmith.rating import rating
    from tunesmith.recipe import Recipe

    recipe = Recipe.parse({"model": base, "data": str(folder / "data"), "method": method, "seed": seed})
    for _ in rating(recipe, folder / "rate").events():
        pass


def add_validation(folder: Path, job: Job) -> None:
    """What is shown, and what the delivered state was on the validation rows: by which a grid is chosen from."""
    scored = json.loads((folder / SCORED).read_text(encoding="utf-8"))
    curves = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["curves"]
    kept = next(point for point in curves["evaluations"] if point["step"] == curves["best_step"])
    scored["validation"] = {key: kept[key] for key in ("value", "loss")}
    scored["goal"] = {"metric": job.goals[0].metric, "title": job.goals[0].title}
    (folder / SCORED).write_text(json.dumps(scored), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
