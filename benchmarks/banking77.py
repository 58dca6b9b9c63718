"""Accuracy on Banking77: every method, several seeds, all training rows. See README.md in this folder.

    python benchmarks/banking77.py [--methods head,lora,layers,full] [--seeds 0,1,2] [--set training.epochs=3]

A run that the results file already holds, of the same source, versions, machine and settings, is not done again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _common import (
    DATA,
    MODEL,
    RESULTS,
    Reading,
    commit,
    environment,
    environment_lines,
    table_lines,
    write_results,
)

from tunesmith import finetune
from tunesmith.errors import TunesmithError
from tunesmith.recipe import set_value
from tunesmith.training.events import Evaluated

METHODS = ("head", "lora", "layers", "full")  # cheapest first
NAME = "banking77"
ORIGIN = ("source", "machine", "versions")  # of an environment: runs that differ in these do not share a table


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    plain = kept_or_new(asked)
    try:
        settings = settings_of(asked.set)
        for method in asked.methods:
            for seed in asked.seeds:
                key = {"method": method, "seed": seed, "settings": settings}
                if not asked.again and find(plain["runs"], key) is not None:
                    print(f"{method}, seed {seed}: kept from {asked.out / NAME}.json", flush=True)
                    continue
                result = one_run(asked, key)
                plain["runs"] = [run for run in plain["runs"] if not same(run, key)] + [result]
                write_results(asked.out, NAME, plain, page(plain))  # after each run, so that a stop loses one at most
    except TunesmithError as error:
        raise SystemExit("\n".join(error.problems)) from None
    lines = page(plain)
    write_results(asked.out, NAME, plain, lines)
    print("\n".join(lines))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with train.csv and test.csv")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list(METHODS), metavar="A,B")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2], metavar="0,1,2")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a recipe key, for every run")
    parser.add_argument("--again", action="store_true", help="do runs again that the results file holds")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of banking77.json and banking77.md")
    asked = parser.parse_args(arguments)
    unknown = [method for method in asked.methods if method not in METHODS]
    if unknown:
        parser.error(f"--methods: {', '.join(unknown)}: choose from {', '.join(METHODS)}")
    return asked


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def settings_of(assignments: Sequence[str]) -> dict[str, Any]:
    """Dotted keys and values of "training.epochs=3" and the like. Raises RecipeError."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        nested: dict[str, Any] = {}
        set_value(nested, assignment)
        key = assignment.partition("=")[0].strip()
        for part in key.split("."):
            nested = nested[part]
        found[key] = nested
    return found


def kept_or_new(asked: argparse.Namespace) -> dict[str, Any]:
    """The results file where it is of this source, machine and job; else a new one, and a word on what is left out."""
    now = environment()
    fresh = {"schema": 1, "environment": now, "model": Path(asked.model).name, "data": asked.data.name, "runs": []}
    path = asked.out / f"{NAME}.json"
    if not path.exists():
        return fresh
    earlier = json.loads(path.read_text(encoding="utf-8"))
    differs = [key for key in ORIGIN if earlier["environment"][key] != now[key]]
    differs += [key for key in ("schema", "model", "data") if earlier[key] != fresh[key]]
    if differs:
        print(
            f"{path}: its {len(earlier['runs'])} runs are of another {', '.join(differs)}, and are left out", flush=True
        )
        return fresh
    return {**fresh, "runs": earlier["runs"]}


def same(run: dict[str, Any], key: dict[str, Any]) -> bool:
    return all(run[name] == value for name, value in key.items())


def find(runs: Sequence[dict[str, Any]], key: dict[str, Any]) -> dict[str, Any] | None:
    return next((run for run in runs if same(run, key)), None)


