"""Speed of training beside Hugging Face Trainer: the same job, in one process, in turns.

    python benchmarks/throughput.py [--rows 600] [--epochs 3] [--rounds 3] [--methods full,lora,head]

What is inside the clock of each contender is said in README.md of this folder.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from _common import (
    DATA,
    MODEL,
    RESULTS,
    Reading,
    Spread,
    environment,
    environment_lines,
    table_lines,
    write_results,
)
from _contenders import BATCH_SIZE, Contender, Job, TrainerDefaults, TrainerTuned, Tunesmith, make_job

from tunesmith.errors import TunesmithError

BUSY = 0.2  # cores: with more of them taken by other processes, a figure is marked as disturbed
PEERS = ("accelerate", "peft")
METHODS = ("full", "lora", "head")
WARM_ROWS = 64  # an untimed turn of each contender first: imports, kernels, memory


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f'{" and ".join(missing)} must be installed for this comparison: pip install "tunesmith[bench]"'
        )
    found = environment()
    contenders: list[Contender] = [Tunesmith(), TrainerDefaults(), TrainerTuned()]
    try:
        measured, jobs = [], []
        for method in asked.methods:
            epochs = asked.head_epochs if method == "head" else asked.epochs
            job = make_job(asked.data, asked.model, method, asked.rows, epochs)
            jobs.append(describe(job))
            print(f"{method}: {job.rows:,} rows, epochs: {epochs}, steps: {job.steps:,}", flush=True)
            warm = make_job(asked.data, asked.model, method, WARM_ROWS, 1)
            for contender in contenders:
                contender.ready(warm)()
            for number in range(1, asked.rounds + 1):
                measured += one_round(job, contenders, number)
    except TunesmithError as error:
        raise SystemExit("\n".join(error.problems)) from None
    plain = {
        "schema": 1,
        "environment": found,
        "model": Path(asked.model).name,
        "data": asked.data.name,
        "batch_size": BATCH_SIZE,
        "rounds": asked.rounds,
        "jobs": jobs,
        "measured": measured,
        "summary": summary(measured),
    }
    lines = page(plain)
    write_results(asked.out, "throughput", plain, lines)
    print("\n".join(lines))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with train.csv, the label in its last column")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--rows", type=int, default=600, help="training rows; 0 for all (default 600)")
    parser.add_argument("--epochs", type=int, default=3, help="of full and lora (default 3, the Trainer's own default)")
    parser.add_argument("--head-epochs", type=int, default=10, help="of head (default 10)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), metavar="A,B")
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: torch's own choice)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of throughput.json and throughput.md")
    asked = parser.parse_args(arguments)
    unknown = [method for method in asked.methods if method not in METHODS]
    if unknown:
        parser.error(f"--methods: {', '.join(unknown)}: choose from {', '.join(METHODS)}")
    if min(asked.rows, asked.threads) < 0 or min(asked.epochs, asked.head_epochs, asked.rounds) < 1:
        parser.error("--rows and --threads must be at least 0; --epochs, --head-epochs and --rounds at least 1")
    return asked


def describe(job: Job) -> dict[str, Any]:
    lengths = [example.length for example in job.encoded.examples["train"]]
    return {
        "method": job.method,
        "rows": job.rows,
        "held_out": len(job.encoded.examples["validation"]),
        "classes": len(job.prepared.labels.names),
        "tokens_a_row": round(sum(lengths) / len(lengths), 1),
        "epochs": job.epochs,
        "steps": job.steps,
    }


def one_round(job: Job, contenders: Sequence[Contender], number: int) -> list[dict[str, Any]]:
    """Each contender once; another one begins in each round, so that none always runs on the warmer machine."""
    shift = (number - 1) % len(contenders)
    found = []
    for turn, contender in enumerate([*contenders[shift:], *contenders[:shift]], start=1):
        work = contender.ready(job)
        gc.collect()
        begun = Reading.now()
        facts = work()
        spent = Reading.now().since(begun)
        if facts.steps != job.steps:
            raise RuntimeError(f"{contender.name}: did {facts.steps} steps where the job has {job.steps}")
        found.append(
            {
                "method": job.method,
                "contender": contender.name,
                "round": number,
                "turn": turn,
                "cpu_seconds": round(spent.cpu, 3),
                "wall_seconds": round(spent.wall, 3),
                "cores_of_others": round(spent.others, 2),
                "steps": facts.steps,
                "precision": facts.precision,
                "trainable": facts.trainable,
                "mean_loss": round(facts.mean_loss, 4),
                "phases": {name: [round(part.cpu, 3), round(part.wall, 3)] for name, part in facts.phases.items()},
            }
        )
        print(
            f"  round {number}: {contender.name}: {spent.cpu:.1f} s CPU, {spent.wall:.1f} s wall, "
            f"{spent.others:.1f} cores busy with other work",
            flush=True,
        )
    return found


def summary(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One entry a method and contender: medians and spreads, and how many times as fast Tunesmith was."""
    out = []
    for method in dict.fromkeys(item["method"] for item in measured):
        rounds: dict[str, list[dict[str, Any]]] = {}
        for item in sorted(measured, key=lambda item: (item["contender"] != Tunesmith.name, item["contender"])):
            if item["method"] == method:
                rounds.setdefault(item["contender"], []).append(item)
        own = rounds[Tunesmith.name]
        for name, items in rounds.items():
            entry: dict[str, Any] = {"method": method, "contender": name, "precision": items[-1]["precision"]}
            for clock in ("cpu", "wall"):
                key = f"{clock}_seconds"
                times = Spread.of([item[key] for item in items])
                ratios = [item[key] / mine[key] for item, mine in zip(items, own, strict=True)]
                entry[clock] = vars(times)
                entry[f"{clock}_ratio"] = {
                    "median": times.median / Spread.of([mine[key] for mine in own]).median,
                    "least": min(ratios),
                    "most": max(ratios),
                }
            out.append(entry)
    return out


