"""Training on a GPU: is it right, how fast is it, and what does it take? Beside transformers' Trainer and PEFT.

    python benchmarks/gpu.py [--works checks,parts,encoder,llm_0.5b,llm_8b] [--out DIR] [--minutes 19]
    python benchmarks/gpu.py --trial --out DIR    # all of it on a CPU with tiny shapes: that it runs, and no figure

What is done, and what is not equal on both sides, is said in README.md of this folder.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _common import RESULTS, environment, write_results
from _gpu import works
from _gpu.page import page
from _gpu.works import CARD, CHECKS, CHOICES, PARTS, Turn, turns
from _processes import refuse_unknown, words

Plain = dict[str, Any]
NAME = "gpu"
MARK = "RECORD "  # begins a line in which a process of its own gives a record
MEASURED = "measured"
LIMIT_S = {CHECKS: 480.0, PARTS: 360.0, MEASURED: 240.0}  # of one process
SHOWN = 3  # last lines of what a failed one printed
PEERS = ("accelerate", "peft")


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.one is not None:
        for record in one(asked.one, asked.trial):
            print(MARK + json.dumps(record), flush=True)  # each as it is found: what follows may be stopped
        return 0
    why_not = "" if asked.trial else no_gpu()
    if why_not:
        print(f"{why_not}: nothing was measured; --trial --out DIR shows on a CPU that all of it runs", file=sys.stderr)
        return 2
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        print(f"{' and '.join(missing)} missing: what needs them will fail, and be listed", flush=True)
    plain: Plain = {"schema": 1, "environment": environment(), "trial": asked.trial, "failed": []}
    plain |= {key: [] for key in (CARD, CHECKS, PARTS, MEASURED)}
    if not asked.trial:
        keep(plain, asked.out / f"{NAME}.json", asked.works)
    measure(asked, plain, lambda: write_results(asked.out, NAME, plain, page(plain)))
    print("\n".join(page(plain)))
    return 0 if sound(plain) else 1


def keep(plain: Plain, path: Path, again: Sequence[str]) -> None:
    """Takes over what an earlier call found with the same source and versions of works that are not asked for again."""
    if not path.exists():
        return
    earlier = json.loads(path.read_text(encoding="utf-8"))
    same = all(earlier["environment"][key] == plain["environment"][key] for key in ("source", "versions"))
    if earlier["schema"] != plain["schema"] or not same:
        print(f"{path}: of another source or other versions, and left out", flush=True)
        return
    for key in (CHECKS, PARTS):
        plain[key] += [] if key in again else earlier[key]
    plain[MEASURED] += [record for record in earlier[MEASURED] if record["work"] not in again]
    plain["failed"] += [one for one in earlier["failed"] if one["what"].split(",")[0] not in (CARD, *again)]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--works", type=words, default=list(CHOICES), metavar="A,B", help=f"of {', '.join(CHOICES)} (default: all)"
    )
    parser.add_argument(
        "--minutes", type=float, default=19.0, help="after which nothing more is begun; the page says what (default 19)"
    )
    parser.add_argument("--trial", action="store_true", help="tiny shapes on a CPU, to see that it runs; no figures")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of {NAME}.json and {NAME}.md")
    parser.add_argument("--one", type=words, help=argparse.SUPPRESS)  # what a process of its own does
    asked = parser.parse_args(arguments)
    refuse_unknown(parser, "--works", asked.works, CHOICES)
    if asked.minutes <= 0:
        parser.error("--minutes must be more than 0")
    if asked.trial and asked.out == RESULTS and asked.one is None:
        parser.error("--trial: give --out too; a trial takes no place of results")
    return asked


def no_gpu() -> str:
    """ "" where torch sees a GPU; else a word on that."""
    import torch

    return "" if torch.cuda.is_available() else "torch sees no GPU here"


def one(name: Sequence[str], trial: bool) -> Iterator[Plain]:
    """What a process of its own finds: of the card, of the checks, of the parts, or of one contender at one job."""
    from _gpu import card, checks, measuring, parts

    device = "cpu" if trial else card.CUDA
    if name == [CARD]:
        yield card.describe(device)
    elif name == [CHECKS]:
        yield from (checks.done(said, check) for said, check in checks.checks(trial, device))
    elif name == [PARTS]:
        times = 2 if trial else parts.TIMES
        for part in parts.parts(trial, device):
            yield from parts.measured(part, device, times)
    else:
        work, job, contender = name
        yield measuring.one(Turn(work, int(job), contender), trial, device)


def measure(asked: argparse.Namespace, plain: Plain, write: Callable[[], object]) -> None:
    """Fills the records of what was asked for, in this order; the files are written anew after each."""
    end = time.monotonic() + 60 * asked.minutes
    todo = [
        ([CARD], CARD),
        ([CHECKS], CHECKS),
        *((turn.words, MEASURED) for turn in turns(asked.works)),
        ([PARTS], PARTS),
    ]
    for name, key in todo:
        if key in (CHECKS, PARTS) and key not in asked.works:
            continue
        what, left = named(name, asked.trial), end - time.monotonic()
        limit = min(LIMIT_S.get(key, LIMIT_S[MEASURED]), left)
        found, why = (
            apart(name, asked.trial, limit) if left > 0 else ([], f"not begun within {asked.minutes:g} minutes")
        )
        plain[key] += found
        if why:
            plain["failed"].append({"what": what, "why": why})
        print(f"{what}: {why or 'done'}", flush=True)
        write()


def apart(name: Sequence[str], trial: bool, limit: float) -> tuple[list[Plain], str]:
    """What `one` gives in a process of its own, which finds memory, kernels and errors of no other; why not all of it."""
    command = [sys.executable, __file__, "--one", ",".join(name), *(["--trial"] if trial else [])]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as log:
        why = ""
        try:
            status = subprocess.run(command, stdout=out, stderr=log, check=False, timeout=limit).returncode
        except subprocess.TimeoutExpired:
            status, why = None, f"stopped after {limit:.0f} s"
        out.seek(0)
        log.seek(0)
        records = [json.loads(line.removeprefix(MARK)) for line in out if line.startswith(MARK)]
        if status:
            why = f"ended with {status}: {' / '.join([line.strip() for line in log if line.strip()][-SHOWN:])}"[:600]
    return records, why


def named(name: Sequence[str], trial: bool) -> str:
    if len(name) == 1:
        return name[0]
    work, job, contender = name
    found = works.work_of(work, trial).jobs[int(job)]
    return f"{work}, {found.method}, {found.amount.batch} a step: {works.NAMES[contender]}"


def sound(plain: Plain) -> bool:
    """Whether nothing was found wrong. What did not run is on the page; what computed wrongly is an error."""
    return all(check["passed"] for check in plain["checks"]) and not any(
        failed["what"] == CHECKS for failed in plain["failed"]
    )


if __name__ == "__main__":
    raise SystemExit(main())