def one_run(asked: argparse.Namespace, key: dict[str, Any]) -> dict[str, Any]:
    """A whole run as a user has it: rows read, baselines, training, checkpoints, the saved model measured on test."""
    validations: list[Evaluated] = []

    def listen(event: Any) -> None:
        if isinstance(event, Evaluated):
            validations.append(event)
            print(f"  epoch {event.epoch:.0f}: validation {event.metric} {event.value:.4f}", flush=True)

    print(f"{key['method']}, seed {key['seed']}", flush=True)
    begun = Reading.now()
    with tempfile.TemporaryDirectory() as folder:
        run = finetune(
            str(asked.model),
            asked.data,
            key["method"],
            settings=key["settings"],
            seed=key["seed"],
            out=Path(folder) / "run",
            listen=listen,
        )
        report = run.report
    spent = Reading.now().since(begun)
    result = {
        **key,
        "commit": commit(),
        "accuracy": report["metrics"]["accuracy"],
        "macro_f1": report["metrics"]["macro_f1"],
        "baselines": {item["name"]: item["metrics"]["accuracy"]["value"] for item in report["baselines"]},
        "validations": [[event.step, event.value, event.loss] for event in validations],
        "rows": {split["name"]: split["rows"] for split in report["data"]["splits"]},
        "trainable": report["cost"]["trainable"],
        "peak_memory_mb": report["cost"]["peak_memory_mb"],
        "cpu_seconds": round(spent.cpu, 1),
        "wall_seconds": round(spent.wall, 1),
        "cores_of_others": round(spent.others, 2),
    }
    print(f"  test accuracy {result['accuracy']['value']:.4f}, {spent.cpu:.0f} s CPU, {spent.wall:.0f} s", flush=True)
    return result


def page(plain: dict[str, Any]) -> list[str]:
    """Mean over seeds and each seed's value, a line for each method and settings."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in sorted(plain["runs"], key=lambda run: (METHODS.index(run["method"]), run["seed"])):
        extra = ", ".join(f"{key}={value}" for key, value in run["settings"].items())
        groups.setdefault(f"{run['method']}{f' ({extra})' if extra else ''}", []).append(run)
    rows = []
    for name, runs in groups.items():
        accuracy = [run["accuracy"]["value"] for run in runs]
        rows.append(
            [
                name,
                f"{statistics.mean(accuracy):.4f}",
                " ".join(f"{value:.4f}" for value in accuracy),
                ", ".join(str(run["seed"]) for run in runs),
                f"{statistics.mean(run['macro_f1']['value'] for run in runs):.4f}",
                f"{runs[-1]['trainable']:,}",
                f"{statistics.mean(run['cpu_seconds'] for run in runs):.0f}",
                f"{statistics.mean(run['wall_seconds'] for run in runs):.0f}",
            ]
        )
    head = ["method", "accuracy", "by seed", "seeds", "macro-F1", "trained", "CPU s", "wall s"]
    return [
        "# Banking77: accuracy on the test rows as given",
        "",
        f"{plain['model']} on {plain['data']}: {rows_line(plain['runs'])}. Means over the seeds; seconds are those of a "
        "whole run, with its baselines, checkpoints and the check of the saved model. See ../README.md.",
        "",
        *table_lines(head, rows),
        "",
        *baseline_lines(plain["runs"]),
        *environment_lines(plain["environment"]),
    ]


def rows_line(runs: Sequence[dict[str, Any]]) -> str:
    if not runs:
        return "no runs yet"
    counts = [f"{count:,} {name} rows" for name, count in runs[-1]["rows"].items()]
    return ", ".join(counts) + " (validation rows are taken from the training file, anew for each seed)"


def baseline_lines(runs: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[str, list[float]] = {}
    for run in runs:
        for name, value in run["baselines"].items():
            found.setdefault(name, []).append(value)
    if not found:
        return []
    words = [f"{name} {statistics.mean(values):.4f}" for name, values in found.items()]
    return [f"- Baselines of the same runs, mean accuracy: {', '.join(words)}"]


if __name__ == "__main__":
    raise SystemExit(main())