def page(plain: dict[str, Any]) -> list[str]:
    head = ["method", "contender", "numbers", "CPU s", "wall s", "CPU ratio", "wall ratio"]
    rows = []
    for entry in plain["summary"]:
        own = entry["contender"] == Tunesmith.name
        cells = [Spread(**entry[clock]).text() for clock in ("cpu", "wall")]
        ratios = ["1" if own else Spread(**entry[f"{clock}_ratio"]).text() for clock in ("cpu", "wall")]
        rows.append([entry["method"], entry["contender"], entry["precision"], *cells, *ratios])
    done = [
        f"{job['method']}: {job['rows']:,} rows of {job['tokens_a_row']} tokens, {job['classes']} classes, "
        f"{job['epochs']} epoch{'s' if job['epochs'] > 1 else ''}, {job['steps']:,} steps"
        for job in plain["jobs"]
    ]
    return [
        "# Training speed beside Hugging Face Trainer",
        "",
        f"{plain['model']} on {plain['data']}, batches of {plain['batch_size']}. Seconds: median (least to most) of "
        f"{plain['rounds']} rounds, from encoded rows to a trained model in memory. Ratio: that contender's time over "
        "Tunesmith's, of the medians (least and most of the rounds). What is inside the clock: ../README.md.",
        "",
        *table_lines(head, rows, text_columns=3),
        "",
        *[f"- {line}" for line in done],
        "",
        *disturbed_lines(plain["measured"]),
        "Where Tunesmith's time goes, in CPU seconds of the median round:",
        "",
        *phase_lines(plain["measured"]),
        "",
        *environment_lines(plain["environment"]),
    ]


def phase_lines(measured: Sequence[dict[str, Any]]) -> list[str]:
    own = [item for item in measured if item["contender"] == Tunesmith.name]
    chosen = []
    for method in dict.fromkeys(item["method"] for item in own):
        rounds = sorted((item for item in own if item["method"] == method), key=lambda item: item["cpu_seconds"])
        chosen.append(rounds[(len(rounds) - 1) // 2])
    names = list(chosen[0]["phases"])
    rows = [[item["method"], *(f"{item['phases'][name][0]:.2f}" for name in names)] for item in chosen]
    return table_lines(["method", *names], rows)


def disturbed_lines(measured: Sequence[dict[str, Any]]) -> list[str]:
    taken = [item["cores_of_others"] for item in measured]
    disturbed = [share for share in taken if share > BUSY]
    if not disturbed:
        return []
    return [
        f"**Disturbed**: in {len(disturbed)} of {len(taken)} measurements other processes kept more than {BUSY:g} cores "
        f"busy (up to {max(taken):.1f}). Threads that wait spin, so CPU seconds grow with it too: measure again on a "
        "machine without other work.",
        "",
    ]


if __name__ == "__main__":
    raise SystemExit(main())
