"""What fine-tuning costs of what the base knew, and what holds it back. See README.md in this folder.

    python benchmarks/forgetting.py [--cases amazon,stories] [--variants full,head] [--seeds 0,1,2] [--dry]

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
from typing import Any, NamedTuple

import _processes
from _common import source_digest
from _forgetting.cases import CASES, STORIES, case, variant
from _forgetting.steps import step
from _forgetting_page import page
from _kept import Results, add_stale, fingerprint
from _processes import add_options, in_a_process_of_its_own, refuse_unknown, step_words, words

HERE = Path(__file__).resolve()
NAME = "forgetting"


class Run(NamedTuple):
    """One measurement."""

    case: str
    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.case}, {self.variant}, seed {self.seed}"

    @property
    def words(self) -> list[str]:
        """Those of --one."""
        return [self.case, self.variant, str(self.seed)]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.one is None:
        return benchmark(asked)
    run = Run(asked.one[0], asked.one[1], int(asked.one[2]))
    if asked.step is not None:
        step(asked.step, asked.folder, *run, asked.rows, asked.shared)
    else:
        print(json.dumps(measured(run, asked)))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    cases = [item.name for item in CASES]
    parser.add_argument("--cases", type=words, default=cases, metavar="A,B")
    parser.add_argument("--variants", type=words, metavar="A,B", help="by default all")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "VARIANT", "SEED"), help="one measurement, as a JSON line")
    add_options(parser, NAME)
    add_stale(parser)
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    refuse_unknown(parser, "--cases", asked.cases, cases)
    refuse_unknown(parser, "--variants", asked.variants or [], [item.name for one in CASES for item in one.variants])
    if asked.one is not None:
        refuse_unknown(parser, "--one", asked.one[:1], cases)
        refuse_unknown(parser, "--one", asked.one[1:2], [item.name for item in case(asked.one[0]).variants])
    if asked.threads < 1 or asked.rows < 0:
        parser.error("--threads must be at least 1, --rows at least 0")
    return asked


def planned(cases: Sequence[str], variants: Sequence[str] | None, seeds: Sequence[int]) -> list[Run]:
    """Seed by seed over all cases, so that after the first seed there is a whole table."""
    return [
        Run(one.name, item.name, seed)
        for seed in seeds
        for one in CASES
        for item in one.variants
        if one.name in cases and (variants is None or item.name in variants)
    ]


def benchmark(asked: argparse.Namespace) -> int:
    """Every run that is due, in turn; 1 where one failed."""
    due = planned(asked.cases, asked.variants, asked.seeds)
    results, failed = Results(NAME, asked, source(), page), []
    for number, run in enumerate(due, 1):
        key = key_of(run, asked.threads)
        if results.hold(key):
            print(f"{run}: kept from {asked.out / NAME}.json", flush=True)
        elif asked.dry:
            print(f"{run}: would run", flush=True)
        else:
            print(f"[{number} of {len(due)}] {run}", flush=True)
            result = in_a_process_of_its_own(HERE, run.words, asked)
            if result is None:
                failed.append(str(run))
                continue
            results.put(key, result, ("case", "variant", "seed"))
            print(f"  {told(run, result)}", flush=True)
    return results.end(failed)


def key_of(run: Run, threads: int) -> dict[str, Any]:
    """What makes two measurements the same, beside machine, versions and source; as JSON gives it back."""
    settings = {**case(run.case).settings, **variant(run.case, run.variant).settings}
    return json.loads(json.dumps({**run._asdict(), "settings": settings, "threads": threads}))


def source() -> str:
    """Of what a run is made of: the package and the rows."""
    made_of = ("_quality/data.py", "_quality/ours.py", "_forgetting/steps.py")
    return fingerprint(hashlib.sha256(source_digest().encode()), HERE.parent, made_of)


def told(run: Run, result: Mapping[str, Any]) -> str:
    if "unfit" in result:
        return f"does not fit: {result['unfit']}"
    metric = "perplexity" if run.case == STORIES else "accuracy"
    kept = ", ".join(f"{name} {value:g}" for name, value in result["kept"].items())
    return f"{metric} {result['metrics'][metric]['value']:.4f}; {kept}; {result['cpu_seconds']:.0f} s CPU"


def measured(run: Run, asked: argparse.Namespace) -> dict[str, Any]:
    """Rows written, the training, its report read, each in its own process; the clock runs for the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def do(step: str) -> int:
            command = step_words(HERE, run.words, step, folder, asked)
            return _processes.child(command, str(run), folder, asked.threads)

        return _processes.measured(do, folder)


if __name__ == "__main__":
    raise SystemExit(main())
