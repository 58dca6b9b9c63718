"""Speed of training and of prediction beside what else a user would run: the same jobs, in turns.

    python benchmarks/throughput.py [--works full,lora,layers,head,heads,prediction,startup,scaling] [--rounds 3]

What is inside the clock of each contender is said in README.md of this folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _common import DATA, MODEL, RESULTS, environment, versions_of, write_results
from _processes import refuse_unknown, words
from _speed import works
from _speed.works import Work

PEERS = ("accelerate", "peft")
FURTHER = ("sentence-transformers", "onnxruntime", "onnx")  # a contender whose package is not there is left out, and said
TRIAL = {"rows": 96, "epochs": 1, "head_epochs": 2, "rounds": 1, "texts": 100}


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    missing = [name for name in PEERS if find_spec(name) is None]
    if missing:
        raise SystemExit(
            f'{" and ".join(missing)} must be installed for this comparison: pip install "tunesmith[bench]"'
        )
    import torch

    from tunesmith.errors import TunesmithError

    if asked.threads:
        torch.set_num_threads(asked.threads)
    found = environment()
    found["versions"] |= versions_of(FURTHER)
    outcomes: dict[str, dict[str, Any]] = {}
    try:
        for work in works.chosen(asked.works):
            outcomes[work.name] = measured(work, asked)
            written(asked, found, outcomes)  # what was measured so far is kept
    except TunesmithError as error:
        raise SystemExit("\n".join(error.problems)) from None
    print("\n".join(written(asked, found, outcomes)))
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder with train.csv and test.csv: text first, label last")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument(
        "--works", type=words, default=list(works.BY_DEFAULT), metavar="A,B",
        help=f"of {', '.join(works.NAMES)} (default: all but time_to_quality)",
    )  # fmt: skip
    parser.add_argument("--rows", type=int, default=400, help="training rows; 0 for all (default 400)")
    parser.add_argument("--epochs", type=int, default=3, help="of full and lora (default 3, the Trainer's own default)")
    parser.add_argument("--head-epochs", type=int, default=10, help="of layers and head (default 10)")
    parser.add_argument("--texts", type=int, default=0, help="that are predicted; 0 for the whole test table (default)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of torch (default: torch's own choice)")
    parser.add_argument("--bound", type=float, default=900, help="CPU seconds of a Trainer in time_to_quality (default 900)")
    parser.add_argument("--long", action="store_true", help="more points in scaling, and no bound in time_to_quality")
    parser.add_argument("--trial", action="store_true", help="few rows of everything, to see that it runs; the page says so")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of throughput.json and throughput.md")
    asked = parser.parse_args(arguments)
    refuse_unknown(parser, "--works", asked.works, works.NAMES)
    if min(asked.rows, asked.threads, asked.texts) < 0 or min(asked.epochs, asked.head_epochs, asked.rounds) < 1:
        parser.error("--rows, --texts and --threads must be at least 0; --epochs, --head-epochs and --rounds at least 1")
    if asked.trial and asked.out == RESULTS:
        parser.error("--trial: give --out too; a trial takes no place of results")
    if asked.trial:
        vars(asked).update(TRIAL)
    return asked


def measured(work: Work, asked: argparse.Namespace) -> dict[str, Any]:
    """What the work's own module found: `job`, `measured`, and `missing` where peers are not installed."""
    return import_module(f"_speed.{work.module}").measure(work, asked)


def written(asked: argparse.Namespace, found: dict[str, Any], outcomes: dict[str, dict[str, Any]]) -> list[str]:
    """Writes both files; the page."""
    from _speed.page import page
    from _speed.summary import lines, summary

    records = [record for outcome in outcomes.values() for record in outcome["measured"]]
    plain = {
        "schema": 2,
        "environment": found,
        "model": Path(asked.model).name,
        "data": asked.data.name,
        "trial": asked.trial,
        "rounds": asked.rounds,
        "rows": asked.rows,
        "jobs": {name: outcome["job"] for name, outcome in outcomes.items()},
        "missing": {name: needs for outcome in outcomes.values() for name, needs in outcome.get("missing", {}).items()},
        "measured": records,
        "summary": summary([record for record in records if record["work"] != "scaling"]),
        "lines": lines([record for record in records if record["work"] == "scaling"]),
    }
    shown = page(plain)
    write_results(asked.out, "throughput", plain, shown)
    return shown


if __name__ == "__main__":
    raise SystemExit(main())
