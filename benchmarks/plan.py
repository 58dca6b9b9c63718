"""What `tunesmith plan` foretells beside what the run then takes: time and peak memory. See README.md in this folder.

    python benchmarks/plan.py [--cases banking77:lora,books:full] [--again] [--trial --out FOLDER]

Each plan and each run is a command in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import (
    MODEL,
    RESULTS,
    ROOT,
    Reading,
    environment,
    environment_lines,
    source_digest,
    table_lines,
    write_results,
)
from _processes import refuse_unknown, watched, words

NAME = "plan"
TIME, MEMORY = 0.2, 0.1  # how far a forecast may be off
MOBILENET = "weights/mobilenet_v2_035_224/hf"  # in the shared folder
LAYERS = 2  # of the smaller base, made of the first of MiniLM's


@dataclass(frozen=True)
class Case:
    """A run: its rows, base and method."""

    data: str
    method: str
    base: str = "MiniLM"
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.data}:{self.method}" + ("" if self.base == "MiniLM" else f":{self.base}")


LONG = ("training.max_length=256",)
CASES = (
    *(Case("banking77", method) for method in ("head", "bitfit", "layers", "lora", "full")),
    *(Case("books", method, settings=LONG) for method in ("head", "layers", "lora", "full")),
    *(Case("banking77", method, f"{LAYERS} layers") for method in ("lora", "full")),
    Case("flowers5", "head", "MobileNet"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    path = asked.out / f"{NAME}.json"
    held = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() and not asked.again else []
    runs = [run for run in held if run["source"] == source_digest()]
    for case in CASES:
        if case.name in asked.cases and all(run["name"] != case.name for run in runs):
            runs.append({"name": case.name, "source": source_digest(), **measured(case, asked)})
            print(json.dumps(runs[-1]), flush=True)
            plain = {"environment": environment(), "trial": asked.trial, "runs": runs}
            write_results(asked.out, NAME, plain, page(plain))
    if not runs:
        raise SystemExit(f"{asked.out}: nothing was measured")
    print("\n".join(page({"environment": environment(), "trial": asked.trial, "runs": runs})))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    names = [case.name for case in CASES]
    parser.add_argument("--cases", type=words, default=names, metavar="A,B", help=f"of {', '.join(names)}")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared", help="folder with data and weights")
    parser.add_argument("--again", action="store_true", help="do runs again that the results file holds")
    parser.add_argument("--trial", action="store_true", help="few rows of everything, to see that it runs")
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"folder of {NAME}.json and {NAME}.md")
    asked = parser.parse_args(arguments)
    refuse_unknown(parser, "--cases", asked.cases, names)
    if asked.trial and asked.out == RESULTS:
        parser.error("--trial: give --out too; a trial takes no place of results")
    return asked


def measured(case: Case, asked: argparse.Namespace) -> dict[str, Any]:
    """{"foretold": ..., "taken": ...}, each with seconds, cpu_seconds and peak_mb; and what the plan itself took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words_of = [str(rows_of(case, asked, folder)), "--model", base_of(case, asked, folder)]
        settings = [word for setting in case.settings for word in ("--set", setting)]
        begun = Reading.now()
        done(["plan", *words_of, "--methods", case.method, "--json", *settings], "plan", folder)
        price = Reading.now().since(begun)
        told = json.loads((folder / "plan.log").read_text(encoding="utf-8").splitlines()[-1])
        done(["train", *words_of, "--method", case.method, "--out", "run", *settings], "train", folder)
        taken = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))["cost"]
    figures = {"seconds": "seconds", "cpu_seconds": "cpu_seconds", "peak_mb": "peak_memory_mb"}
    return {
        "foretold": {key: round(told[key], 2) for key in figures},
        "taken": {key: round(taken[name], 2) for key, name in figures.items()},
        "phases": {
            "foretold": {phase["name"]: round(phase["cpu_seconds"], 2) for phase in told["phases"]},
            "taken": {phase["name"]: round(phase["cpu_seconds"], 2) for phase in taken["phases"]},
        },
        "price": {"seconds": round(price.wall, 1), "cpu_seconds": round(price.cpu, 1)},
    }


def done(command: Sequence[str], said: str, folder: Path) -> None:
    """A command of Tunesmith's in `folder`; what it printed is in `said`.log there."""
    code = "from tunesmith.cli.main import run; run()"
    watched([sys.executable, "-c", code, *command], said, folder, 0)


def rows_of(case: Case, asked: argparse.Namespace, folder: Path) -> Path:
    """The rows of a case: a table in `folder`, or the data's own folder."""
    source = asked.shared / "data"
    if case.data == "flowers5":
        return source / case.data
    if case.data == "books":
        return cut(source / "amazon_multidomain" / "books.csv", folder / "rows.csv", 160 if asked.trial else 600)
    return cut(source / "banking77" / "train.csv", folder / "rows.csv", 600 if asked.trial else 4_000)


def cut(source: Path, out: Path, rows: int) -> Path:
    """So many rows of a table, drawn by seed; its own splits are left away."""
    with source.open(encoding="utf-8", newline="") as lines:
        header, *given = csv.reader(lines)
    kept = [place for place, column in enumerate(header) if column != "split"]
    random.Random(0).shuffle(given)
    with out.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines).writerows([row[place] for place in kept] for row in [header, *given[:rows]])
    return out


def base_of(case: Case, asked: argparse.Namespace, folder: Path) -> str:
    if case.base == "MobileNet":
        return str(asked.shared / MOBILENET)
    if case.base == "MiniLM":
        return MODEL
    from transformers import AutoModel, AutoTokenizer

    from tunesmith.models.resolve import resolve, weights_folder

    source = weights_folder(resolve(MODEL).folder)
    made = AutoModel.from_pretrained(source, num_hidden_layers=LAYERS)
    made.save_pretrained(folder / "base")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "base")
    return str(folder / "base")


def page(plain: dict[str, Any]) -> list[str]:
    """Markdown lines."""
    lines = ["# What a plan foretells, and what the run takes", ""]
    lines += ["A trial on few rows.", ""] if plain["trial"] else []
    rows, met = [], 0
    for run in plain["runs"]:
        told, taken = run["foretold"], run["taken"]
        off = {key: told[key] / taken[key] - 1 for key in taken}
        met += abs(off["seconds"]) <= TIME and abs(off["peak_mb"]) <= MEMORY
        cells = [f"{told[key]:,.0f}, {taken[key]:,.0f} ({100 * off[key]:+.0f} %)" for key in taken]
        rows.append((run["name"], *cells, f"{run['price']['seconds']:.0f}"))
    head = ("case", "seconds: foretold, taken", "CPU seconds", "peak MB", "plan, s")
    lines += table_lines(head, rows)
    wanted = f"time within {100 * TIME:.0f} % and memory within {100 * MEMORY:.0f} %"
    return [*lines, "", f"{met} of {len(rows)} have {wanted}.", "", *environment_lines(plain["environment"])]


if __name__ == "__main__":
    raise SystemExit(main())
