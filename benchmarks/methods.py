"""Every way to fine-tune beside the others, each at a rate chosen on validation rows. See README.md in this folder.

    python benchmarks/methods.py [--jobs sst2,flowers5] [--methods lora,full] [--seeds 0,1,2] [--dry]

A run that the results file holds, of the same versions, machine and settings, is not done again; one of an earlier source
stays, marked, until --stale or --again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import _processes
from _common import source_digest
from _kept import Results, add_stale, fingerprint
from _methods.choice import CHOOSING, FINAL, Part, at_edge, chosen, planned, times_words, tried, unfit
from _methods.steps import step
from _methods.ways import MEASURES, WAYS, goes_on, measure, way
from _methods_page import page
from _processes import add_options, in_a_process_of_its_own, refuse_unknown, step_words, words

HERE = Path(__file__).resolve()
NAME = "methods"
Run = Mapping[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.one is None:
        return benchmark(asked)
    part, rate = part_of(asked.one)
    if asked.step is not None:
        step(asked.step, asked.folder, part, rate, asked.rows, asked.shared)
    else:
        print(json.dumps(measured(part, rate, asked)))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    jobs, ways = [item.name for item in MEASURES], [item.name for item in WAYS]
    parser.add_argument("--jobs", type=words, default=jobs, metavar="A,B")
    parser.add_argument("--methods", type=words, default=ways, metavar="A,B")
    parser.add_argument(
        "--one", nargs=5, metavar=("JOB", "METHOD", "WHAT", "SEED", "RATE"),
        help=f"one measurement, as a JSON line; WHAT is {CHOOSING} or {FINAL}, RATE auto or a number",
    )  # fmt: skip
    add_options(parser, NAME)
    add_stale(parser)
    asked = parser.parse_args(arguments)
    asked.shared = asked.shared.resolve()
    refuse_unknown(parser, "--jobs", asked.jobs, jobs)
    refuse_unknown(parser, "--methods", asked.methods, ways)
    if asked.one is not None:
        for place, known in enumerate((jobs, ways, [CHOOSING, FINAL])):
            refuse_unknown(parser, "--one", [asked.one[place]], known)
    if asked.threads < 1 or asked.rows < 0:
        parser.error("--threads must be at least 1, --rows at least 0")
    return asked


def one_words(part: Part, rate: float | None) -> list[str]:
    """Those of --one; `part_of` reads them."""
    return [part.job, part.way, part.what, str(part.seed), "auto" if rate is None else repr(rate)]


def part_of(one: Sequence[str]) -> tuple[Part, float | None]:
    job, name, what, seed, rate = one
    return Part(job, name, what, int(seed)), None if rate == "auto" else float(rate)


def benchmark(asked: argparse.Namespace) -> int:
    """Every run that is due, in turn; 1 where one failed."""
    due = [part for part in planned(asked.jobs, asked.methods, asked.seeds) if goes_on(way(part.way), part.job)]
    results = Results(NAME, asked, source(), page)
    failed, missing = [], {item.name for item in WAYS if item.package and find_spec(item.package) is None}
    for number, part in enumerate(due, 1):
        if part.way in missing or (part.times != 1.0 and unfit(of_way(results.runs, part))):
            continue
        rate, why = rate_for(part, results.runs)
        key = key_of(part, rate, asked.threads)
        if results.hold(key):
            print(f"{part}: kept from {asked.out / NAME}.json", flush=True)
        elif asked.dry:
            print(f"{part}: would run{f' ({why})' if why else ''}", flush=True)
        elif why is not None:
            failed.append(f"{part} ({why})")
        else:
            print(f"[{number} of {len(due)}] {part}", flush=True)
            result = in_a_process_of_its_own(HERE, one_words(part, rate), asked)
            if result is None:
                failed.append(str(part))
                continue
            results.put(key, result, ("job", "way", "what", "seed", "times"))
            print(f"  {told(part, result, results.runs)}", flush=True)
    for name in sorted(missing.intersection(asked.methods)):
        print(f"{name}: left out, since {way(name).package} is not installed", flush=True)
    return results.end(failed)


def of_way(runs: Sequence[Run], part: Part) -> list[Run]:
    return [item for item in runs if (item["job"], item["way"]) == (part.job, part.way)]


def rate_for(part: Part, runs: Sequence[Run]) -> tuple[float | None, str | None]:
    """The rate to ask for (None: the method's own), and why there is none to run with, if so."""
    found = tried(runs, part.job, part.way)
    if part.what == FINAL:
        best = chosen(found)
        return (None, "no rate has been chosen") if best is None else (best["rate"], None)
    if part.times == 1.0:
        return None, None
    own = next((item for item in found if item["times"] == 1.0), None)
    if own is None or own.get("rate") is None:
        return None, "nothing says what the method's own rate is"
    return float(f"{part.times * own['rate']:.3g}"), None


def key_of(part: Part, rate: float | None, threads: int) -> dict[str, Any]:
    """What makes two measurements the same, beside machine, versions and source; as JSON gives it back."""
    own = part.times == 1.0  # its figure is known only when it has run
    plain = {
        "job": part.job,
        "way": part.way,
        "what": part.what,
        "seed": part.seed,
        "times": part.times,
        "settings": way(part.way).asked(),
        "threads": threads,
        **({} if own else {"rate": rate}),
        **({"most": measure(part.job).most} if part.what == FINAL and measure(part.job).most else {}),
    }
    return json.loads(json.dumps(plain))


def source() -> str:
    """Of what a run is made of: the package and the rows."""
    made_of = ("_quality/data.py", "_quality/ours.py", "_methods/steps.py")
    return fingerprint(hashlib.sha256(source_digest().encode()), HERE.parent, made_of)


def told(part: Part, result: Run, runs: Sequence[Run]) -> str:
    for name, said in (("unfit", "does not fit"), ("failed", "failed")):
        if name in result:
            return f"{said}: {result[name]}"
    spent = f"{result['cpu_seconds']:.0f} s CPU, {result['peak_mb']:.0f} MB"
    if part.what == CHOOSING:
        found = tried(runs, part.job, part.way)
        best = chosen(found)
        mark = " (at the edge of what was tried)" if at_edge(found) else ""
        said = "" if best is None else f"; best so far {times_words(best['times'])} its own rate{mark}"
        return f"rate {result['rate']:g}: validation {result['metric']} {result['value']:.4f}{said}; {spent}"
    goal = measure(part.job).job.goals[0]
    return f"rate {result['rate']:g}: {goal.title} {result['metrics'][goal.metric]['value']:.4f}; {spent}"


def measured(part: Part, rate: float | None, asked: argparse.Namespace) -> dict[str, Any]:
    """Rows written, the training, its report read, each in its own process; the clock runs for the second."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)

        def do(step: str) -> int:
            command = step_words(HERE, one_words(part, rate), step, folder, asked)
            return _processes.child(command, str(part), folder, asked.threads)

        return _processes.measured(do, folder)


if __name__ == "__main__":
    raise SystemExit(main())
