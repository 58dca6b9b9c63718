"""Quality of every task beside what a user would pick instead: equal rows, equal base. See README.md in this folder.

    python benchmarks/quality.py [--jobs sst2,stsb] [--contenders tunesmith,tfidf] [--seeds 0,1,2] [--dry]

A run that the results file already holds, of the same source, versions, machine and settings, is not done again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import _processes
from _common import commit, environment, source_digest, write_results
from _kept import earlier_runs, same
from _processes import add_options, in_a_process_of_its_own, refuse_unknown, step_words, words
from _quality.jobs import JOBS, Contender, Job, job_of
from _quality.steps import step
from _quality_page import page

HERE = Path(__file__).resolve()
NAME = "quality"
PEERS = ("sentence-transformers", "setfit", "datasets", "trl")  # whose versions count here too


class Run(NamedTuple):
    """One measurement."""

    job: Job
    contender: Contender
    seed: int

    def __str__(self) -> str:
        return f"{self.job.name}, {self.contender.name}, seed {self.seed}"

    @property
    def words(self) -> list[str]:
        """Those of --one."""
        return [self.job.name, self.contender.name, str(self.seed)]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.step is not None:
        job, contender = named(asked.one)
        step(asked.step, asked.folder, job, contender, int(asked.one[2]), asked.rows, asked.shared)
        return 0
    if asked.one is not None:
        job, contender = named(asked.one)
        print(json.dumps(measured(Run(job, contender, int(asked.one[2])), asked)))
        return 0
    return benchmark(asked)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--jobs", type=words, default=[job.name for job in JOBS], metavar="A,B")
    parser.add_argument("--contenders", type=words, metavar="A,B", help="by default all but the optional ones")
    parser.add_argument("--peer-seeds", type=int, help="how many of the seeds peers run (default: 1 for costly ones)")
    parser.add_argument("--one", nargs=3, metavar=("JOB", "CONTENDER", "SEED"), help="one measurement, as a JSON line")
    add_options(parser, NAME)
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    everyone = list(dict.fromkeys(contender.name for job in JOBS for contender in job.contenders))
    refuse_unknown(parser, "--jobs", asked.jobs, [job.name for job in JOBS])
    refuse_unknown(parser, "--contenders", asked.contenders or [], everyone)
    if asked.one is not None and (not asked.one[2].isdigit() or not _known(*asked.one[:2])):
        offered = "; ".join(f"{job.name}: {', '.join(item.name for item in job.contenders)}" for job in JOBS)
        parser.error(f"--one: a job, one of its contenders, and a whole number as seed: {offered}")
    if asked.threads < 1 or asked.rows < 0 or (asked.peer_seeds is not None and asked.peer_seeds < 1):
        parser.error("--threads and --peer-seeds must be at least 1, --rows at least 0")
    return asked


def _known(job: str, contender: str) -> bool:
    return any(item.name == contender for one in JOBS if one.name == job for item in one.contenders)


def named(one: Sequence[str]) -> tuple[Job, Contender]:
    job = job_of(one[0])
    return job, next(item for item in job.contenders if item.name == one[1])


def benchmark(asked: argparse.Namespace) -> int:
    """Every run that is due, in turn; 1 where one failed."""
    due = planned(asked.jobs, asked.contenders, asked.seeds, asked.peer_seeds)
    plain = fresh(asked) if asked.rows else kept_or_new(asked)
    failed, missing = [], {}
    for number, run in enumerate(due, 1):
        absent = [name for name in run.contender.packages if find_spec(name) is None]
        key = key_of(run, asked.threads)
        if absent:
            missing[f"{run.job.name}, {run.contender.name}"] = absent
        elif not asked.again and any(same(item, key) for item in plain["runs"]):
            print(f"{run}: kept from {asked.out / NAME}.json", flush=True)
        elif asked.dry:
            print(f"{run}: would run{' (costly)' if run.contender.costly else ''}: {run.contender.title}", flush=True)
        else:
            print(f"[{number} of {len(due)}] {run}", flush=True)
            result = in_a_process_of_its_own(HERE, run.words, asked)
            if result is None:
                failed.append(str(run))
                continue
            print(f"  {told(run.job, result)}", flush=True)
            replaced = {name: key[name] for name in ("job", "contender", "seed")}
            plain["runs"] = [item for item in plain["runs"] if not same(item, replaced)]
            plain["runs"].append({**key, "commit": commit(), **result})
            if not asked.rows:  # after each run, so that a stop loses one at most
                write_results(asked.out, NAME, plain, page(plain, current(plain)))
    for name, absent in missing.items():
        print(f"{name}: left out, since these are not installed: {', '.join(absent)}", flush=True)
    if not asked.dry:
        lines = page(plain, current(plain))
        if not asked.rows:
            write_results(asked.out, NAME, plain, lines)
        print("\n".join(lines))
    for name in failed:
        print(f"{name}: failed, see above", flush=True)
    return 1 if failed else 0


def planned(
    jobs: Sequence[str], contenders: Sequence[str] | None, seeds: Sequence[int], peer_seeds: int | None
) -> list[Run]:
    """Job by job, and in each seed by seed, another contender beginning each time.

    Peers: one seed where nothing depends on it, and where they are costly unless `peer_seeds` says how many.
    """
    found = []
    for job in (job for job in JOBS if job.name in jobs):
        chosen = [
            item for item in job.contenders if (not item.optional if contenders is None else item.name in contenders)
        ]
        for turn, seed in enumerate(seeds):
            shift = turn % len(chosen) if chosen else 0
            for contender in [*chosen[shift:], *chosen[:shift]]:
                if turn < _count(job, contender, len(seeds), peer_seeds):
                    found.append(Run(job, contender, seed))
    return found


def _count(job: Job, contender: Contender, seeds: int, peer_seeds: int | None) -> int:
    if contender.ours:
        return seeds
    if contender.fixed and not job.drawn:
        return 1
    return (1 if contender.costly else seeds) if peer_seeds is None else peer_seeds


def key_of(run: Run, threads: int) -> dict[str, Any]:
    """What makes two measurements the same, beside machine and versions; as JSON gives it back."""
    plain = {
        "job": run.job.name,
        "contender": run.contender.name,
        "seed": run.seed,
        "settings": dict(run.contender.options),
        "threads": threads,
        "source": source_of(run.contender),
    }
    return json.loads(json.dumps(plain))


def source_of(contender: Contender) -> str:
    """12 hexadecimal digits: of what a contender runs here. A peer stays measured when only Tunesmith changes."""
    folder = HERE.parent / "_quality"
    digest = hashlib.sha256()
    for name in ("data", contender.module):
        digest.update((folder / f"{name}.py").read_bytes())
    if contender.ours:
        digest.update(source_digest().encode())
    return digest.hexdigest()[:12]


def current(plain: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The source of every job's contenders as they are now."""
    return {(job.name, item.name): source_of(item) for job in JOBS for item in job.contenders}


