"""Measurements in processes of their own, so that clocks and peak memory are those of one run; and their options."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from _common import RESULTS, ROOT, Reading

SHOWN = 12  # last lines of what a failed run printed
STEPS = ("prepare", "run", "score")  # of a measurement, in this order; the clock runs for the second
SCORED = "scored.json"  # what the last of them writes
QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Those that every script takes that measures in processes of their own."""
    parser.add_argument("--seeds", type=numbers, default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch and others (default 1: comparable CPU seconds)"
    )
    parser.add_argument("--rows", type=int, default=0, help="a trial on so many rows a split; its results are not kept")
    parser.add_argument("--again", action="store_true", help="do runs again that the results file holds")
    parser.add_argument("--dry", action="store_true", help="say what would run, and end")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data and weights")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of {name}.json and {name}.md")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)  # of --one, each in a process of its own
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)


def words(text: str) -> list[str]:
    return text.split(",")


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def refuse_unknown(parser: argparse.ArgumentParser, option: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown:
        parser.error(f"{option}: {', '.join(unknown)}: choose from {', '.join(known)}")


def one_words(script: Path, one: Sequence[str], asked: argparse.Namespace) -> list[str]:
    """The command of a single measurement."""
    found = [sys.executable, str(script), "--one", *one, "--rows", str(asked.rows)]
    return [*found, "--threads", str(asked.threads), "--shared", str(asked.shared)]


def in_a_process_of_its_own(script: Path, one: Sequence[str], asked: argparse.Namespace) -> dict[str, Any] | None:
    """The measurement; None where it failed, which is printed.

    In between stands a process that imports little: of what one starts, the system counts the starter's memory as well.
    """
    done = subprocess.run(one_words(script, one, asked), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print("\n".join(f"  {line}" for line in done.stderr.splitlines()), flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measured(do: Callable[[str], int], folder: Path) -> dict[str, Any]:
    """What the three steps found, and what the second took. `do` does one in `folder`: its peak memory in bytes."""
    do("prepare")
    begun = Reading.now()
    peak = do("run")
    spent = Reading.now().since(begun)
    do("score")
    return {
        **json.loads((folder / SCORED).read_text(encoding="utf-8")),
        "cpu_seconds": round(spent.cpu, 1),
        "wall_seconds": round(spent.wall, 1),
        "cores_of_others": round(spent.others, 2),
        "peak_mb": round(peak / 1e6, 1),
    }


def child(command: Sequence[str], said: str, folder: Path, threads: int) -> int:
    """Runs a step in `folder`, and gives its peak resident memory in bytes.

    said: which run it is of. Raises SystemExit with the end of what it printed where it failed.
    """
    return watched(command, f"{said}: step {command[command.index('--step') + 1]}", folder, threads)


def watched(command: Sequence[str], said: str, folder: Path, threads: int) -> int:
    """Runs a command in `folder` with so many threads (0: as many as each library takes): peak resident memory in bytes.

    Raises SystemExit with the end of what it printed where it failed.
    """
    (folder / "cache").mkdir(exist_ok=True)
    found = {**os.environ, **QUIET} | (dict.fromkeys(THREADS, str(threads)) if threads else {})
    # The source that results are kept by, whatever is installed; absolute, since the step runs in a folder of its own.
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    found |= {"PYTHONPATH": os.pathsep.join(paths)}
    found |= {"TUNESMITH_CACHE": str(folder / "cache"), "HF_DATASETS_CACHE": str(folder / "cache")}
    log = folder / f"{said.rpartition(' ')[2]}.log"
    with log.open("w", encoding="utf-8") as out:
        started = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=found, cwd=folder)
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
    if started.returncode != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-SHOWN:]
        raise SystemExit("\n".join([f"{said} ended with {started.returncode}:", *lines]))
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def step_words(script: Path, one: Sequence[str], name: str, folder: Path, asked: argparse.Namespace) -> list[str]:
    """The command of one step of a measurement."""
    return [*one_words(script, one, asked), "--step", name, "--folder", str(folder)]