def fresh(asked: argparse.Namespace) -> dict[str, Any]:
    from importlib import metadata

    now = environment()
    now["machine"]["torch_threads"] = asked.threads
    for name in PEERS:
        if find_spec(name.replace("-", "_")) is not None:
            now["versions"][name] = metadata.version(name)
    return {"schema": 1, "environment": now, "runs": []}


def kept_or_new(asked: argparse.Namespace) -> dict[str, Any]:
    """The results file where it is of this machine and these versions; else a new one, and a word on what is left out."""
    new = fresh(asked)
    known = {(job.name, item.name) for job in JOBS for item in job.contenders}
    kept = earlier_runs(asked.out / f"{NAME}.json", new)
    return {**new, "runs": [run for run in kept if (run["job"], run["contender"]) in known]}


def told(job: Job, result: dict[str, Any]) -> str:
    values = ", ".join(f"{goal.title} {result['metrics'][goal.metric]['value']:.4f}" for goal in job.goals)
    return f"{values}; {result['cpu_seconds']:.0f} s CPU, {result['wall_seconds']:.0f} s, {result['peak_mb']:.0f} MB"


def measured(run: Run, asked: argparse.Namespace) -> dict[str, Any]:
    """Rows written, the contender run, its predictions scored, each in its own process; the clock runs for the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        return _processes.measured(lambda step: child(run, asked, step, folder), folder)


def child(run: Run, asked: argparse.Namespace, name: str, folder: Path) -> int:
    """Does one step, and gives its peak resident memory in bytes. Raises SystemExit with what it printed where it failed."""
    return _processes.child(step_words(HERE, run.words, name, folder, asked), str(run), folder, asked.threads)


if __name__ == "__main__":
    raise SystemExit(main())
